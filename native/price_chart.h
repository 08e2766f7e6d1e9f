// The map from coordinates to prices: `centre + basis bent(mean + scale cut(x, bound))` for coordinates `x`.
//
// The formulas are those of _chart.py and _truncated_normal.py in gumbel_moe/distributions/_price_integral.

#ifndef GUMBEL_MOE_PRICE_CHART_H_
#define GUMBEL_MOE_PRICE_CHART_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "price_problem.h"
#include "small_matrices.h"

namespace gumbel_moe {

inline constexpr double kUncut = -30;  // a lower bound that cuts nothing off
inline constexpr double kHalfLogTwoPi = 0.9189385332046727;

inline double LogNormal(double x) { return -0.5 * x * x - kHalfLogTwoPi; }

// Log of the gamma function of a positive number: Stirling's series from 10 on, to which smaller numbers are moved.
// `std::lgamma` would write the sign to a variable that all threads share.
inline double LogGamma(double x) {
  double product = 1;
  for (; x < 10; x += 1) product *= x;
  const double square = 1 / (x * x);
  double series = -691.0 / 360360;
  for (const double term : {1.0 / 1188, -1.0 / 1680, 1.0 / 1260, -1.0 / 360, 1.0 / 12}) series = series * square + term;
  return (x - 0.5) * std::log(x) - x + kHalfLogTwoPi + series / x - std::log(product);
}

// Log of the normal probability above x.
inline double LogTail(double x) {
  constexpr double kFarOut = 20;  // before the tail underflows, its asymptotic series is exact
  const double distance = std::abs(x);
  if (distance > kFarOut) {
    const double square = 1 / (distance * distance);
    const double series = 1 - square * (1 - square * (3 - square * (15 - square * 105)));
    return x < 0 ? 0 : std::log(series / distance) + LogNormal(x);
  }
  const double tail = 0.5 * std::erfc(distance * std::sqrt(0.5));
  return x < 0 ? std::log1p(-tail) : std::log(tail);
}

// `w > bound` with `Q(w) = Q(x) Q(bound)`, Q the upper tail.
inline double CutNormal(double x, double bound, double log_tail_bound) {
  constexpr int kSteps = 8;  // of Newton's method
  if (!(bound > kUncut)) return x;
  const double target = LogTail(x) + log_tail_bound;
  double w = std::max(x, bound);
  // log Q is concave: from the left the first step overshoots, all later ones come back without passing the root.
  for (int step = 0; step < kSteps; ++step) {
    const double tail = LogTail(w);
    const double change = (tail - target) * std::exp(tail - LogNormal(w));
    w += change;
    if (std::abs(change) <= 1e-15 * (1 + std::abs(w))) break;
  }
  return w;
}

// The map of one coordinate, with the logarithm of its slope and that one's two derivatives.
struct Bend {
  double value, log_slope, log_slope_1, log_slope_2;
};

struct Chart {
  Vector centre;
  bool straight = true;  // the basis is the identity
  Matrix basis;
  std::vector<char> active;   // the others are not integrated over
  Vector gauge;               // b, 0 where no gauge is needed
  Vector total;               // sum of b over the component
  std::vector<char> counted;  // one expert of every component that has a gauge
  Vector rate;                // of the hyperbolic sine
  Vector tilt;                // where on the hyperbolic sine the centre lies
  Vector mean, scale, bound, log_tail_bound;
  double log_gamma = 0;  // sum over the components of log Gamma(v)

  // Price j along its vector of the basis; inactive ones stay at 0 with a normal density.
  Bend At(int64_t j, double x) const {
    if (!active[j]) return {0, LogNormal(x), -x, -1};
    const double w = CutNormal(x, bound[j], log_tail_bound[j]);
    const double y = rate[j] * (mean[j] + scale[j] * w) + tilt[j];
    const double growth = std::expm1(std::abs(y));
    const double shrunk = growth / (1 + growth);
    const double sinh = std::copysign(0.5, y) * (growth + shrunk), cosh = 1 + 0.5 * growth * shrunk;
    const double tanh = sinh / cosh;
    const double log_steep = 0.5 * (w - x) * (w + x) + log_tail_bound[j], cosh_tilt = std::cosh(tilt[j]);
    const double w_1 = std::exp(log_steep);  // the slope of w
    const double drop = w * w_1 - x;         // that of its logarithm
    const double drop_1 = w_1 * w_1 + w * w_1 * drop - 1;
    const double steep = rate[j] * scale[j] * w_1;
    return {(sinh - std::sinh(tilt[j])) / (rate[j] * cosh_tilt), log_steep + std::log(scale[j] * cosh / cosh_tilt),
            drop + steep * tanh, drop_1 + steep * (drop * tanh + steep * (1 - tanh * tanh))};
  }
};

// Prices themselves as coordinates, from which the search for the mode starts, but the logarithm of bounded ones.
inline Bend PlainBend(const PriceProblem& problem, int64_t j, double x) {
  if (problem.pinned[j]) return {0, 0, 0, -1};
  if (problem.bounded[j]) return {std::exp(x), x, 1, 0};
  return {x, 0, 0, 0};
}

inline Chart PlainChart(const PriceProblem& problem) {
  const int64_t k = problem.k;
  Chart chart;
  chart.centre = chart.gauge = chart.total = Vector(k);
  chart.active.resize(k);
  for (int64_t j = 0; j < k; ++j) chart.active[j] = !problem.pinned[j];
  chart.counted.resize(k);
  return chart;
}

// The logarithm of the gauge's density, every expert's part of `S`, and that part's share of the component's.
inline double LogGauge(const PriceProblem& problem, const Chart& chart, const Vector& shift, Vector& weight,
                       Vector& share) {
  const int64_t k = problem.k;
  weight.assign(k, 0);
  share.assign(k, 0);
  Vector load(k);
  for (int64_t j = 0; j < k; ++j) {
    if (chart.gauge[j] == 0) continue;
    weight[j] = chart.gauge[j] * std::exp(std::min(-shift[j], 80.0));  // beyond, the density is 0 by a wide margin
    load[problem.group[j]] += weight[j];
  }
  double value = -chart.log_gamma;
  for (int64_t j = 0; j < k; ++j) {
    const double all = load[problem.group[j]];
    share[j] = weight[j] / (all > 0 ? all : 1);
    if (chart.counted[j]) value += chart.total[j] * std::log(all) - all;
  }
  return value;
}

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_PRICE_CHART_H_
