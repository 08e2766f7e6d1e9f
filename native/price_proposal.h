// A density over prices to draw from, and the integrand's weights under it.
//
// As _proposal.py and _precision.py of gumbel_moe/distributions/_price_integral.

#ifndef GUMBEL_MOE_PRICE_PROPOSAL_H_
#define GUMBEL_MOE_PRICE_PROPOSAL_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "normal_numbers.h"
#include "price_chart.h"
#include "price_integrand.h"
#include "price_problem.h"
#include "small_matrices.h"
#include "vector_math.h"

namespace gumbel_moe {

inline constexpr int64_t kFreedom = 10;  // degrees of freedom of the heavy-tailed proposal
inline constexpr int64_t kPairs = kLanes / 2;

// Normal or Student-t around `mean`.
struct Proposal {
  const Chart* chart;
  Vector mean;
  Matrix factor;   // its square is the covariance
  double log_det;  // logarithm of the factor's determinant
  bool heavy;      // Student-t
};

// Log-weights of one pair.
struct Pair {
  double up, down;
  double Mean() const {
    const double top = std::max(up, down), low = std::min(up, down);
    if (!(top > -std::numeric_limits<double>::infinity())) return top;
    return top + std::log1p(std::exp(low - top)) - 0.6931471805599453;
  }
};

struct Estimate {
  double value, error;
};

namespace price_proposal {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Coordinates (k, lanes) at that many standard deviations (k, lanes) from the mean.
inline Vector PointsAt(const Proposal& proposal, const Vector& standard) {
  const int64_t k = proposal.mean.size();
  Vector points(k * kLanes);
  for (int64_t j = 0; j < k; ++j) std::fill_n(&points[j * kLanes], kLanes, proposal.mean[j]);
  AddProduct<double>({k, proposal.factor.data(), 1, k, standard.data(), kLanes, points.data(), kLanes}, k, kLanes);
  return points;
}

// Antithetic pairs (k, lanes) in standard deviations, the pairs `first` to `first + kPairs - 1` that the numbers make;
// and the log of their density (pairs).
template <typename Score>
void DrawPairs(const Proposal& proposal, const NormalNumbers<Score>& numbers, int64_t first, Vector& standard,
               double* log_proposal) {
  const int64_t k = proposal.mean.size();
  constexpr double kHalf = kFreedom / 2.0;
  const double constant =
      LogGamma(kHalf + k / 2.0) - LogGamma(kHalf) - k / 2.0 * std::log(kFreedom * 3.141592653589793);
  standard.resize(k * kLanes);
  for (int64_t pair = 0; pair < kPairs; ++pair) {
    const int64_t start = (first + pair) * (k + kFreedom);
    double chi_square = 0, square = 0;
    for (int64_t j = k; j < k + kFreedom && proposal.heavy; ++j) {
      const double x = numbers.At(start + j);
      chi_square += x * x;
    }
    const double scale = proposal.heavy ? 1 / std::sqrt(chi_square / kFreedom) : 1;
    for (int64_t j = 0; j < k; ++j) {
      const double x = numbers.At(start + j) * scale;
      square += x * x;
      standard[j * kLanes + 2 * pair] = x;
      standard[j * kLanes + 2 * pair + 1] = -x;
    }
    log_proposal[pair] = proposal.heavy ? constant - (kHalf + k / 2.0) * std::log1p(square / kFreedom)
                                        : -0.5 * square - k * kHalfLogTwoPi;
    log_proposal[pair] -= proposal.log_det;
  }
}

// How far prices (k, lanes) are from the centre at coordinates (k, lanes); and the log of the volume element and of the
// gauge (lanes).
inline Vector Shifts(const PriceProblem& problem, const Chart& chart, const Vector& points, double* known) {
  const int64_t k = problem.k;
  Vector bent(k * kLanes);
  std::fill_n(known, kLanes, 0.0);
  for (int64_t j = 0; j < k; ++j) {
    const double* x = &points[j * kLanes];
    double w[kLanes];
    for (int64_t d = 0; d < kLanes; ++d) {
      if (!chart.active[j]) {
        known[d] += LogNormal(x[d]);
        continue;
      }
      w[d] = CutNormal(x[d], chart.bound[j], chart.log_tail_bound[j]);
      known[d] += 0.5 * (w[d] - x[d]) * (w[d] + x[d]) + chart.log_tail_bound[j];
    }
    if (chart.active[j]) Bent(w, chart.mean[j], chart.scale[j], chart.rate[j], chart.tilt[j], &bent[j * kLanes], known);
  }
  Vector shift(bent);
  if (!chart.straight) {
    std::fill(shift.begin(), shift.end(), 0);
    AddProduct<double>({k, chart.basis.data(), 1, k, bent.data(), kLanes, shift.data(), kLanes}, k, kLanes);
  }
  Vector load(k * kLanes);
  for (int64_t j = 0; j < k; ++j) {
    if (chart.gauge[j] == 0) continue;
    for (int64_t d = 0; d < kLanes; ++d) {
      load[problem.group[j] * kLanes + d] += chart.gauge[j] * Exp(std::min(-shift[j * kLanes + d], 80.0));
    }
  }
  for (int64_t j = 0; j < k; ++j) {
    if (!chart.counted[j]) continue;
    for (int64_t d = 0; d < kLanes; ++d)
      known[d] += chart.total[j] * std::log(load[j * kLanes + d]) - load[j * kLanes + d];
  }
  for (int64_t d = 0; d < kLanes; ++d) {
    known[d] -= chart.log_gamma;
    bool finite = std::isfinite(known[d]);
    for (int64_t j = 0; j < k; ++j) finite &= std::isfinite(shift[j * kLanes + d]);
    if (finite) continue;
    known[d] = -kInfinity;  // where the coordinates overflow, the integrand is 0
    for (int64_t j = 0; j < k; ++j) shift[j * kLanes + d] = 0;
  }
  return shift;
}

// The logarithm of the integrand, gauge and volume element included, at coordinates (k, lanes).
template <typename Real>
void LogDensity(const Integrand<Real>& integrand, const Chart& chart, const Vector& points, int64_t count,
                double* values) {
  double known[kLanes];
  const Vector shift = Shifts(integrand.problem(), chart, points, known);
  integrand.At(shift.data(), count, values);
  for (int64_t d = 0; d < count; ++d) values[d] += known[d];
}

// Log-weights of a chunk of pairs; what overflows counts nothing.
template <typename Real, typename Score>
void Weigh(const Integrand<Real>& integrand, const Proposal& proposal, const NormalNumbers<Score>& numbers,
           int64_t first, Pair* pairs, Vector* points_drawn = nullptr) {
  Vector standard;
  double log_proposal[kPairs], values[kLanes];
  DrawPairs(proposal, numbers, first, standard, log_proposal);
  Vector points = PointsAt(proposal, standard);
  LogDensity(integrand, *proposal.chart, points, kLanes, values);
  for (int64_t pair = 0; pair < kPairs; ++pair) {
    const auto weight = [&](double value) {
      const double log_weight = value - log_proposal[pair];
      return std::isnan(log_weight) ? -kInfinity : log_weight;
    };
    pairs[pair] = {weight(values[2 * pair]), weight(values[2 * pair + 1])};
  }
  if (points_drawn != nullptr) *points_drawn = std::move(points);
}

// Logarithm of the mean weight over pairs, and its standard error.
inline Estimate LogMean(const std::vector<Pair>& pairs) {
  const double total = static_cast<double>(pairs.size());
  std::vector<double> means;
  double top = -kInfinity, sum = 0;
  for (const Pair& pair : pairs) {
    means.push_back(pair.Mean());
    top = std::max(top, means.back());
  }
  if (!(top > -kInfinity && top < kInfinity)) return {top, std::numeric_limits<double>::quiet_NaN()};
  for (const double mean : means) sum += std::exp(mean - top);
  const double value = top + std::log(sum) - std::log(total);
  double square = 0, farthest = 0.5 / total;
  for (const double mean : means) {
    const double off = std::exp(mean - value) / total - 1 / total;
    square += off * off;
    farthest = std::max(farthest, std::abs(off));
  }
  return {value, std::sqrt(square + 4 * farthest * farthest) / std::max(1 - farthest, 1 / total)};
}

// The error that `LogMean` gives for all pairs so far, but for rounding, without a look at each of them again.
class RunningError {
 public:
  void Add(const Pair& pair) {
    const double mean = pair.Mean();
    if (mean > top_) {
      const double less = std::exp(top_ - mean);
      sum_ *= less;
      square_ *= less * less;
      least_ *= less;
      top_ = mean;
    }
    const double weight = top_ > -kInfinity ? std::exp(mean - top_) : 0;
    sum_ += weight;
    square_ += weight * weight;
    least_ = total_ > 0 ? std::min(least_, weight) : weight;
    ++total_;
  }

  double Value() const {
    const double share = 1 / total_;
    const double farthest = std::max({1 / sum_ - share, share - least_ / sum_, 0.5 * share});
    const double square = std::max(square_ / (sum_ * sum_) - share, 0.0);
    return std::sqrt(square + 4 * farthest * farthest) / std::max(1 - farthest, share);
  }

 private:
  double top_ = -kInfinity, sum_ = 0, square_ = 0, least_ = 0, total_ = 0;
};

// Whether `other` is the better estimate: the more precise one, unless the other has found mass that it misses.
inline bool Better(Estimate one, Estimate other) {
  for (Estimate* estimate : {&one, &other}) {
    if (std::isnan(estimate->value) || std::isnan(estimate->error)) *estimate = {-kInfinity, kInfinity};
  }
  const bool second = other.error < one.error;
  const Estimate precise = second ? other : one;
  // However large its error, an estimate is too high by `d` nats with a probability of at most exp(-d) (Markov).
  const double by_chance = std::min(std::max(5 * std::hypot(one.error, other.error), 0.1), 2.0);
  const bool missed = std::max(one.value, other.value) - precise.value > by_chance;
  return missed ? other.value > one.value : second;
}

}  // namespace price_proposal
}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_PRICE_PROPOSAL_H_
