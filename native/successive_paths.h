// The exact capacitated assignment of one problem by successive shortest paths, for problems that fit the cache.
//
// Everybody goes to their best experts at some prices, which is optimal for the loads that come out. Then, one path at
// a time, datapoints move from overfull experts to those with room, along a cheapest chain of experts, and the prices
// follow: the assignment stays optimal for its loads throughout. docs/matching.md has the proof. Who is where, and the
// cheapest datapoint for every edge of a chain, is for the residual graph to say: that of one expert for every
// datapoint (one_expert.h), or of several (several_experts.h).
//
// Right results need scores small enough that no sum overflows, which match.h sees to. Whatever comes of sums and
// prices, NaN included, no index leaves its range: it starts in it, or is set by a strict comparison, which a NaN
// fails.

#ifndef GUMBEL_MOE_SUCCESSIVE_PATHS_H_
#define GUMBEL_MOE_SUCCESSIVE_PATHS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "one_expert.h"

namespace gumbel_moe {

template <typename Score, template <typename> typename Graph>
class SuccessivePaths {
 public:
  // `scores` (n, k) as the graph wants them, for datapoints of `each` experts; room for everybody in `capacity` (k).
  SuccessivePaths(const Score* scores, int64_t n, int64_t k, int64_t each, const int64_t* capacity)
      : graph_(scores, n, k, each),
        n_(n),
        k_(k),
        capacity_(capacity),
        prices_(k),
        holders_(k),
        excess_(k),
        distance_(k),
        open_(k),
        parent_(k) {}

  // Whether there is an assignment within the capacities; then it is found. `given` holds prices to start from, or
  // nothing.
  bool Solve(const std::vector<double>& given) {
    const std::vector<double> even(k_);
    std::vector<double> start = !given.empty() && Plausible(given) ? given : even;
    double surplus = SampledSurplus(start);
    const auto consider = [&](const std::vector<double>& prices) {
      const double other = SampledSurplus(prices);
      if (other > kClearly * surplus) return;
      surplus = other;
      start = prices;
    };
    if (start != even) consider(even);
    // Chance alone leaves about half as many to move, whatever the prices.
    const double many = std::sqrt(static_cast<double>(n_ / Stride()) * graph_.each() * k_);
    if (surplus > many) {
      const std::vector<double> centre = Centre();
      if (Plausible(centre)) consider(centre);
    }
    // With several experts for a datapoint there are as many times the paths, and it pays to look for better prices.
    if (graph_.each() > 1 && surplus > many && Stride() > 1) {
      const std::vector<double> sampled = OfSample();
      if (!sampled.empty() && Plausible(sampled)) consider(sampled);
    }
    Place(start);
    while (FindPath()) Augment();
    return possible_;
  }

  // How much better off the datapoints would be at their best experts at the prices: 0 where these are optimal.
  double Regret(const std::vector<double>& prices) { return graph_.Regret(prices); }
  double Total() const { return graph_.Total(); }
  // (n), or (n, each) in ascending order.
  void Write(int32_t* assignment) const { graph_.Write(assignment); }
  // Optimal prices, at least 0, and 0 where a place is free.
  std::vector<double> Prices() const {
    std::vector<double> prices(k_);
    const double lowest = *std::min_element(prices_.begin(), prices_.end());
    for (int64_t j = 0; j < k_; ++j) prices[j] = holders_[j] > 0 ? 0 : prices_[j] - lowest;
    return prices;
  }
  // The cost (k, k) of moving one datapoint, or a free place, from the expert of the row to that of the column.
  double Cost(int64_t p, int64_t j) const {
    if (j == p) return 0;
    return holders_[p] > 0 ? std::min(graph_.Costs(p)[j], 0.0) : graph_.Costs(p)[j];
  }
  int64_t paths() const { return paths_; }

 private:
  static constexpr double kWild = 1e5;     // typical scores
  static constexpr double kClearly = 0.5;  // prices as good as others rarely leave half as many too many in a sample

  // Whether the prices leave scores their precision. Those of the size of finite scores that stand for a prohibition,
  // such as -1e30, do not.
  bool Plausible(const std::vector<double>& prices) const {
    std::vector<double> best;
    for (int64_t i = 0; i < n_; i += Stride()) {
      best.push_back(std::abs(*std::max_element(graph_.Row(i), graph_.Row(i) + k_)));
    }
    const auto middle = best.begin() + best.size() / 2;
    std::nth_element(best.begin(), middle, best.end());
    const auto [lowest, highest] = std::minmax_element(prices.begin(), prices.end());
    return *highest - *lowest <= kWild * *middle;
  }

  // Prices at which the experts are about equally wanted: the mean distance of each to the best one of a datapoint.
  std::vector<double> Centre() const {
    std::vector<double> centre(k_);
    for (int64_t i = 0; i < n_; ++i) {
      const Score* row = graph_.Row(i);
      const Score top = *std::max_element(row, row + k_);
      for (int64_t j = 0; j < k_; ++j) centre[j] += std::isinf(row[j]) ? 0 : static_cast<double>(row[j]) - top;
    }
    for (double& mean : centre) mean /= n_;
    return centre;
  }

  // Prices that are right for one in four of the datapoints and of the places; nothing where there are none.
  std::vector<double> OfSample() const {
    constexpr int64_t kShare = 4;
    std::vector<Score> scores;
    for (int64_t i = 0; i < n_; i += kShare) scores.insert(scores.end(), graph_.Row(i), graph_.Row(i) + k_);
    const int64_t n = (n_ + kShare - 1) / kShare;
    std::vector<int64_t> capacity(k_);
    for (int64_t j = 0; j < k_; ++j) capacity[j] = (capacity_[j] * n + n_ - 1) / n_;
    SuccessivePaths sample(scores.data(), n, k_, graph_.each(), capacity.data());
    return sample.Solve({}) ? sample.Prices() : std::vector<double>();
  }

  static constexpr int64_t kSampled = 16;  // datapoints per expert: enough to tell a wanted expert from chance
  int64_t Stride() const { return std::max<int64_t>(n_ / (kSampled * k_), 1); }

  // How many datapoints of a sample are too many at their best experts, if it had its share of the capacities.
  double SampledSurplus(const std::vector<double>& prices) {
    const double share = 1.0 / Stride();
    std::vector<double> room(k_);
    for (int64_t j = 0; j < k_; ++j) room[j] = share * capacity_[j];
    for (int64_t i = 0; i < n_; i += Stride()) graph_.TakeBest(i, prices, room);
    double surplus = 0;
    for (const double left : room) surplus += std::max(-left, 0.0);
    return surplus;
  }

  // Sends everybody to their best experts at the prices.
  void Place(const std::vector<double>& prices) {
    prices_ = prices;
    graph_.Place(prices_, std::vector<double>(capacity_, capacity_ + k_));

    // Place-holders of score 0 fill the free places: at the lowest price, where all that find no room are too many.
    int64_t spare = -n_ * graph_.each();
    for (int64_t j = 0; j < k_; ++j) spare += capacity_[j];
    const int64_t cheapest = std::min_element(prices_.begin(), prices_.end()) - prices_.begin();
    for (int64_t j = 0; j < k_; ++j) {
      holders_[j] = 0;
      if (prices_[j] > prices_[cheapest]) continue;
      holders_[j] = std::min(spare, std::max<int64_t>(capacity_[j] - graph_.Load(j), 0));
      spare -= holders_[j];
    }
    holders_[cheapest] += spare;
    for (int64_t j = 0; j < k_; ++j) excess_[j] = graph_.Load(j) + holders_[j] - capacity_[j];
  }

  // Dijkstra's algorithm on reduced costs from all overfull experts to the nearest one with room, after which the
  // prices rise. False when nobody is overfull any more, or no path leads on.
  bool FindPath() {
    double nearest = kInfinity;
    for (int64_t j = 0; j < k_; ++j) {
      distance_[j] = open_[j] = excess_[j] > 0 ? 0 : kInfinity;
      parent_[j] = -1;
      nearest = std::min(nearest, open_[j]);
    }
    if (nearest > 0) return false;
    for (;;) {
      if (nearest == kInfinity) return possible_ = false;
      // It is there: `nearest` was one of them, and no entry is NaN.
      const int64_t p = std::find(open_.begin(), open_.end(), nearest) - open_.begin();
      if (excess_[p] < 0) {
        target_ = p;
        for (int64_t j = 0; j < k_; ++j) prices_[j] += std::max(nearest - distance_[j], 0.0);
        return true;
      }
      open_[p] = kInfinity;
      const double most = holders_[p] > 0 ? 0 : kInfinity;
      const double here = nearest;
      const double base = here - prices_[p];
      const double* costs = graph_.Costs(p);
      const double* prices = prices_.data();
      double* distance = distance_.data();
      double* open = open_.data();
      int64_t* parent = parent_.data();
      nearest = kInfinity;
#pragma omp simd reduction(min : nearest)
      for (int64_t j = 0; j < k_; ++j) {
        // Reduced costs are not negative but for rounding. A NaN stays one, and is not shorter.
        const double exact = base + (costs[j] < most ? costs[j] : most) + prices[j];
        const double through = exact < here ? here : exact;
        const bool shorter = through < distance[j];
        distance[j] = shorter ? through : distance[j];
        open[j] = shorter ? through : open[j];
        parent[j] = shorter ? p : parent[j];
        nearest = open[j] < nearest ? open[j] : nearest;
      }
    }
  }

  bool ByHolder(int64_t p, int64_t j) const { return holders_[p] > 0 && graph_.Costs(p)[j] >= 0; }

  // One datapoint moves along each edge of the path; place-holders, which are all alike, as many as can.
  void Augment() {
    // A datapoint on every edge without place-holders: of infinite cost, the edge would not be on the path. They are
    // all chosen before the first moves, as that can make a datapoint of another expert the cheapest one.
    moves_.clear();
    int64_t units = -excess_[target_];
    int64_t source = target_;
    for (int64_t j = target_; parent_[j] >= 0; j = source) {
      source = parent_[j];
      const bool by_holder = ByHolder(source, j);
      units = std::min(units, by_holder ? holders_[source] : 1);
      moves_.push_back({source, j, by_holder ? -1 : graph_.Mover(source, j)});
    }
    units = std::min(units, excess_[source]);
    for (const auto& [p, j, i] : moves_) {
      if (i < 0) {
        holders_[p] -= units;
        holders_[j] += units;
      } else {
        graph_.Move(i, p, j);
      }
    }
    graph_.Refresh(prices_);
    excess_[source] -= units;
    excess_[target_] += units;
    ++paths_;
  }

  struct OneMove {
    int64_t from, to, datapoint;  // -1: place-holders
  };

  Graph<Score> graph_;
  const int64_t n_, k_;
  const int64_t* capacity_;
  std::vector<double> prices_;
  std::vector<int64_t> holders_, excess_;
  std::vector<double> distance_, open_;
  std::vector<int64_t> parent_;
  std::vector<OneMove> moves_;
  int64_t target_ = -1, paths_ = 0;
  bool possible_ = true;
};

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_SUCCESSIVE_PATHS_H_
