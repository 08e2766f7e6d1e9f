// The logarithm of the integrand, and its gradient in the logits, at up to 32 price vectors at a time.
//
// The exponentials are taken once, at a centre: at `centre + shift` the probabilities are the centre's times
// `exp(-shift)`, normalised. What that cannot reach is computed one by one, in a wider type.

#ifndef GUMBEL_MOE_PRICE_INTEGRAND_H_
#define GUMBEL_MOE_PRICE_INTEGRAND_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "price_problem.h"
#include "small_matrices.h"
#include "vector_math.h"

namespace gumbel_moe {

// `sum_d w_d d log integrand(u_d) / d logit` for many price vectors, in parts that are added up at the end.
template <typename Real>
struct ScoreSum {
  ScoreSum(int64_t m, int64_t k) : near(m * k), far(m * k) {}
  double weight = 0;
  std::vector<Real> near;   // to be multiplied by the centre's probabilities
  std::vector<double> far;  // of price vectors computed one by one
};

template <typename Real>
class Integrand {
 public:
  // `everywhere`: however large the problem is, no price vector is too far to be computed.
  Integrand(const PriceProblem& problem, const Vector& centre, bool everywhere = false)
      : problem_(problem),
        centre_(centre),
        one_by_one_(everywhere || problem.m * problem.k <= kSmall),
        probs_(problem.m * problem.k) {
    const int64_t k = problem.k;
    Vector nearest(k * k, kInfinite);  // of a datapoint of the expert of the row, to the expert of the column, in nats
    Vector shifted(k);
    for (int64_t i = 0; i < problem.m; ++i) {
      const double* row = &problem.rows[i * k];
      for (int64_t j = 0; j < k; ++j) shifted[j] = row[j] - centre[j];
      const double log_total = LogSum(shifted.data(), k);
      Exponentials(shifted.data(), log_total, k, &probs_[i * k]);
      double* near = &nearest[problem.owner[i] * k];
      for (int64_t j = 0; j < k; ++j) near[j] = std::min(near[j], log_total - shifted[j]);
      own_ += shifted[problem.owner[i]] - log_total;
    }
    for (int64_t p = 0; p < k; ++p)
      rows_ = std::max(rows_, std::min(problem.first[p + 1] - problem.first[p], kMostRows));
    for (const int64_t p : problem.kept) {
      for (int64_t j = 0; j < k; ++j) {
        if (j != p && std::isfinite(nearest[p * k + j])) depth_ = std::max(depth_, nearest[p * k + j]);
      }
    }
  }

  const PriceProblem& problem() const { return problem_; }
  const Vector& centre() const { return centre_; }
  double Prob(int64_t i, int64_t j) const { return probs_[i * problem_.k + j]; }

  // At prices `centre + shift`, shifts (k, lanes), of which the first `count` lanes are wanted. And, if `score` is
  // given, their gradients times the weights (lanes) are added to it.
  void At(const double* shift, int64_t count, double* values, const double* weights = nullptr,
          ScoreSum<Real>* score = nullptr) const {
    const int64_t k = problem_.k, number = problem_.kept.size();
    double least[kLanes], most[kLanes];
    std::copy_n(shift, kLanes, least);
    std::copy_n(shift, kLanes, most);
    for (int64_t at = kLanes; at < k * kLanes; ++at) {
      least[at % kLanes] = std::min(least[at % kLanes], shift[at]);
      most[at % kLanes] = std::max(most[at % kLanes], shift[at]);
    }
    bool far[kLanes] = {};
    int64_t near = 0;
    for (int64_t d = 0; d < count; ++d) {
      far[d] = one_by_one_ && !(depth_ + most[d] - least[d] < (k <= kNothingLost ? kDeep : kDeepest));
      near += !far[d];
    }
    if (near > 0) {
      Together(shift, least, values, weights, score, far, count);
    }
    for (int64_t d = 0; d < count; ++d) {
      if (!far[d]) continue;
      const double weight = score == nullptr ? 0 : weights[d];
      if (score != nullptr && weight == 0) continue;
      Vector prices(centre_);
      for (int64_t j = 0; j < k; ++j) prices[j] += shift[j * kLanes + d];
      values[d] = OneByOne(prices, number, weight, score == nullptr ? nullptr : score->far.data());
    }
  }

 private:
  static constexpr double kInfinite = std::numeric_limits<double>::infinity();
  static constexpr int64_t kSmall = 4096;     // entries of the logits up to which what is far is computed one by one
  static constexpr int64_t kNothingLost = 4;  // experts up to which no product of probabilities may underflow
  static constexpr double kDeep = 200, kDeepest = 600;  // nats that all probabilities have to be above

  void Together(const double* shift, const double* least, double* values, const double* weights, ScoreSum<Real>* score,
                const bool* far, int64_t count) const {
    using Limits = std::numeric_limits<Real>;
    const int64_t k = problem_.k, number = problem_.kept.size();
    std::vector<Real> factor(k * kLanes), rates(number * number * kLanes), away(number * kLanes),
        leaving(number * kLanes), share(k * kLanes);
    // The score needs all norms once more.
    std::vector<Real> norms((score == nullptr ? rows_ : problem_.m) * kLanes);
    double shrink[kLanes], one[kLanes];
    for (int64_t d = 0; d < kLanes; ++d) {
      shrink[d] = far[d] ? 0 : least[d];
      one[d] = far[d];
    }
    Factors(k, shift, shrink, one, factor.data());
    double log_sum[kLanes] = {};
    Real smallest[kLanes];
    std::fill_n(smallest, kLanes, Limits::max());
    int64_t index = 0;
    for (int64_t p = 0; p < k; ++p) {
      const bool kept = !problem_.pinned[p];
      std::fill(share.begin(), share.end(), 0);
      for (int64_t begin = problem_.first[p]; begin < problem_.first[p + 1]; begin += rows_) {
        const int64_t rows = std::min(rows_, problem_.first[p + 1] - begin);
        Real* norm = norms.data() + (score == nullptr ? 0 : begin * kLanes);
        std::fill_n(norm, rows * kLanes, Real(0));
        AddProduct<Real>({k, &probs_[begin * k], 1, k, factor.data(), kLanes, norm, kLanes}, rows, kLanes);
        Invert(rows, kLeastNorm(), norm, log_sum, smallest);
        if (kept) AddProduct<Real>({rows, &probs_[begin * k], k, 1, norm, kLanes, share.data(), kLanes}, k, kLanes);
      }
      if (!kept) continue;
      Real* out = &away[index * kLanes];
      std::fill_n(out, kLanes, static_cast<Real>(sizeof(Real) > 4 ? 1e-290 : 1e-30));
      int64_t column = 0;
      for (int64_t j = 0; j < k; ++j) {
        Real* to = problem_.pinned[j] ? out : &rates[(index * number + column++) * kLanes];
        AddScaled(&share[j * kLanes], &factor[j * kLanes], to);
      }
      ++index;
    }
    Real log_det[kLanes];
    Eliminate(number, rates.data(), away.data(), leaving.data(), log_det);
    double used[kLanes] = {};
    for (int64_t d = 0; d < count; ++d) {
      if (far[d]) continue;
      const bool within = smallest[d] > kLeastNorm();
      double paid = 0;
      for (int64_t j = 0; j < k; ++j) paid += (shift[j * kLanes + d] - shrink[d]) * problem_.Load(j);
      values[d] = within ? own_ - log_sum[d] - paid + log_det[d] : -kInfinite;
      if (score != nullptr && within) used[d] = weights[d];
    }
    if (score != nullptr) Add(factor, rates, away, leaving, norms, used, *score);
  }

  // The largest of the norms is at most 1: that at which the exponential's range ends.
  static constexpr Real kLeastNorm() { return static_cast<Real>(1e4) * std::numeric_limits<Real>::min(); }

  // `d log det / d p_ij` is `c_pj` for a datapoint of expert p, so that the gradient in the logit is
  // `1(z_i = j) - p_ij (1 - c_pj + sum_l c_pl p_il)`.
  void Add(const std::vector<Real>& factor, const std::vector<Real>& rates, const std::vector<Real>& away,
           const std::vector<Real>& leaving, std::vector<Real>& norms, const double* weights,
           ScoreSum<Real>& score) const {
    const int64_t k = problem_.k, number = problem_.kept.size();
    std::vector<Real> by_rates(number * number * kLanes), by_away(number * kLanes), steep(k * kLanes),
        mean(rows_ * kLanes), turned(kLanes * k), turned_steep(kLanes * k);
    Adjoint(number, rates.data(), away.data(), leaving.data(), by_rates.data(), by_away.data());
    const auto turn = [k](const std::vector<Real>& from, std::vector<Real>& to) {
      for (int64_t j = 0; j < k; ++j) {
        for (int64_t d = 0; d < kLanes; ++d) to[d * k + j] = from[j * kLanes + d];
      }
    };
    turn(factor, turned);
    Real weight[kLanes];
    for (int64_t d = 0; d < kLanes; ++d) {
      weight[d] = static_cast<Real>(weights[d]);
      score.weight += weights[d];
    }
    int64_t index = 0;
    for (int64_t p = 0; p < k; ++p) {
      const bool kept = !problem_.pinned[p];
      if (kept) {
        int64_t column = 0;
        for (int64_t j = 0; j < k; ++j) {
          const Real* by =
              problem_.pinned[j] ? &by_away[index * kLanes] : &by_rates[(index * number + column++) * kLanes];
          std::fill_n(&steep[j * kLanes], kLanes, Real(0));
          if (j != p) AddScaled(by, &factor[j * kLanes], &steep[j * kLanes]);
          for (int64_t d = 0; d < kLanes; ++d) {
            if (weight[d] == 0) steep[j * kLanes + d] = 0;  // whatever came of it
          }
        }
        turn(steep, turned_steep);
        ++index;
      }
      for (int64_t begin = problem_.first[p]; begin < problem_.first[p + 1]; begin += rows_) {
        const int64_t rows = std::min(rows_, problem_.first[p + 1] - begin);
        Real* norm = &norms[begin * kLanes];
        std::fill_n(mean.begin(), rows * kLanes, Real(0));
        if (kept) {
          AddProduct<Real>({k, &probs_[begin * k], 1, k, steep.data(), kLanes, mean.data(), kLanes}, rows, kLanes);
        }
        ShareOut(rows, weight, norm, mean.data());
        Real* sum = &score.near[begin * k];
        AddProduct<Real>({kLanes, mean.data(), 1, kLanes, turned.data(), k, sum, k}, rows, k);
        if (kept) AddProduct<Real>({kLanes, norm, 1, kLanes, turned_steep.data(), k, sum, k}, rows, k);
      }
    }
  }

  // The same at one price vector, however far from the centre: rates in a type with a wide range.
  double OneByOne(const Vector& prices, int64_t number, double weight, double* score) const {
    using Wide = long double;
    const int64_t k = problem_.k;
    Vector log_probs(problem_.m * k);
    std::vector<Wide> rates(number * number), away(number, 1e-300L), leaving(number);
    Vector scale(k);
    double value = 0;
    std::vector<int64_t> place(k, -1);
    for (int64_t at = 0; at < number; ++at) place[problem_.kept[at]] = at;
    for (int64_t p = 0; p < k; ++p) {
      double largest = -kInfinite;
      for (int64_t i = problem_.first[p]; i < problem_.first[p + 1]; ++i) {
        const double* row = &problem_.rows[i * k];
        double* out = &log_probs[i * k];
        for (int64_t j = 0; j < k; ++j) out[j] = row[j] - prices[j];
        const double log_total = LogSum(out, k);
        for (int64_t j = 0; j < k; ++j) {
          out[j] -= log_total;
          if (j != p) largest = std::max(largest, out[j]);
        }
        value += out[p];
      }
      if (place[p] < 0) continue;
      // The determinant is linear in each row: the largest rate is taken out.
      scale[p] = std::isfinite(largest) ? largest : 0;
      value += scale[p];
      for (int64_t i = problem_.first[p]; i < problem_.first[p + 1]; ++i) {
        for (int64_t j = 0; j < k; ++j) {
          const double log_rate = log_probs[i * k + j] - scale[p];
          if (j == p || !(log_rate > -kInfinite)) continue;
          (place[j] < 0 ? away[place[p]] : rates[place[p] * number + place[j]]) += Power(log_rate);
        }
      }
    }
    for (int64_t p = 0; p < number; ++p) {
      Wide sum = away[p];
      for (int64_t j = p + 1; j < number; ++j) sum += rates[p * number + j];
      leaving[p] = sum;
      value += static_cast<double>(std::log(sum));
      for (int64_t q = p + 1; q < number; ++q) {
        const Wide share = rates[q * number + p] / sum;
        away[q] += share * away[p];
        for (int64_t j = p + 1; j < number; ++j) rates[q * number + j] += share * rates[p * number + j];
      }
    }
    if (score == nullptr || !std::isfinite(value)) return value;
    std::vector<Wide> by_rates(number * number), by_away(number);
    plain::AdjointBody<Wide, 1>(number, rates.data(), away.data(), leaving.data(), by_rates.data(), by_away.data());
    Vector steep(k);
    for (int64_t i = 0; i < problem_.m; ++i) {
      const int64_t p = problem_.owner[i];
      double mean = 0;
      for (int64_t j = 0; j < k; ++j) {
        steep[j] = 0;
        if (j == p || place[p] < 0 || !(log_probs[i * k + j] > -kInfinite)) continue;
        const Wide by = place[j] < 0 ? by_away[place[p]] : by_rates[place[p] * number + place[j]];
        steep[j] = static_cast<double>(by * Power(log_probs[i * k + j] - scale[p]));  // c_pj p_ij
        mean += steep[j];
      }
      for (int64_t j = 0; j < k; ++j) {
        const double prob = Exp(log_probs[i * k + j]);
        score[i * k + j] += weight * ((j == p) - prob * (1 + mean) + steep[j]);
      }
    }
    return value;
  }

  static long double Power(double x) {
    return x > -700 ? static_cast<long double>(Exp(x)) : std::exp(static_cast<long double>(x));
  }

  const PriceProblem& problem_;
  const Vector centre_;
  const bool one_by_one_;
  double own_ = 0;           // log-probability of the assignment at the centre
  double depth_ = 0;         // nats by which the likeliest way from one expert to another may be unlikely there
  std::vector<Real> probs_;  // (m, k) at the centre

  static constexpr int64_t kMostRows = 64;
  int64_t rows_ = 1;  // datapoints at a time
};

// The score (m, k) of all parts together.
template <typename Real>
void Collect(const Integrand<Real>& integrand, const std::vector<ScoreSum<Real>>& parts, std::vector<double>& score) {
  const PriceProblem& problem = integrand.problem();
  score.assign(problem.m * problem.k, 0);
  double weight = 0;
  for (const ScoreSum<Real>& part : parts) weight += part.weight;
  for (int64_t i = 0; i < problem.m; ++i) {
    for (int64_t j = 0; j < problem.k; ++j) {
      const int64_t at = i * problem.k + j;
      double near = 0, far = 0;
      for (const ScoreSum<Real>& part : parts) {
        near += part.near[at];
        far += part.far[at];
      }
      score[at] = weight * (problem.owner[i] == j) - integrand.Prob(i, j) * near + far;
    }
  }
}

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_PRICE_INTEGRAND_H_
