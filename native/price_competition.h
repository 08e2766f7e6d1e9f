// Proposals compete in a pilot sample, and where all are poor another one is searched.
//
// As _competition.py and _search.py of gumbel_moe/distributions/_price_integral.

#ifndef GUMBEL_MOE_PRICE_COMPETITION_H_
#define GUMBEL_MOE_PRICE_COMPETITION_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "normal_numbers.h"
#include "price_integrand.h"
#include "price_modes.h"
#include "price_proposal.h"
#include "small_matrices.h"

namespace gumbel_moe {

namespace price_competition {

using price_proposal::kInfinity;

inline constexpr int64_t kPilot = 32;         // pairs that decide between the proposals
inline constexpr int64_t kMostSearched = 10;  // experts; with more, draws that are spread widely do not find the mass
inline constexpr int64_t kSearch = 128;       // pairs of a round of the search
inline constexpr int64_t kMostRounds = 24;    // of the search
inline constexpr double kPoor = 0.15;     // nats: error of the pilot's best proposal at which another one is searched
inline constexpr double kFlattest = 0.1;  // least curvature of the proposal, in coordinates in which it should be 1
inline constexpr double kReach = 2.5;     // standard deviations at which a normal density has fallen by 3.1 nats,
inline constexpr double kFall = 1;        // and the integrand must have fallen by this much, or the axis is widened
inline constexpr int kExtensions = 8;
inline constexpr double kBroad = 4;       // standard deviations of what a search for the mass starts from
inline constexpr double kUsed = 1.0 / 8;  // of the draws: effective sample size that the search keeps by tempering
inline constexpr double kFound = 0.3;     // of the draws: effective sample size at which it ends

// Laplace's approximation at the mode.
inline Proposal Laplace(const Mode& mode, bool heavy) {
  const int64_t k = mode.point.size();
  Matrix curvature(mode.hessian);
  for (double& entry : curvature) entry = -entry;
  Vector values;
  Proposal proposal{&mode.chart, mode.point, Matrix(), 0, heavy};
  Eigen(std::move(curvature), k, values, proposal.factor);
  for (int64_t c = 0; c < k; ++c) {
    const double scale = 1 / std::sqrt(std::max(values[c], kFlattest));
    proposal.log_det += std::log(scale);
    for (int64_t i = 0; i < k; ++i) proposal.factor[i * k + c] *= scale;
  }
  return proposal;
}

// Moved and stretched along its axes to where the integrand ends.
template <typename Real>
Proposal Extended(const Integrand<Real>& integrand, const Proposal& start, double floor, const Workers& workers) {
  const int64_t k = start.mean.size();
  Vector up(k, kReach), down(k, kReach);
  std::vector<char> up_done(k), down_done(k);
  for (int round = 0; round < kExtensions; ++round) {
    workers.For((k + kPairs - 1) / kPairs, [&](int64_t chunk) {
      const int64_t begin = chunk * kPairs, axes = std::min(kPairs, k - begin);
      Vector standard(k * kLanes);
      for (int64_t at = 0; at < axes; ++at) {
        standard[(begin + at) * kLanes + 2 * at] = up[begin + at];
        standard[(begin + at) * kLanes + 2 * at + 1] = -down[begin + at];
      }
      double values[kLanes];
      price_proposal::LogDensity(integrand, *start.chart, price_proposal::PointsAt(start, standard), 2 * axes, values);
      for (int64_t at = 0; at < axes; ++at) {
        const int64_t j = begin + at;
        up_done[j] |= !(values[2 * at] > floor);
        down_done[j] |= !(values[2 * at + 1] > floor);
        if (!up_done[j]) up[j] *= 2;
        if (!down_done[j]) down[j] *= 2;
      }
    });
    bool done = true;
    for (int64_t j = 0; j < k; ++j) done &= up_done[j] && down_done[j];
    if (done) break;
  }
  Proposal widened(start);
  for (int64_t c = 0; c < k; ++c) {
    const double stretch = (up[c] + down[c]) / (2 * kReach);
    widened.log_det += std::log(stretch);
    for (int64_t i = 0; i < k; ++i) {
      widened.mean[i] += start.factor[i * k + c] * (up[c] - down[c]) / 2;
      widened.factor[i * k + c] *= stretch;
    }
  }
  return widened;
}

// Effective sample size, of log-weights whose largest is 0.
inline double Effective(const std::vector<double>& log_weights, double power) {
  double sum = 0, square = 0;
  for (const double log_weight : log_weights) {
    const double weight = Exp(power * log_weight);
    sum += weight;
    square += weight * weight;
  }
  return sum * sum / square;
}

// The largest power, at most 1, at which the weights keep an effective sample size.
inline double Tempered(const std::vector<double>& log_weights, double effective) {
  const double wanted = kUsed * static_cast<double>(log_weights.size());
  if (effective >= wanted) return 1;
  double low = 0, high = 1;
  for (int round = 0; round < 20; ++round) {
    const double middle = (low + high) / 2;
    (Effective(log_weights, middle) >= wanted ? low : high) = middle;
  }
  return low;
}

// A Student-t fitted to the mass of the integrand, by draws from ever better ones (cross-entropy method).
template <typename Score, typename Real>
std::pair<Proposal, std::vector<Pair>> Searched(const Integrand<Real>& integrand, const Proposal& from, const Key& key,
                                                const Workers& workers) {
  constexpr int64_t kChunks = kSearch / kPairs, kDraws = 2 * kSearch;
  const int64_t k = from.mean.size();
  Proposal next{from.chart, from.mean, Identity(k, kBroad), k * std::log(kBroad), true};
  Proposal best(next);
  std::vector<Pair> best_pairs(kSearch, {-kInfinity, -kInfinity});
  double best_effective = 0;
  for (int64_t round = 0; round < kMostRounds; ++round) {
    std::vector<Pair> pairs(kSearch);
    std::vector<Vector> points(kChunks);
    workers.For(kChunks, [&](int64_t chunk) {
      const NormalNumbers<Score> numbers(key.Part(round));
      price_proposal::Weigh(integrand, next, numbers, chunk * kPairs, &pairs[chunk * kPairs], &points[chunk]);
    });
    std::vector<double> log_weights;
    double top = -kInfinity;
    for (const Pair& pair : pairs) {
      log_weights.insert(log_weights.end(), {pair.up, pair.down});
      top = std::max({top, pair.up, pair.down});
    }
    if (!std::isfinite(top)) break;
    for (double& log_weight : log_weights) log_weight -= top;
    const double effective = Effective(log_weights, 1);
    if (effective > best_effective) {
      best = next;
      best_pairs = pairs;
      best_effective = effective;
    }
    const double power = Tempered(log_weights, effective);
    std::vector<double> share(kDraws);
    double total = 0, square = 0;
    for (int64_t draw = 0; draw < kDraws; ++draw)
      total += share[draw] = Exp(power == 0 ? 0 : power * log_weights[draw]);
    Vector mean(k);
    const auto point = [&](int64_t draw, int64_t j) { return points[draw / kLanes][j * kLanes + draw % kLanes]; };
    for (int64_t draw = 0; draw < kDraws; ++draw) {
      share[draw] /= total;
      square += share[draw] * share[draw];
      for (int64_t j = 0; j < k; ++j) mean[j] += share[draw] * point(draw, j);
    }
    // Few effective draws say little about a covariance: the old one is kept in part.
    const double trust = 1 / (1 + k * square);
    Matrix covariance = Identity(k, 1e-4);
    for (int64_t draw = 0; draw < kDraws; ++draw) {
      for (int64_t i = 0; i < k; ++i) {
        const double left = trust * share[draw] * (point(draw, i) - mean[i]);
        for (int64_t j = 0; j < k; ++j) covariance[i * k + j] += left * (point(draw, j) - mean[j]);
      }
    }
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        double old = 0;
        for (int64_t c = 0; c < k; ++c) old += next.factor[i * k + c] * next.factor[j * k + c];
        covariance[i * k + j] += (1 - trust) * old;
      }
    }
    Matrix factor;
    if (!Cholesky(covariance, k, factor) || !AllFinite(mean) || !AllFinite(factor)) break;
    next.mean = std::move(mean);
    next.factor = std::move(factor);
    next.log_det = 0;
    for (int64_t j = 0; j < k; ++j) next.log_det += std::log(next.factor[j * k + j]);
    if (effective > kFound * kDraws) break;
  }
  return {std::move(best), std::move(best_pairs)};
}

}  // namespace price_competition

// The proposal with the smallest error in a pilot sample. One key is for that, another for a search.
template <typename Score, typename Real>
Proposal BestProposal(const Integrand<Real>& integrand, const std::vector<Mode>& modes, const Key& pilot,
                      const Key& search, const Workers& workers) {
  using namespace price_competition;
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  Estimate best_estimate{nan, nan};
  Proposal best = Laplace(modes[0], false), last = best;
  const auto consider = [&](const Proposal& proposal, const std::vector<Pair>& pairs) {
    const Estimate estimate = price_proposal::LogMean(pairs);
    if (!price_proposal::Better(best_estimate, estimate)) return;
    best = proposal;
    best_estimate = estimate;
  };
  for (int candidate = 0; candidate < 2; ++candidate) {
    const Proposal start = Laplace(modes[candidate], candidate == 1);
    last = Extended(integrand, start, modes[candidate].value - kFall, workers);
    std::vector<Pair> pairs(kPilot);
    workers.For(kPilot / kPairs, [&](int64_t chunk) {
      const NormalNumbers<Score> numbers(pilot);
      price_proposal::Weigh(integrand, last, numbers, chunk * kPairs, &pairs[chunk * kPairs]);
    });
    consider(last, pairs);
  }
  if (integrand.problem().k <= kMostSearched && !(best_estimate.error < kPoor)) {
    const auto [proposal, pairs] = Searched<Score>(integrand, last, search, workers);
    consider(proposal, pairs);
  }
  return best;
}

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_PRICE_COMPETITION_H_
