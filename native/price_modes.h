// Where the integrand is largest: Newton's method, for typical prices and in the coordinates of each candidate.
//
// As _newton.py, _modes.py and _coordinates.py of gumbel_moe/distributions/_price_integral, where the reasons are.

#ifndef GUMBEL_MOE_PRICE_MODES_H_
#define GUMBEL_MOE_PRICE_MODES_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "price_chart.h"
#include "price_expansion.h"
#include "price_problem.h"
#include "small_matrices.h"
#include "vector_math.h"

namespace gumbel_moe {

struct Peak {
  Vector point;
  Expansion here, psi;
};

// Typical prices, and what the integrand is like there.
struct Start {
  Vector prices, gradient;
  Matrix curvature;  // minus the Hessian of psi
};

struct Mode {
  Chart chart;
  Vector point;
  double value;
  Matrix hessian;
};

namespace price_modes {

inline constexpr double kLongest = 10;  // of a step, in any coordinate
inline constexpr double kClose = 1e-5;  // the gain that a full step still promises, when to stop
inline constexpr int kMaxEvaluations = 80;
inline constexpr double kMild = 12;  // spread of log-probabilities at which the search for the mode starts
inline constexpr double kCooling = 3;
inline constexpr double kLeastCurvature = 1e-3;
inline constexpr double kDeepestCut = 6;  // a bound this far up the tail stands for all farther ones

// Any other expansion is better, and no step leads away from it.
inline Expansion NothingYet(int64_t k) {
  return {-std::numeric_limits<double>::infinity(), Vector(k), Identity(k, -1)};
}

template <typename Real>
Peak Maximise(Psi<Real>& function, const Chart& chart, bool plain, const Vector& start, double temperature) {
  const int64_t k = start.size();
  Peak peak{start, NothingYet(k), NothingYet(k)};
  double damping = 0, gain = std::numeric_limits<double>::infinity();
  for (int evaluations = 0; evaluations < kMaxEvaluations; ++evaluations) {
    if (!(gain > kClose || damping > 0) || damping > 1e12) break;
    Matrix curvature(peak.here.hessian), factor;
    for (double& entry : curvature) entry = -entry;
    for (int64_t j = 0; j < k; ++j) curvature[j * k + j] += damping;
    bool better = Cholesky(curvature, k, factor);
    Vector step(k), point(peak.point);
    if (better) {
      step = SolveFactored(factor, peak.here.gradient);
      double longest = 1e-30;
      for (const double length : step) longest = std::max(longest, std::abs(length));
      const double scale = std::min(1.0, kLongest / longest);
      for (double& length : step) length *= scale;
      better = AllFinite(step);
    }
    if (better) {
      for (int64_t j = 0; j < k; ++j) point[j] += step[j];
      Expansion psi;
      Expansion there = ExpandIn(function, chart, plain, point, temperature, psi);
      // Rounding of the value must not turn a good step down.
      const double slack = 8 * std::numeric_limits<Real>::epsilon() * std::abs(there.value);
      better = std::isfinite(there.value) && there.value + slack >= peak.here.value;
      if (better) {
        double promised = 0;
        for (int64_t j = 0; j < k; ++j) promised += step[j] * peak.here.gradient[j];
        if (evaluations > 0) gain = std::abs(promised);
        peak = {std::move(point), std::move(there), std::move(psi)};
      }
    }
    damping = better ? (damping > 1e-4 ? damping / 10 : 0) : std::max(10 * damping, 1e-3);
  }
  return peak;
}

// The mode. Sharp logits are cooled down to: the mode at a higher temperature is a start for the next lower one.
template <typename Real>
Peak Climb(Psi<Real>& function, const Chart& chart, bool plain, Vector x, double old, double temperature) {
  const PriceProblem& problem = function.problem();
  while (true) {
    for (int64_t j = 0; j < problem.k; ++j) {
      x[j] = problem.bounded[j] ? x[j] + std::log(old / temperature) : x[j] * (old / temperature);
    }
    Peak peak = Maximise(function, chart, plain, x, temperature);
    if (!(temperature > 1)) return peak;
    x = std::move(peak.point);
    old = temperature;
    temperature = std::max(temperature / kCooling, 1.0);
  }
}

// A unit triangular basis, up to a permutation, that makes the curvature diagonal; least coupled experts first.
inline Matrix TriangularBasis(const PriceProblem& problem, const Matrix& curvature) {
  const int64_t k = problem.k;
  Matrix rest = Identity(k), basis = Identity(k);
  for (int64_t p = 0; p < k; ++p) {
    for (int64_t j = 0; j < k; ++j) {
      if (problem.OnLine(p) && problem.OnLine(j)) rest[p * k + j] = curvature[p * k + j];
    }
  }
  std::vector<char> left(k, 1);
  Vector column(k);
  for (int64_t round = 0; round < k; ++round) {
    int64_t j = -1;
    for (int64_t p = 0; p < k; ++p) {
      if (left[p] && (j < 0 || rest[p * k + p] < rest[j * k + j])) j = p;
    }
    left[j] = 0;
    const double pivot = rest[j * k + j];
    for (int64_t p = 0; p < k; ++p) {  // clipped as for the Laplacian of a graph
      const double share = rest[p * k + j] / std::max(pivot, kLeastCurvature);
      column[p] = left[p] ? std::min(std::max(share, -1.0), 1.0) : 0;
    }
    for (int64_t p = 0; p < k; ++p) {
      const double along = basis[p * k + j];
      for (int64_t l = 0; l < k; ++l) {
        rest[p * k + l] -= pivot * column[p] * column[l];
        basis[p * k + l] -= along * column[l];
      }
    }
  }
  return basis;
}

// `b` with `b_j (v - b_j) / v` equal to the curvature of price `j`, so that couplings cancel on average.
inline Vector Gauge(const PriceProblem& problem, const Start& start) {
  const int64_t k = problem.k;
  Vector wanted(k);
  for (int64_t j = 0; j < k; ++j) wanted[j] = std::max(start.curvature[j * k + j], kLeastCurvature);
  Vector b(wanted);
  for (int round = 0; round < 10; ++round) {
    Vector total(k);
    for (int64_t j = 0; j < k; ++j) total[problem.group[j]] += b[j];
    for (int64_t j = 0; j < k; ++j) b[j] = wanted[j] / (1 - std::min(b[j] / total[problem.group[j]], 0.5));
  }
  return b;
}

// Sums over the datapoints of the second and third cumulants of every vector of the basis.
template <typename Real>
void Cumulants(const PriceProblem& problem, const std::vector<Real>& probs, const Chart& chart, const Workers& workers,
               Vector& spread, Vector& skew) {
  constexpr int64_t kParts = 8, kRows = 32;
  const int64_t k = problem.k;
  std::vector<Real> powers[3];
  for (int power = 0; power < 3 && !chart.straight; ++power) {
    for (const double entry : chart.basis) powers[power].push_back(static_cast<Real>(std::pow(entry, power + 1)));
  }
  std::vector<double> spreads(kParts * k), skews(kParts * k);
  workers.For(kParts, [&](int64_t part) {
    const int64_t end = problem.m * (part + 1) / kParts;
    std::vector<Real> moments(chart.straight ? 0 : 3 * kRows * k);
    for (int64_t begin = problem.m * part / kParts; begin < end; begin += kRows) {
      const int64_t rows = std::min(kRows, end - begin);
      const Real* p = &probs[begin * k];
      const Real* moment[3] = {p, p, p};
      if (!chart.straight) std::fill(moments.begin(), moments.end(), 0);
      for (int power = 0; power < 3 && !chart.straight; ++power) {
        Real* sum = &moments[power * kRows * k];
        AddProduct<Real>({k, p, 1, k, powers[power].data(), k, sum, k}, rows, k);
        moment[power] = sum;
      }
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < k; ++j) {
          const double first = moment[0][i * k + j], second = moment[1][i * k + j], third = moment[2][i * k + j];
          spreads[part * k + j] += second - first * first;
          skews[part * k + j] += third - 3 * second * first + 2 * first * first * first;
        }
      }
    }
  });
  spread.assign(k, 0);
  skew.assign(k, 0);
  for (int64_t part = 0; part < kParts; ++part) {
    for (int64_t j = 0; j < k; ++j) {
      spread[j] += spreads[part * k + j];
      skew[j] += skews[part * k + j];
    }
  }
}

// The one-dimensional maps, matched to the integrand along each vector of the basis.
template <typename Real>
Chart FittedChart(const PriceProblem& problem, const Start& start, const std::vector<Real>& probs,
                  const Workers& workers, bool gauged) {
  const int64_t k = problem.k;
  Chart chart = PlainChart(problem);
  chart.centre = start.prices;
  Matrix curvature(start.curvature);
  if (gauged) {
    std::vector<char> has_line(k);
    for (int64_t j = 0; j < k; ++j) has_line[problem.group[j]] |= problem.OnLine(j);
    const Vector gauge = Gauge(problem, start);
    for (int64_t j = 0; j < k; ++j) {
      // A pinned expert with others in its component is the one that stands for their common shift.
      const bool in = problem.OnLine(j) || (problem.pinned[j] && has_line[problem.group[j]]);
      chart.active[j] = in || problem.bounded[j];
      if (in) chart.gauge[j] = gauge[j];
    }
  } else {
    chart.straight = false;
    chart.basis = TriangularBasis(problem, start.curvature);
  }
  Vector total(k);
  for (int64_t j = 0; j < k; ++j) total[problem.group[j]] += chart.gauge[j];
  for (int64_t j = 0; j < k; ++j) chart.total[j] = total[problem.group[j]];
  for (int64_t p = 0; p < k; ++p) {
    for (int64_t j = 0; j < k; ++j) {
      if (chart.total[p] > 0 && problem.group[j] == problem.group[p]) {
        curvature[p * k + j] += chart.gauge[p] * chart.gauge[j] / chart.total[p];
      }
    }
  }
  Vector spread, skew, along(k);
  Cumulants(problem, probs, chart, workers, spread, skew);
  const Matrix bowed = chart.straight ? Matrix() : Times(curvature, chart.basis, k);
  for (int64_t j = 0; j < k; ++j) {
    if (chart.straight) along[j] = curvature[j * k + j];
    for (int64_t p = 0; p < k && !chart.straight; ++p) along[j] += chart.basis[p * k + j] * bowed[p * k + j];
  }
  chart.rate = chart.tilt = chart.mean = chart.scale = chart.bound = chart.log_tail_bound = Vector(k);
  for (int64_t j = 0; j < k; ++j) {
    const double share = chart.gauge[j] / (chart.total[j] > 0 ? chart.total[j] : 1);
    chart.counted[j] = chart.total[j] > 0 && problem.group[j] == j;
    if (chart.counted[j]) chart.log_gamma += LogGamma(chart.total[j]);
    const double spread_j = spread[j] + chart.total[j] * share * share;
    const double skew_j = skew[j] + chart.total[j] * (3 * share * share - 2 * share * share * share);
    const double gamma = std::min(std::max(skew_j / std::max(spread_j, kLeastCurvature), -1.0), 1.0);
    const double along_j = std::max(along[j], kLeastCurvature);
    // Where it is flat, no exponential growth.
    const double rate = std::min(std::sqrt((gamma * gamma + 3) / 24), std::sqrt(along_j));
    const double bend = std::min(std::max(gamma / 3, -0.9 * rate), 0.9 * rate);  // second derivative at the centre
    const double tilt = std::atanh(bend / rate);
    chart.rate[j] = rate;
    chart.tilt[j] = tilt;
    chart.scale[j] = 1 / std::sqrt(along_j);
    chart.bound[j] = kUncut;
    if (problem.bounded[j]) {  // the cut normal that matches slope and curvature at the centre
      double curve = std::max(along_j - bend * start.gradient[j], kLeastCurvature);
      const double floor = (std::asinh(std::sinh(tilt) - start.prices[j] * rate * std::cosh(tilt)) - tilt) / rate;
      const double steepness = curve * floor - start.gradient[j];  // of the density, downwards, at the bound
      curve = std::max(curve, (steepness / kDeepestCut) * (steepness / kDeepestCut));
      chart.scale[j] = 1 / std::sqrt(curve);
      chart.bound[j] = std::max(steepness * chart.scale[j], kUncut);
      chart.mean[j] = floor - chart.bound[j] * chart.scale[j];
    }
    chart.log_tail_bound[j] = LogTail(chart.bound[j]);
  }
  return chart;
}

}  // namespace price_modes

// Typical prices: the mode, with the logarithm as coordinate of those that are at least 0.
template <typename Real>
Start StartingPoint(Psi<Real>& function) {
  using Limits = std::numeric_limits<double>;
  const PriceProblem& problem = function.problem();
  const int64_t k = problem.k;
  const double hottest = std::max(problem.spread / price_modes::kMild, 1.0);
  Vector x(k);
  for (int64_t j = 0; j < k; ++j) x[j] = problem.bounded[j] ? -std::log(std::max(problem.Load(j), 1.0)) : 0;
  Peak peak = price_modes::Climb(function, PlainChart(problem), true, x, 2 * hottest, hottest);
  Start start{Vector(k), std::move(peak.psi.gradient), std::move(peak.psi.hessian)};
  for (int64_t j = 0; j < k; ++j) start.prices[j] = PlainBend(problem, j, peak.point[j]).value;
  for (double& slope : start.gradient) {
    slope = std::isnan(slope) ? 0 : std::min(std::max(slope, Limits::lowest()), Limits::max());
  }
  if (!AllFinite(start.curvature)) start.curvature = Identity(k, -1);
  for (double& entry : start.curvature) entry = -entry;
  return start;
}

// Two modes: with all prices free under a gauge, and with one pinned and a triangular basis.
template <typename Real>
std::vector<Mode> Modes(Psi<Real>& function, const Start& start) {
  const PriceProblem& problem = function.problem();
  function.At(start.prices, 1);
  const std::vector<Real> probs = function.probs();
  std::vector<Mode> modes;
  for (const bool gauged : {true, false}) {
    Chart chart = price_modes::FittedChart(problem, start, probs, function.workers(), gauged);
    Peak peak = price_modes::Climb(function, chart, false, Vector(problem.k), 1, 1);
    modes.push_back({std::move(chart), std::move(peak.point), peak.here.value, std::move(peak.here.hessian)});
  }
  return modes;
}

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_PRICE_MODES_H_
