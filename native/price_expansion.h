// The logarithm of the integrand at one price vector, with its gradient and Hessian in closed form.
//
// `psi(u) = log det L_F(u) + sum_i log p[i, z_i](u)`, as _derivatives.py and _chart.py of
// gumbel_moe/distributions/_price_integral have it. Sums over the datapoints are in `Real`, all others in double.

#ifndef GUMBEL_MOE_PRICE_EXPANSION_H_
#define GUMBEL_MOE_PRICE_EXPANSION_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "parallel.h"
#include "price_chart.h"
#include "price_problem.h"
#include "small_matrices.h"
#include "vector_math.h"

namespace gumbel_moe {

struct Expansion {
  double value;
  Vector gradient;
  Matrix hessian;
};

template <typename Real>
class Psi {
 public:
  Psi(const PriceProblem& problem, const Workers& workers)
      : problem_(problem),
        workers_(problem.m * problem.k * problem.k > kLarge ? workers : Workers()),
        rows_(problem.rows.begin(), problem.rows.end()),
        probs_(problem.m * problem.k),
        scaled_(problem.m * problem.k),
        slope_(problem.k * problem.k * problem.k),
        turned_(problem.k * problem.k * problem.k) {}

  const PriceProblem& problem() const { return problem_; }
  const Workers& workers() const { return workers_; }
  const std::vector<Real>& probs() const { return probs_; }  // (m, k) at the last price vector

  // At prices (k), of the problem with log-probabilities divided by the temperature.
  Expansion At(const Vector& prices, double temperature) {
    const int64_t k = problem_.k;
    Vector own(k);
    Matrix rates(k * k);
    const std::vector<Real> narrow(prices.begin(), prices.end());
    std::fill(slope_.begin(), slope_.end(), 0);
    workers_.For(k, [&](int64_t p) { own[p] = Rates(p, narrow.data(), 1 / temperature, &rates[p * k]); });
    double log_det;
    Matrix inverse = Inverse(Minor(rates), k, log_det);
    for (int64_t p = 0; p < k; ++p) {
      for (int64_t j = 0; j < k; ++j) {
        if (problem_.pinned[p] || problem_.pinned[j]) inverse[p * k + j] = 0;
      }
    }
    Expansion psi{log_det, Vector(k), Matrix(k * k)};
    Vector mean(k), pulled(k), along(k);
    for (int64_t p = 0; p < k; ++p) {
      psi.value += own[p];
      for (int64_t j = 0; j < k; ++j) {
        mean[j] += rates[p * k + j];
        pulled[j] += inverse[j * k + p] * rates[p * k + j];
      }
    }
    std::vector<Real> gram(kParts * k * k);
    std::vector<double> parts(kParts * k);
    workers_.For(kParts, [&](int64_t part) { Gram(part, inverse, &gram[part * k * k], &parts[part * k]); });
    std::vector<Real> squared(kParts * k * k);
    Turn(inverse, squared);
    for (int64_t part = 0; part < kParts; ++part) {
      for (int64_t j = 0; j < k; ++j) along[j] += parts[part * k + j];
      for (int64_t at = 0; at < k * k; ++at) {
        psi.hessian[at] += static_cast<double>(gram[part * k * k + at]) - squared[part * k * k + at];
      }
    }
    Mirror(psi.hessian.data(), k);
    for (int64_t a = 0; a < k; ++a) {
      psi.gradient[a] = mean[a] - problem_.Load(a) + pulled[a] - along[a];
      psi.hessian[a * k + a] += 2 * pulled[a] - mean[a] - (pulled[a] - along[a]);
      for (int64_t l = 0; l < k; ++l) {
        const double mixed = turned_[(a * k + a) * k + l];  // less its diagonal, which is above
        psi.hessian[a * k + l] -= mixed;
        psi.hessian[l * k + a] -= mixed;
      }
    }
    return psi;
  }

  // The diagonal is raised by a few units of rounding, so that no price makes the matrix singular.
  Matrix Minor(const Matrix& rates) const {
    using Limits = std::numeric_limits<double>;
    const int64_t k = problem_.k;
    Matrix minor = Identity(k);
    for (const int64_t p : problem_.kept) {
      double leaving = 0;
      for (int64_t j = 0; j < k; ++j) leaving += j == p ? 0 : rates[p * k + j];
      for (const int64_t j : problem_.kept) minor[p * k + j] = -rates[p * k + j];
      minor[p * k + p] = leaving * (1 + 4 * Limits::epsilon()) + std::cbrt(Limits::min());
    }
    return minor;
  }

 private:
  static constexpr int64_t kLarge = 1 << 19;  // operations from which threads save more than they cost
  static constexpr int64_t kParts = 8;        // of sums that threads share

  // The sums of expert p's probabilities, and minus those of their products, with the sums on the diagonal.
  double Rates(int64_t p, const Real* prices, double cooling, double* rates) {
    const int64_t k = problem_.k, first = problem_.first[p], number = problem_.first[p + 1] - first;
    Real* probs = probs_.data() + first * k;
    const double own = Softmax(rows_.data() + first * k, number, k, static_cast<Real>(cooling), prices, p, probs);
    for (int64_t i = 0; i < number; ++i) {
      for (int64_t j = 0; j < k; ++j) rates[j] += probs[i * k + j];
    }
    if (problem_.pinned[p]) return own;  // nothing asks for the products
    Real* slope = slope_.data() + p * k * k;
    AddProduct<Real>({number, probs, k, 1, probs, k, slope, k}, k, k, true);
    Mirror(slope, k);
    for (int64_t at = 0; at < k * k; ++at) slope[at] = -slope[at];
    for (int64_t j = 0; j < k; ++j) slope[j * k + j] += static_cast<Real>(rates[j]);
    return own;
  }

  // One part of `sum_i (1 - 2 t_i) p_i p_i^T` and of `sum_i t_i p_i`, where `t_i = sum_j X[j, z_i] p_ij`.
  void Gram(int64_t part, const Matrix& inverse, Real* gram, double* along) {
    const int64_t k = problem_.k, begin = problem_.m * part / kParts, end = problem_.m * (part + 1) / kParts;
    std::vector<Real> column(k);
    int64_t owner = -1;
    for (int64_t i = begin; i < end; ++i) {
      if (problem_.owner[i] != owner) {
        owner = problem_.owner[i];
        for (int64_t j = 0; j < k; ++j) column[j] = static_cast<Real>(inverse[j * k + owner]);
      }
      const Real* p = &probs_[i * k];
      Real* scaled = &scaled_[i * k];
      Real pull = 0;
#pragma omp simd reduction(+ : pull)
      for (int64_t j = 0; j < k; ++j) pull += column[j] * p[j];
      for (int64_t j = 0; j < k; ++j) along[j] += static_cast<double>(pull * p[j]);
      for (int64_t j = 0; j < k; ++j) scaled[j] = (1 - 2 * pull) * p[j];
    }
    if (begin < end)
      AddProduct<Real>({end - begin, &scaled_[begin * k], k, 1, &probs_[begin * k], k, gram, k}, k, k, true);
  }

  // `turned[m] = X[m, :] dL`, and parts of `tr(X dL_a X dL_b)` for all pairs of prices, X the inverse.
  void Turn(const Matrix& inverse, std::vector<Real>& squared) {
    const int64_t k = problem_.k;
    std::fill(turned_.begin(), turned_.end(), 0);
    const std::vector<Real> narrow(inverse.begin(), inverse.end());
    workers_.For(kParts, [&](int64_t part) {
      const int64_t begin = k * part / kParts, end = k * (part + 1) / kParts;
      // Rows of `turned` for the experts p of this part.
      AddProduct<Real>(
          {k, narrow.data() + begin * k, 1, k, slope_.data(), k * k, turned_.data() + begin * k * k, k * k},
          end - begin, k * k);
    });
    workers_.For(kParts, [&](int64_t part) {
      for (int64_t p = k * part / kParts; p < k * (part + 1) / kParts; ++p) {
        if (problem_.pinned[p]) continue;
        const Real* turned = turned_.data();
        Real* sum = squared.data() + part * k * k;
        AddProduct<Real>({k, turned + p * k * k, k, 1, turned + p * k, k * k, sum, k}, k, k, true);
      }
    });
  }

  const PriceProblem& problem_;
  const Workers workers_;
  const std::vector<Real> rows_;  // (m, k)
  std::vector<Real> probs_;       // (m, k)
  std::vector<Real> scaled_;      // (m, k)
  std::vector<Real> slope_;       // (k, k, k) d L[p, l] / d u_a at [p, a, l]
  std::vector<Real> turned_;      // (k, k, k)
};

// The logarithm of the integrand, gauge and volume element included, as a function of the coordinates `x`; and psi as a
// function of the prices. `plain`: the coordinates are the prices, or the logarithms of bounded ones.
template <typename Real>
Expansion ExpandIn(Psi<Real>& function, const Chart& chart, bool plain, const Vector& x, double temperature,
                   Expansion& psi) {
  const PriceProblem& problem = function.problem();
  const int64_t k = problem.k;
  std::vector<Bend> curve(k);
  Vector value(k), slope(k);
  double log_volume = 0;
  for (int64_t j = 0; j < k; ++j) {
    curve[j] = plain ? PlainBend(problem, j, x[j]) : chart.At(j, x[j]);
    value[j] = curve[j].value;
    slope[j] = chart.active[j] ? std::exp(curve[j].log_slope) : 0;
    log_volume += curve[j].log_slope;
  }
  const Vector shift = chart.straight ? value : Apply(chart.basis, value);
  Vector prices(chart.centre);
  for (int64_t j = 0; j < k; ++j) prices[j] += shift[j];
  psi = function.At(prices, temperature);
  Vector weight, share;
  Expansion here{psi.value + LogGauge(problem, chart, shift, weight, share) + log_volume, Vector(k), Matrix(k * k)};
  Vector force(k);
  Matrix hessian = psi.hessian;
  for (int64_t j = 0; j < k; ++j) {
    const double pull = chart.total[j] * share[j];
    force[j] = psi.gradient[j] - pull + weight[j];
    hessian[j * k + j] += pull - weight[j];
    if (pull == 0) continue;
    for (int64_t l = 0; l < k; ++l) {
      if (problem.group[l] == problem.group[j]) hessian[j * k + l] -= pull * share[l];
    }
  }
  if (!chart.straight) {
    force = Apply(chart.basis, force, true);
    hessian = Times(Times(chart.basis, hessian, k, true), chart.basis, k);
  }
  for (int64_t a = 0; a < k; ++a) {
    const double along = slope[a] * force[a];
    here.gradient[a] = along + curve[a].log_slope_1;
    for (int64_t b = 0; b < k; ++b) here.hessian[a * k + b] = slope[a] * slope[b] * hessian[a * k + b];
    here.hessian[a * k + a] += curve[a].log_slope_1 * along + curve[a].log_slope_2;
  }
  return here;
}

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_PRICE_EXPANSION_H_
