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

#include "normal_numbers.h"
#include "parallel.h"
#include "price_competition.h"
#include "price_integrand.h"
#include "price_modes.h"
#include "price_problem.h"
#include "price_proposal.h"
#include "price_quadrature.h"

namespace gumbel_moe {

// How to estimate: `_How` of gumbel_moe/distributions/_compiled_log_prob.py.
struct How {
  Key key;
  int64_t chunks;       // of kPairs pairs of price vectors each
  double target_error;  // 0: none
  bool by_sampling;     // also for two and three experts
};

namespace log_prob {

inline constexpr int64_t kParts = 8;  // of the sample, that threads share

template <typename Score, typename Real>
Estimate BySampling(const PriceProblem& problem, const How& how, const Workers& workers, std::vector<double>* score) {
  const int64_t k = problem.k;
  Psi<Real> function(problem, workers);
  const Start start = StartingPoint(function);
  const std::vector<Mode> modes = Modes(function, start);
  const Integrand<Real> integrand(problem, start.prices);
  const Workers alone;
  const bool large = kLanes * (2 * problem.m * k + k * k * k / 3 + 100 * k) > 50000;
  const Workers& team = large ? workers : alone;
  // As `keys_for` in gumbel_moe/distributions/_price_integral/_sampling.py splits them.
  const Key sample = how.key.Part(2);
  const Proposal proposal = BestProposal<Score>(integrand, modes, how.key.Part(0), how.key.Part(1), team);

  std::vector<Pair> pairs(how.chunks * kPairs);
  const auto draw = [&](int64_t chunk) {
    const NormalNumbers<Score> numbers(sample.Part(chunk));
    price_proposal::Weigh(integrand, proposal, numbers, 0, &pairs[chunk * kPairs]);
  };
  if (how.target_error > 0) {
    constexpr double kRounding = 1e-4;  // relative, and more than what the two ways to the error differ by
    price_proposal::RunningError running;
    int64_t drawn = 0;
    while (drawn < how.chunks) {
      draw(drawn);
      for (int64_t pair = 0; pair < kPairs; ++pair) running.Add(pairs[drawn * kPairs + pair]);
      ++drawn;
      if (!(running.Value() <= how.target_error * (1 + kRounding))) continue;
      const std::vector<Pair> seen(pairs.begin(), pairs.begin() + drawn * kPairs);
      if (price_proposal::LogMean(seen).error <= how.target_error) break;
    }
    pairs.resize(drawn * kPairs);
  } else {
    team.For(how.chunks, draw);
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
      price_proposal::DrawPairs(proposal, NormalNumbers<Score>(sample.Part(chunk)), 0, standard, unused);
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

// `logits` (n, k), `assignment` and `present` (n), `capacity` (k): no value is wrong. `n`, `k` and the chunks are at
// least 1. `score` (n, k), or nothing.
template <typename Score>
void LogProb(const Score* logits, int64_t n, int64_t k, const int32_t* assignment, const bool* present,
             const int32_t* capacity, const How& how, const Workers& workers, Score* value, Score* error,
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
  if (k > 1 && k <= kByQuadrature && !how.by_sampling) {
    estimate = Quadrature(problem, Limits::epsilon(), workers).Sum(how.target_error, wanted);
  } else if (k > 1) {
    const bool narrow = sizeof(Score) < sizeof(double) && problem.m * k > kNarrow;
    estimate = narrow ? log_prob::BySampling<Score, float>(problem, how, workers, wanted)
                      : log_prob::BySampling<Score, double>(problem, how, workers, wanted);
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
