// The integral over one or two prices by the trapezoidal rule, on a box fitted to the integrand.
//
// As gumbel_moe/distributions/_price_integral/_quadrature.py; but one price of three experts is an axis with the nodes
// that two experts have, as a pinned one needs none.

#ifndef GUMBEL_MOE_PRICE_QUADRATURE_H_
#define GUMBEL_MOE_PRICE_QUADRATURE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "price_integrand.h"
#include "price_modes.h"
#include "price_problem.h"
#include "price_proposal.h"
#include "small_matrices.h"

namespace gumbel_moe {

class Quadrature {
 public:
  // For two or three experts. `epsilon`: of the type of the logits.
  Quadrature(const PriceProblem& problem, double epsilon, const Workers& workers)
      : problem_(problem),
        nothing_(1e-3 * epsilon),
        start_(FirstStart(problem, workers)),
        integrand_(problem, start_.prices, true) {
    const int64_t k = problem.k;
    workers_ = problem.m > kThreaded ? workers : Workers();
    basis_ = price_modes::TriangularBasis(problem, start_.curvature);
    const Matrix bowed = Times(start_.curvature, basis_, k);
    for (const int64_t j : problem.kept) {
      double along = 0;
      for (int64_t p = 0; p < k; ++p) along += basis_[p * k + j] * bowed[p * k + j];
      double reach = std::min(std::max(8 / std::sqrt(std::max(along, 1e-3)), 1e-3), 40.0);
      double middle = 0;
      if (problem.bounded[j]) {  // where the price is log(1 + exp(x))
        middle = start_.prices[j] + std::log(-std::expm1(-start_.prices[j]));
        reach = std::max(reach, 8.0);
      }
      low_.push_back(middle - reach);
      high_.push_back(middle + reach);
    }
    FitBox(std::min(low_.size() < 2 ? 40.0 : 27.0, -1.2 * std::log(epsilon)));
  }

  // `log P`, and a bound on its error; and the score (m, k), sorted as the problem is, if there is room given for it.
  // Above 0, a target for the error lets fewer nodes do.
  Estimate Sum(double target_error, std::vector<double>* score) const {
    const int64_t k = problem_.k, blocks = std::max<int64_t>(1, (problem_.n + 4 * k - 1) / (4 * k));
    const bool large = ((problem_.n + blocks - 1) / blocks + k) * blocks * k > kLarge;
    const int64_t most = low_.size() < 2 ? (large ? 128 : 256) : (large ? 40 : 96);
    // Where few nodes miss what is narrow, both halves of them can miss it alike; two numbers of nodes do not.
    double last = std::numeric_limits<double>::quiet_NaN();
    for (int64_t ticks = kFewest; target_error > 0 && ticks < most; ticks += ticks / 2) {
      const Estimate estimate = Sum(ticks, last, target_error, score);
      if (estimate.error <= target_error) return estimate;
      last = estimate.value;
    }
    return Sum(most, kNothing, kInfinity, score);
  }

 private:
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
  static constexpr double kNothing = -kInfinity;  // no last value, and none is asked for
  static constexpr int64_t kFewest = 12;          // nodes on an axis that are tried where they may do
  static constexpr int64_t kLarge = 128;          // with more datapoints the integrand is close to normal
  static constexpr int64_t kThreaded = 256;
  static constexpr int64_t kParts = 8;
  static constexpr int kMaxRounds = 30;

  // With this many nodes on every axis; without the score where the error is above `enough`. It is no less than the
  // difference from the `last` value, if that is asked for, and NaN if there is none.
  Estimate Sum(int64_t ticks, double last, double enough, std::vector<double>* score) const {
    const std::vector<double> values = Values(ticks);
    double volume = 0;
    for (size_t axis = 0; axis < low_.size(); ++axis) volume += std::log((high_[axis] - low_[axis]) / ticks);
    // The nodes whose indices have an even sum make a coarser rule of the same kind.
    double sum = 0, half = 0, top = -std::numeric_limits<double>::infinity();
    for (const double value : values) top = std::max(top, value);
    if (!std::isfinite(top)) return {top, std::numeric_limits<double>::quiet_NaN()};
    for (int64_t node = 0; node < static_cast<int64_t>(values.size()); ++node) {
      const double weight = Exp(values[node] - top);
      sum += weight;
      if ((node / ticks + node % ticks) % 2 == 0) half += 2 * weight;
    }
    if (low_.empty()) half = sum;
    Estimate estimate{top + std::log(sum) + volume, std::abs(std::log(sum) - std::log(half))};
    if (last != kNothing) estimate.error += std::abs(estimate.value - last);
    const bool enough_nodes = enough == kInfinity || estimate.error <= enough;
    if (score != nullptr && enough_nodes) AddScores(values, ticks, top + std::log(sum), *score);
    return estimate;
  }

  static Start FirstStart(const PriceProblem& problem, const Workers& workers) {
    Psi<double> function(problem, workers);
    return StartingPoint(function);
  }

  int64_t Nodes(int64_t ticks) const {
    int64_t nodes = 1;
    for (size_t axis = 0; axis < low_.size(); ++axis) nodes *= ticks;
    return nodes;
  }

  // Shifts (k, lanes) of a chunk of nodes, and the logarithms of their volume elements.
  int64_t Chunk(int64_t chunk, int64_t ticks, Vector& shift, double* known) const {
    const int64_t k = problem_.k, count = std::min(kLanes, Nodes(ticks) - chunk * kLanes);
    shift.assign(k * kLanes, 0);
    std::fill_n(known, kLanes, 0.0);
    for (int64_t d = 0; d < count; ++d) {
      int64_t node = chunk * kLanes + d;
      for (int64_t axis = static_cast<int64_t>(low_.size()) - 1; axis >= 0; --axis) {
        const int64_t j = problem_.kept[axis];
        const double x = low_[axis] + (static_cast<double>(node % ticks) + 0.5) * ((high_[axis] - low_[axis]) / ticks);
        node /= ticks;
        if (problem_.bounded[j]) {
          const double less = std::log1p(std::exp(-std::abs(x)));  // log(1 + exp(x)) = max(x, 0) + this
          shift[j * kLanes + d] += std::max(x, 0.0) + less - start_.prices[j];
          known[d] += std::min(x, 0.0) - less;
        } else {
          for (int64_t p = 0; p < k; ++p) shift[p * kLanes + d] += basis_[p * k + j] * x;
        }
      }
    }
    return count;
  }

  // Logarithm of the integrand, volume element included, at midpoints of a regular grid of the box.
  std::vector<double> Values(int64_t ticks) const {
    const int64_t nodes = Nodes(ticks), chunks = (nodes + kLanes - 1) / kLanes;
    std::vector<double> values(chunks * kLanes);
    workers_.For(kParts, [&](int64_t part) {
      Vector shift;
      double known[kLanes];
      for (int64_t chunk = chunks * part / kParts; chunk < chunks * (part + 1) / kParts; ++chunk) {
        const int64_t count = Chunk(chunk, ticks, shift, known);
        integrand_.At(shift.data(), count, &values[chunk * kLanes]);
        for (int64_t d = 0; d < count; ++d) values[chunk * kLanes + d] += known[d];
      }
    });
    values.resize(nodes);
    return values;
  }

  void AddScores(const std::vector<double>& values, int64_t ticks, double log_sum, std::vector<double>& score) const {
    const int64_t nodes = values.size(), chunks = (nodes + kLanes - 1) / kLanes;
    std::vector<ScoreSum<double>> parts(kParts, ScoreSum<double>(problem_.m, problem_.k));
    workers_.For(kParts, [&](int64_t part) {
      Vector shift;
      double known[kLanes], unused[kLanes];
      for (int64_t chunk = chunks * part / kParts; chunk < chunks * (part + 1) / kParts; ++chunk) {
        double weights[kLanes] = {}, largest = 0;
        for (int64_t d = 0; d < kLanes && chunk * kLanes + d < nodes; ++d) {
          const double value = values[chunk * kLanes + d];
          weights[d] = std::isnan(value) ? 0 : Exp(value - log_sum);
          largest = std::max(largest, weights[d]);
        }
        if (largest < nothing_) continue;
        const int64_t count = Chunk(chunk, ticks, shift, known);
        integrand_.At(shift.data(), count, unused, weights, &parts[part]);
      }
    });
    Collect(integrand_, parts, score);
  }

  // Widen and narrow the box until it just holds what is not negligible: within `depth` nats of the maximum.
  void FitBox(double depth) {
    const int64_t axes = low_.size(), coarse = axes < 2 ? 64 : 24;
    bool done = axes == 0;
    for (int round = 0; round < kMaxRounds && !done; ++round) {
      const std::vector<double> values = Values(coarse);
      double top = -std::numeric_limits<double>::infinity();
      for (const double value : values) top = std::max(top, value);
      done = true;
      int64_t step = values.size();
      for (int64_t axis = 0; axis < axes; ++axis) {
        step /= coarse;
        int64_t first = coarse, last = -1;
        for (int64_t node = 0; node < static_cast<int64_t>(values.size()); ++node) {
          if (!(values[node] > top - depth)) continue;
          const int64_t tick = node / step % coarse;
          first = std::min(first, tick);
          last = std::max(last, tick);
        }
        if (last < 0) {  // nothing to see
          first = 0;
          last = coarse - 1;
        }
        const double low = low_[axis], width = high_[axis] - low;
        low_[axis] = first == 0 ? low - width / 2 : low + static_cast<double>(first - 1) * (width / coarse);
        high_[axis] = last == coarse - 1 ? low + width * 1.5 : low + static_cast<double>(last + 2) * (width / coarse);
        done &= first > 0 && last < coarse - 1 && static_cast<double>(last - first) > 0.6 * coarse;
      }
    }
  }

  const PriceProblem& problem_;
  const double nothing_;  // weight of nodes that add nothing to the score
  Workers workers_;
  const Start start_;
  const Integrand<double> integrand_;
  Matrix basis_;
  Vector low_, high_;  // of every axis: the experts that are not pinned, in their order
};

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_PRICE_QUADRATURE_H_
