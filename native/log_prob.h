// The log-probability of one assignment, its standard error, and its gradient, whatever is in the arrays.
//
// What they are for every input is said at `matching_log_prob`, in gumbel_moe/distributions/_matching_log_prob.py.

#ifndef GUMBEL_MOE_LOG_PROB_H_
#define GUMBEL_MOE_LOG_PROB_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "parallel.h"
#include "price_competition.h"
#include "price_integrand.h"
#include "price_modes.h"
#include "price_problem.h"
#include "price_proposal.h"
#include "price_quadrature.h"

namespace gumbel_moe {

// What price vectors are drawn with, and how many.
struct Draws {
  RoundKeys rounds;
  const uint32_t* sample;  // (chunks, 2) keys, of kPairs pairs each
  int64_t chunks;
  double target_error;  // 0: none
};

namespace log_prob {

inline constexpr int64_t kParts = 8;  // of the sample, that threads share

template <typename Score, typename Real>
Estimate BySampling(const PriceProblem& problem, const Draws& draws, const Workers& workers,
                    std::vector<double>* score) {
  const int64_t k = problem.k;
  Psi<Real> function(problem, workers);
  const Start start = StartingPoint(function);
  const std::vector<Mode> modes = Modes(function, start);
  const Integrand<Real> integrand(problem, start.prices);
  const Workers alone;
  const bool large = kLanes * (2 * problem.m * k + k * k * k / 3 + 100 * k) > 50000;
  const Workers& team = large ? workers : alone;
  const Proposal proposal = BestProposal<Score>(integrand, modes, draws.rounds, team);

  std::vector<Pair> pairs(draws.chunks * kPairs);
  const auto draw = [&](int64_t chunk) {
    const NormalNumbers<Score> numbers(draws.sample + 2 * chunk);
    price_proposal::Weigh(integrand, proposal, numbers, 0, &pairs[chunk * kPairs]);
  };
  if (draws.target_error > 0) {
    constexpr double kRounding = 1e-4;  // relative, and more than what the two ways to the error differ by
    price_proposal::RunningError running;
    int64_t drawn = 0;
    while (drawn < draws.chunks) {
      draw(drawn);
      for (int64_t pair = 0; pair < kPairs; ++pair) running.Add(pairs[drawn * kPairs + pair]);
      ++drawn;
      if (!(running.Value() <= draws.target_error * (1 + kRounding))) continue;
      const std::vector<Pair> seen(pairs.begin(), pairs.begin() + drawn * kPairs);
      if (price_proposal::LogMean(seen).error <= draws.target_error) break;
    }
    pairs.resize(drawn * kPairs);
  } else {
    team.For(draws.chunks, draw);
  }
  const Estimate estimate = price_proposal::LogMean(pairs);
  if (score == nullptr) return estimate;

  const double log_sum = estimate.value + std::log(2.0 * static_cast<double>(pairs.size()));
  const int64_t chunks = pairs.size() / kPairs;
  std::vector<ScoreSum<Real>> parts(std::isfinite(log_sum) ? kParts : 0, {problem.m, k});
  team.For(parts.size(), [&](int64_t part) {
    for (int64_t chunk = chunks * part / kParts; chunk < chunks * (part + 1) / kParts; ++chunk) {
      Vector standard;
      double unused[kLanes], weights[kLanes];
      price_proposal::DrawPairs(proposal, NormalNumbers<Score>(draws.sample + 2 * chunk), 0, standard, unused);
      for (int64_t pair = 0; pair < kPairs; ++pair) {
        weights[2 * pair] = std::exp(pairs[chunk * kPairs + pair].up - log_sum);
        weights[2 * pair + 1] = std::exp(pairs[chunk * kPairs + pair].down - log_sum);
      }
      const Vector points = price_proposal::PointsAt(proposal, standard);
      const Vector shift = price_proposal::Shifts(problem, *proposal.chart, points, unused);
      integrand.At(shift.data(), kLanes, unused, weights, &parts[part]);
    }
  });
  Collect(integrand, parts, *score);
  return estimate;
}

}  // namespace log_prob

// `logits` (n, k), `assignment` and `present` (n), `capacity` (k): no value is wrong. `n` and `k` are at least 1; for
// more than three experts there is at least one key of each kind. `score` (n, k), or nothing.
template <typename Score>
void LogProb(const Score* logits, int64_t n, int64_t k, const int32_t* assignment, const bool* present,
             const int32_t* capacity, const Draws& draws, const Workers& workers, Score* value, Score* error,
             Score* score) {
  using Limits = std::numeric_limits<Score>;
  constexpr int64_t kByQuadrature = 3;  // experts
  constexpr int64_t kNarrow = 4096;     // entries of the logits up to which all is computed in double precision
  if (score != nullptr) std::fill_n(score, n * k, Score(0));
  PriceProblem problem;
  const Kind kind = Prepare(logits, n, k, assignment, present, capacity, problem);
  if (kind != Kind::kSound) {
    *value = kind == Kind::kUnsound ? Limits::quiet_NaN() : -Limits::infinity();
    *error = kind == Kind::kUnsound ? Limits::quiet_NaN() : 0;
    return;
  }
  std::vector<double> sorted;
  std::vector<double>* wanted = score == nullptr ? nullptr : &sorted;
  Estimate estimate{0, 0};
  if (k > 1 && k <= kByQuadrature) {
    estimate = Quadrature(problem, Limits::epsilon(), workers).Sum(wanted);
  } else if (k > 1) {
    const bool narrow = sizeof(Score) < sizeof(double) && problem.m * k > kNarrow;
    estimate = narrow ? log_prob::BySampling<Score, float>(problem, draws, workers, wanted)
                      : log_prob::BySampling<Score, double>(problem, draws, workers, wanted);
  }
  // Each log-probability is a rounded difference, and equal ones are rounded alike; 1e-8 is what the tests vouch for.
  const double rounding = Limits::epsilon() * (1 + std::abs(estimate.value)) + 1e-8;
  *value = static_cast<Score>(estimate.value);
  *error = static_cast<Score>(std::hypot(estimate.error, rounding));
  for (size_t at = 0; at < sorted.size(); ++at) {
    // What is not finite comes of numbers near the end of the range, and of a value of -inf.
    const bool sensible = std::isfinite(estimate.value) && std::isfinite(sorted[at]);
    score[problem.row[at / k] * k + at % k] = sensible ? static_cast<Score>(sorted[at]) : Score(0);
  }
}

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_LOG_PROB_H_
