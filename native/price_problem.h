// One assignment, brought into the form in which its integral over prices is computed.
//
// As gumbel_moe/distributions/_price_integral/_problem.py does it, and says why; here whatever is in the arrays.

#ifndef GUMBEL_MOE_PRICE_PROBLEM_H_
#define GUMBEL_MOE_PRICE_PROBLEM_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "small_matrices.h"
#include "vector_math.h"

namespace gumbel_moe {

enum class Kind { kUnsound, kImpossible, kSound };  // value NaN, -inf, or to be computed

struct PriceProblem {
  int64_t n = 0, k = 0;
  int64_t m = 0;               // datapoints that take part, sorted by their experts
  std::vector<int64_t> row;    // (m) their numbers in the arrays given
  std::vector<int64_t> owner;  // (m) their experts
  std::vector<int64_t> first;  // (k + 1) the first datapoint of each expert
  std::vector<double> rows;    // (m, k) log-probabilities within the component, -inf outside
  std::vector<int64_t> group;  // (k) the first expert of each one's component
  std::vector<char> pinned;    // (k) price 0
  std::vector<char> bounded;   // (k) price at least 0
  std::vector<int64_t> kept;   // the experts that are not pinned
  double spread = 0;           // the largest magnitude among the log-probabilities

  double Load(int64_t p) const { return static_cast<double>(first[p + 1] - first[p]); }
  bool OnLine(int64_t p) const { return !pinned[p] && !bounded[p]; }
};

namespace price_problem {

inline constexpr double kFar = 1e6;  // nats

// Less the maximum, if it is finite; what is finite stays so.
template <typename Score>
void Centre(Score* values, int64_t number, int64_t step) {
  using Limits = std::numeric_limits<Score>;
  Score top = -Limits::infinity();
  for (int64_t at = 0; at < number; ++at) top = std::max(top, values[at * step]);
  if (!std::isfinite(top)) return;
  for (int64_t at = 0; at < number; ++at) {
    Score& value = values[at * step];
    if (value != -Limits::infinity()) value = std::max(value - top, Limits::lowest());
  }
}

// Which experts reach each other by moving datapoints along; a free place moves anywhere.
inline std::vector<int64_t> Components(std::vector<char> reach, int64_t k) {
  for (int64_t via = 0; via < k; ++via) {
    for (int64_t p = 0; p < k; ++p) {
      if (!reach[p * k + via]) continue;
      for (int64_t j = 0; j < k; ++j) reach[p * k + j] |= reach[via * k + j];
    }
  }
  std::vector<int64_t> group(k);
  for (int64_t p = 0; p < k; ++p) {
    int64_t j = 0;
    while (j < p && !(reach[p * k + j] && reach[j * k + p])) ++j;
    group[p] = j;
  }
  return group;
}

}  // namespace price_problem

// `logits` (n, k), `assignment` and `present` (n), `capacity` (k): no value is wrong.
template <typename Score>
Kind Prepare(const Score* logits, int64_t n, int64_t k, const int32_t* assignment, const bool* present,
             const int32_t* capacity, PriceProblem& problem) {
  constexpr Score infinity = std::numeric_limits<Score>::infinity();
  for (int64_t i = 0; i < n; ++i) {
    bool allowed = false;
    for (int64_t j = 0; j < k; ++j) {
      const Score value = logits[i * k + j];
      if (!(value < infinity)) return Kind::kUnsound;
      allowed |= value > -infinity;
    }
    if (!allowed) return Kind::kUnsound;
  }
  problem.n = n;
  problem.k = k;
  std::vector<int64_t> load(k);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t z = assignment[i];
    if (!present[i]) {
      if (z != k) return Kind::kImpossible;
      continue;
    }
    if (z < 0 || z >= k || logits[i * k + z] == -infinity) return Kind::kImpossible;
    ++load[z];
    ++problem.m;
  }
  int64_t places = 0;
  for (int64_t p = 0; p < k; ++p) {
    if (load[p] > capacity[p]) return Kind::kImpossible;
    places += std::min<int64_t>(capacity[p], n + 1);
  }

  const int64_t m = problem.m;
  problem.first.assign(k + 1, 0);
  for (int64_t p = 0; p < k; ++p) problem.first[p + 1] = problem.first[p] + load[p];
  problem.row.resize(m);
  problem.owner.resize(m);
  std::vector<int64_t> next(problem.first.begin(), problem.first.end() - 1);
  for (int64_t i = 0; i < n; ++i) {
    if (!present[i]) continue;
    const int64_t at = next[assignment[i]]++;
    problem.row[at] = i;
    problem.owner[at] = assignment[i];
  }
  std::vector<Score> scores(m * k);
  for (int64_t at = 0; at < m; ++at) {
    std::copy_n(logits + problem.row[at] * k, k, &scores[at * k]);
    price_problem::Centre(&scores[at * k], k, 1);
  }
  if (places == m) {  // every assignment takes as many datapoints from each column
    for (int64_t j = 0; j < k; ++j) price_problem::Centre(scores.data() + j, m, k);
  }

  // What is far is usable only where the assignment uses it.
  std::vector<char> reach(k * k), free(k);
  for (int64_t p = 0; p < k; ++p) {
    free[p] = load[p] < capacity[p];
    for (int64_t j = 0; j < k; ++j) reach[p * k + j] = free[p] || j == p;
  }
  for (int64_t at = 0; at < m; ++at) {
    char* from = &reach[problem.owner[at] * k];
    for (int64_t j = 0; j < k; ++j) from[j] |= scores[at * k + j] > -price_problem::kFar;
  }
  problem.group = price_problem::Components(std::move(reach), k);
  std::vector<char> has_free(k);
  for (int64_t p = 0; p < k; ++p) has_free[problem.group[p]] |= free[p];
  problem.pinned.resize(k);
  problem.bounded.resize(k);
  for (int64_t p = 0; p < k; ++p) {
    const bool room = has_free[problem.group[p]];
    problem.pinned[p] = free[p] || (!room && problem.group[p] == p);
    problem.bounded[p] = room && !free[p];
    if (!problem.pinned[p]) problem.kept.push_back(p);
  }

  problem.rows.resize(m * k);
  for (int64_t at = 0; at < m; ++at) {
    double* out = &problem.rows[at * k];
    const Score* given = &scores[at * k];
    const int64_t owner = problem.owner[at];
    for (int64_t j = 0; j < k; ++j) {
      const bool within = (given[j] > -price_problem::kFar || j == owner) && problem.group[j] == problem.group[owner];
      out[j] = within ? given[j] : -std::numeric_limits<double>::infinity();
    }
    const double log_total = LogSum(out, k);
    for (int64_t j = 0; j < k; ++j) {
      out[j] -= log_total;
      if (std::isfinite(out[j])) problem.spread = std::max(problem.spread, -out[j]);
    }
  }
  return Kind::kSound;
}

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_PRICE_PROBLEM_H_
