// One expert for every datapoint, and the residual graph on the experts: the cheapest datapoint of every edge.
//
// An edge p -> j costs what moving a datapoint from expert p to expert j loses. Costs are kept in double precision, in
// which differences of float32 scores have next to no rounding error. No index leaves its range, whatever the numbers:
// it starts in it, or is set by a strict comparison, which a NaN fails.

#ifndef GUMBEL_MOE_ONE_EXPERT_H_
#define GUMBEL_MOE_ONE_EXPERT_H_

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace gumbel_moe {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <typename Score>
class OneExpert {
 public:
  // `scores` (n, k) without NaN or +inf, at least one finite score in every row, at least one row.
  OneExpert(const Score* scores, int64_t n, int64_t k, int64_t /* each */)
      : scores_(scores),
        n_(n),
        k_(k),
        assignment_(n),
        position_(n),
        members_(k),
        costs_(k * k),
        movers_(k * k),
        shifted_(k) {}

  static constexpr int64_t each() { return 1; }
  const Score* Row(int64_t i) const { return scores_ + i * k_; }
  int64_t Load(int64_t j) const { return static_cast<int64_t>(members_[j].size()); }
  // The cheapest way for a datapoint of expert p to expert j costs `Costs(p)[j]`, and `Mover(p, j)` would go it; where
  // none can, the cost is infinite.
  const double* Costs(int64_t p) const { return &costs_[p * k_]; }
  int64_t Mover(int64_t p, int64_t j) const { return movers_[p * k_ + j]; }

  // Takes the best expert of a datapoint at the prices from the room; of tied ones, that with the most room.
  void TakeBest(int64_t i, const std::vector<double>& prices, std::vector<double>& room) {
    room[BestExpert(i, prices, room)] -= 1;
  }

  // Sends everybody to their best expert at the prices, from which on nobody moves but by `Move`.
  void Place(const std::vector<double>& prices, std::vector<double> room) {
    std::fill(costs_.begin(), costs_.end(), kInfinity);
    for (int64_t i = 0; i < n_; ++i) {
      const int64_t expert = BestExpert(i, prices, room);
      room[expert] -= 1;
      Join(i, expert);
    }
  }

  void Move(int64_t i, int64_t p, int64_t j) {
    Leave(i, p);
    Join(i, j);
  }

  // After the moves of a path, with the prices that belong to them.
  void Refresh(const std::vector<double>& /* prices */) {}

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

  void Write(int32_t* assignment) const { std::copy(assignment_.begin(), assignment_.end(), assignment); }

 private:
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

  const Score* scores_;
  const int64_t n_, k_;
  std::vector<int64_t> assignment_, position_;
  std::vector<std::vector<int64_t>> members_;
  std::vector<double> costs_;
  std::vector<int64_t> movers_;
  std::vector<double> shifted_;
};

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_ONE_EXPERT_H_
