// The exact capacitated assignment of one problem by successive shortest paths, for problems that fit the cache.
//
// Everybody goes to their best expert at some prices, which is optimal for the loads that come out. Then, one path at a
// time, datapoints move from overfull experts to those with room, along a cheapest chain of experts, and the prices
// follow: the assignment stays optimal for its loads throughout. docs/matching.md has the proof.
//
// Costs are kept in double precision, in which differences of float32 scores have next to no rounding error. Right
// results need scores small enough that no sum overflows, which match.h sees to. Whatever comes of sums and prices, NaN
// included, no index leaves its range: it starts in it, or is set by a strict comparison, which a NaN fails.

#ifndef GUMBEL_MOE_SUCCESSIVE_PATHS_H_
#define GUMBEL_MOE_SUCCESSIVE_PATHS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace gumbel_moe {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <typename Score>
class SuccessivePaths {
 public:
  // `scores` (n, k) without NaN or +inf, at least one finite score in every row; room for everybody in `capacity` (k).
  // There is at least one datapoint and one expert.
  SuccessivePaths(const Score* scores, int64_t n, int64_t k, const int64_t* capacity)
      : scores_(scores),
        n_(n),
        k_(k),
        capacity_(capacity),
        prices_(k),
        assignment_(n),
        position_(n),
        members_(k),
        holders_(k),
        excess_(k),
        costs_(k * k),
        movers_(k * k),
        shifted_(k),
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
    if (surplus > std::sqrt(static_cast<double>(n_ / Stride()) * k_)) {
      const std::vector<double> centre = Centre();
      if (Plausible(centre)) consider(centre);
    }
    Place(start);
    while (FindPath()) Augment();
    return possible_;
  }

  // How much better off the datapoints would be at their best experts at the prices: 0 where these are optimal.
  double Regret(const std::vector<double>& prices) const {
    const double* price = prices.data();
    double regret = 0;
    for (int64_t i = 0; i < n_; ++i) {
      const Score* row = Row(i);
      // Scores less scores and prices less prices: large prices, if alike, leave small differences of scores alone.
      const double own = row[assignment_[i]];
      const double paid = price[assignment_[i]];
      double gain = 0;
#pragma omp simd reduction(max : gain)
      for (int64_t j = 0; j < k_; ++j) {
        const double other = (row[j] - own) - (price[j] - paid);
        gain = other > gain ? other : gain;
      }
      regret += gain;
    }
    return regret;
  }

  double Total() const {
    double total = 0;
    for (int64_t i = 0; i < n_; ++i) total += Row(i)[assignment_[i]];
    return total;
  }

  const std::vector<int64_t>& assignment() const { return assignment_; }
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
    return holders_[p] > 0 ? std::min(costs_[p * k_ + j], 0.0) : costs_[p * k_ + j];
  }
  int64_t paths() const { return paths_; }

 private:
  static constexpr double kWild = 1e5;     // typical scores
  static constexpr double kClearly = 0.5;  // prices as good as others rarely leave half as many too many in a sample

  // Whether the prices leave scores their precision. Those of the size of finite scores that stand for a prohibition,
  // such as -1e30, do not.
  bool Plausible(const std::vector<double>& prices) const {
    std::vector<double> best;
    for (int64_t i = 0; i < n_; i += Stride()) best.push_back(std::abs(*std::max_element(Row(i), Row(i) + k_)));
    const auto middle = best.begin() + best.size() / 2;
    std::nth_element(best.begin(), middle, best.end());
    const auto [lowest, highest] = std::minmax_element(prices.begin(), prices.end());
    return *highest - *lowest <= kWild * *middle;
  }

  const Score* Row(int64_t i) const { return scores_ + i * k_; }
  int64_t Load(int64_t j) const { return static_cast<int64_t>(members_[j].size()); }

  // Prices at which the experts are about equally wanted: the mean distance of each to the best one of a datapoint.
  std::vector<double> Centre() const {
    std::vector<double> centre(k_);
    for (int64_t i = 0; i < n_; ++i) {
      const Score* row = Row(i);
      const Score top = *std::max_element(row, row + k_);
      for (int64_t j = 0; j < k_; ++j) centre[j] += std::isinf(row[j]) ? 0 : static_cast<double>(row[j]) - top;
    }
    for (double& mean : centre) mean /= n_;
    return centre;
  }

  // The best expert of a datapoint at the prices; of tied ones, that with the most room.
  int64_t BestExpert(int64_t i, const std::vector<double>& prices, const std::vector<double>& room) {
    const Score* row = Row(i);
    const double* price = prices.data();
    double* shifted = shifted_.data();
    double best = -kInfinity;
#pragma omp simd reduction(max : best)
    for (int64_t j = 0; j < k_; ++j) {
      const double value = row[j] - price[j];
      shifted[j] = value;
      best = value > best ? value : best;
    }
    int64_t expert = 0;
    for (int64_t j = 0; j < k_; ++j) {
      if (shifted[j] != best) continue;
      if (shifted[expert] < best || room[j] > room[expert]) expert = j;
    }
    return expert;
  }

  static constexpr int64_t kSampled = 16;  // datapoints per expert: enough to tell a wanted expert from chance
  int64_t Stride() const { return std::max<int64_t>(n_ / (kSampled * k_), 1); }

  // How many datapoints of a sample are too many at their best experts, if it had its share of the capacities.
  double SampledSurplus(const std::vector<double>& prices) {
    const double share = 1.0 / Stride();
    std::vector<double> room(k_);
    for (int64_t j = 0; j < k_; ++j) room[j] = share * capacity_[j];
    for (int64_t i = 0; i < n_; i += Stride()) room[BestExpert(i, prices, room)] -= 1;
    double surplus = 0;
    for (const double left : room) surplus += std::max(-left, 0.0);
    return surplus;
  }

  // Sends everybody to their best expert at the prices.
  void Place(const std::vector<double>& prices) {
    prices_ = prices;
    std::fill(costs_.begin(), costs_.end(), kInfinity);
    std::vector<double> room(capacity_, capacity_ + k_);
    for (int64_t i = 0; i < n_; ++i) {
      const int64_t expert = BestExpert(i, prices_, room);
      room[expert] -= 1;
      Join(i, expert);
    }

    // Place-holders of score 0 fill the free places: at the lowest price, where all that find no room are too many.
    int64_t spare = -n_;
    for (int64_t j = 0; j < k_; ++j) spare += capacity_[j];
    const int64_t cheapest = std::min_element(prices_.begin(), prices_.end()) - prices_.begin();
    for (int64_t j = 0; j < k_; ++j) {
      holders_[j] = 0;
      if (prices_[j] > prices_[cheapest]) continue;
      holders_[j] = std::min(spare, std::max<int64_t>(capacity_[j] - Load(j), 0));
      spare -= holders_[j];
    }
    holders_[cheapest] += spare;
    for (int64_t j = 0; j < k_; ++j) excess_[j] = Load(j) + holders_[j] - capacity_[j];
  }

  // The cheapest way for a datapoint of expert p to expert j costs `costs_[p, j]`, and `movers_[p, j]` would go it;
  // where none can, the cost is infinite.
  void Join(int64_t i, int64_t p) {
    assignment_[i] = p;
    position_[i] = Load(p);
    members_[p].push_back(i);
    const Score* row = Row(i);
    const double own = row[p];
    double* costs = &costs_[p * k_];
    int64_t* movers = &movers_[p * k_];
    for (int64_t j = 0; j < k_; ++j) {
      const double cost = own - row[j];
      const bool less = cost < costs[j];
      costs[j] = less ? cost : costs[j];
      movers[j] = less ? i : movers[j];
    }
  }

  void Leave(int64_t i, int64_t p) {
    std::vector<int64_t>& members = members_[p];
    const int64_t last = members.back();
    members[position_[i]] = last;
    position_[last] = position_[i];
    members.pop_back();
    double* costs = &costs_[p * k_];
    int64_t* movers = &movers_[p * k_];
    for (int64_t j = 0; j < k_; ++j) {
      if (j == p || costs[j] == kInfinity || movers[j] != i) continue;
      double least = kInfinity;
      int64_t mover = -1;
      for (const int64_t other : members) {
        const double cost = static_cast<double>(Row(other)[p]) - Row(other)[j];
        if (cost < least) {
          least = cost;
          mover = other;
        }
      }
      costs[j] = least;
      movers[j] = mover;
    }
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
      const double* costs = costs_.data() + p * k_;
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

  bool ByHolder(int64_t p, int64_t j) const { return holders_[p] > 0 && costs_[p * k_ + j] >= 0; }

  // One datapoint moves along each edge of the path; place-holders, which are all alike, as many as can.
  void Augment() {
    // A datapoint on every edge without place-holders: of infinite cost, the edge would not be on the path.
    int64_t units = -excess_[target_];
    int64_t source = target_;
    for (int64_t j = target_; parent_[j] >= 0; j = source) {
      source = parent_[j];
      units = std::min(units, ByHolder(source, j) ? holders_[source] : 1);
    }
    units = std::min(units, excess_[source]);
    for (int64_t j = target_; parent_[j] >= 0; j = parent_[j]) {
      const int64_t p = parent_[j];
      if (ByHolder(p, j)) {
        holders_[p] -= units;
        holders_[j] += units;
      } else {
        const int64_t i = movers_[p * k_ + j];
        Leave(i, p);
        Join(i, j);
      }
    }
    excess_[source] -= units;
    excess_[target_] += units;
    ++paths_;
  }

  const Score* scores_;
  const int64_t n_, k_;
  const int64_t* capacity_;
  std::vector<double> prices_;
  std::vector<int64_t> assignment_, position_;
  std::vector<std::vector<int64_t>> members_;
  std::vector<int64_t> holders_, excess_;
  std::vector<double> costs_;
  std::vector<int64_t> movers_;
  std::vector<double> shifted_, distance_, open_;
  std::vector<int64_t> parent_;
  int64_t target_ = -1, paths_ = 0;
  bool possible_ = true;
};

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_SUCCESSIVE_PATHS_H_
