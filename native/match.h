// One problem of the matching, whatever is in its arrays, to the results that gumbel_moe/matching/_solve.py promises.
//
// What is no problem, or has no solution, is told apart here; what is left reaches the solver so scaled that nothing
// overflows on the way.

#ifndef GUMBEL_MOE_MATCH_H_
#define GUMBEL_MOE_MATCH_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "one_expert.h"
#include "several_experts.h"
#include "successive_paths.h"

namespace gumbel_moe {

template <typename Score>
struct Results {
  int32_t* assignment;  // (n), or (n, each)
  Score* prices;        // (k)
  Score* value;
  Score* gap;
  int32_t* steps;
  Score* costs;  // (k, k)
};

enum class Sanity { kSound, kImpossible, kUnsound };

// Unsound: a NaN or +inf; impossible: a datapoint for which fewer than `each` experts are not forbidden.
template <typename Score>
Sanity Check(const Score* scores, int64_t n, int64_t k, int64_t each) {
  constexpr Score infinity = std::numeric_limits<Score>::infinity();
  Sanity sanity = Sanity::kSound;
  for (int64_t i = 0; i < n; ++i) {
    const Score* row = scores + i * k;
    int32_t unsound = 0;
    int32_t allowed = 0;
    for (int64_t j = 0; j < k; ++j) {
      unsound |= !(row[j] < infinity);
      allowed += row[j] > -infinity;
    }
    if (unsound) return Sanity::kUnsound;
    if (allowed < each) sanity = Sanity::kImpossible;
  }
  return sanity;
}

// By how many powers of two sound scores have to shrink so that no sum of the solver overflows in double precision.
//
// It adds up to `terms` differences of scores less prices. The prices that it starts from differ by no more than kWild
// times the largest score, in magnitude, and paths raise them by no more than 4 k times that.
template <typename Score>
int Excess(const Score* scores, int64_t n, int64_t k, int64_t terms) {
  if constexpr (std::is_same_v<Score, float>) return 0;  // far from the end of the range, whatever n and k are
  Score peak = 0;
  for (int64_t at = 0; at < n * k; ++at) {
    const Score size = std::abs(scores[at]);
    if (size > peak && std::isfinite(size)) peak = size;
  }
  constexpr int kRoom = 24;  // for 4 (kWild + 4 k) / k, and to spare
  int exponents[3];
  std::frexp(peak, &exponents[0]);
  std::frexp(static_cast<double>(terms), &exponents[1]);
  std::frexp(static_cast<double>(k), &exponents[2]);
  const int needed = exponents[0] + exponents[1] + exponents[2] + kRoom;
  return std::max(needed - std::numeric_limits<double>::max_exponent, 0);
}

// The given prices, scaled and from 0, or nothing where they are not finite.
template <typename Score>
std::vector<double> Usable(const Score* given, int64_t k, int excess) {
  if (!std::all_of(given, given + k, [](Score price) { return std::isfinite(price); })) return {};
  std::vector<double> prices(given, given + k);
  for (double& price : prices) price = std::ldexp(price, -excess - 1);  // halved: their difference may overflow
  const double lowest = *std::min_element(prices.begin(), prices.end());
  for (double& price : prices) price = 2 * (price - lowest);
  return prices;
}

// `scores` (n, k), `capacity` and `given` (k): no value is wrong. `n` and `k` are at least 1, and `each` is between 1
// and k: 1 for the graph of one expert.
template <typename Score, template <typename> typename Graph>
void Match(const Score* scores, int64_t n, int64_t k, int64_t each, const int32_t* capacity, const Score* given,
           const Results<Score>& results) {
  using Limits = std::numeric_limits<Score>;
  static_assert(Limits::is_iec559, "what is too large for a Score has to become infinite");
  std::vector<int64_t> places(k);
  int64_t room = 0;
  for (int64_t j = 0; j < k; ++j) {
    // More than n + 1 places are never told apart: an expert with room for all still has a free place.
    places[j] = std::clamp<int64_t>(capacity[j], 0, n + 1);
    room += std::min(places[j], n);
  }
  const Sanity sanity = Check(scores, n, k, each);
  const int excess = sanity == Sanity::kSound ? Excess(scores, n, k, n * each) : 0;
  std::vector<Score> scaled;
  if (excess > 0) {
    scaled.assign(scores, scores + n * k);
    for (Score& score : scaled) score = std::ldexp(score, -excess);
    scores = scaled.data();
  }
  SuccessivePaths<Score, Graph> search(scores, n, k, each, places.data());
  const bool solved = sanity == Sanity::kSound && room >= n * each && search.Solve(Usable(given, k, excess));
  *results.steps = static_cast<int32_t>(search.paths());
  if (!solved) {
    std::fill_n(results.assignment, n * each, -1);
    std::fill_n(results.prices, k, Limits::quiet_NaN());
    *results.value = sanity != Sanity::kUnsound ? -Limits::infinity() : Limits::quiet_NaN();
    *results.gap = Limits::quiet_NaN();
    std::fill_n(results.costs, k * k, Limits::quiet_NaN());
    return;
  }

  const auto rescaled = [excess](double x) { return static_cast<Score>(std::ldexp(x, excess)); };
  std::vector<double> prices = search.Prices();
  for (int64_t j = 0; j < k; ++j) {
    // Finite, if too small: the gap says what that costs.
    results.prices[j] = std::min(rescaled(prices[j]), Limits::max());
    prices[j] = std::ldexp(static_cast<double>(results.prices[j]), -excess);
  }
  search.Write(results.assignment);
  *results.value = rescaled(search.Total());
  *results.gap = rescaled(search.Regret(prices));
  for (int64_t p = 0; p < k; ++p) {
    for (int64_t j = 0; j < k; ++j) results.costs[p * k + j] = rescaled(search.Cost(p, j));
  }
}

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_MATCH_H_
