// Exponentials, logarithms, matrix products and eliminations of many numbers at once.
//
// There are two versions of each, and the machine that runs them chooses: one for all processors, and on x86 one for
// those of the last ten years.

#ifndef GUMBEL_MOE_VECTOR_MATH_H_
#define GUMBEL_MOE_VECTOR_MATH_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace gumbel_moe {

inline constexpr int64_t kLanes = 32;  // price vectors at a time

// c (ca, cb) += a^T b over `rows` rows. Element (r, i) of `a` is at a[r * step + i * stride]; rows of `b` and `c` are
// `b_row` and `c_row` apart. `upper`: entries (i, j), j < i, may be left as they are.
template <typename Real>
struct Product {
  int64_t rows;
  const Real* a;
  int64_t step, stride;
  const Real* b;
  int64_t b_row;
  Real* c;
  int64_t c_row;
};

namespace plain {
#define GUMBEL_MOE_TARGET
#include "vector_kernels.h"
#undef GUMBEL_MOE_TARGET
}  // namespace plain

#if defined(__x86_64__)
namespace fast {
#define GUMBEL_MOE_TARGET __attribute__((target("avx2,fma")))
#include "vector_kernels.h"
#undef GUMBEL_MOE_TARGET
}  // namespace fast

inline bool HasFast() {
  static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return has;
}
#define GUMBEL_MOE_CHOOSE(call) (HasFast() ? fast::call : plain::call)
#else
#define GUMBEL_MOE_CHOOSE(call) plain::call
#endif

using plain::Exp;
using plain::Log;

template <typename Real>
void AddProduct(const Product<Real>& product, int64_t ca, int64_t cb, bool upper = false) {
  GUMBEL_MOE_CHOOSE(AddProduct(product, ca, cb, upper));
}
template <typename Real>
double Softmax(const Real* rows, int64_t number, int64_t k, Real cooling, const Real* prices, int64_t own,
               Real* probs) {
  return GUMBEL_MOE_CHOOSE(Softmax(rows, number, k, cooling, prices, own, probs));
}
template <typename Real>
void Eliminate(int64_t number, Real* rates, Real* away, Real* leaving, Real* log_det) {
  GUMBEL_MOE_CHOOSE(Eliminate(number, rates, away, leaving, log_det));
}
template <typename Real>
void Adjoint(int64_t number, const Real* rates, const Real* away, const Real* leaving, Real* by_rates, Real* by_away) {
  GUMBEL_MOE_CHOOSE(Adjoint(number, rates, away, leaving, by_rates, by_away));
}
template <typename Real>
void Invert(int64_t rows, Real least, Real* norm, double* log_sum, Real* smallest) {
  GUMBEL_MOE_CHOOSE(Invert(rows, least, norm, log_sum, smallest));
}
template <typename Real>
void Factors(int64_t k, const double* shift, const double* least, const double* far, Real* factor) {
  GUMBEL_MOE_CHOOSE(Factors(k, shift, least, far, factor));
}
template <typename Real>
void AddScaled(const Real* a, const Real* b, Real* sum) {
  GUMBEL_MOE_CHOOSE(AddScaled(a, b, sum));
}
template <typename Real>
void ShareOut(int64_t rows, const Real* weight, Real* inverse, Real* mean) {
  GUMBEL_MOE_CHOOSE(ShareOut(rows, weight, inverse, mean));
}
inline double LogSum(const double* x, int64_t k) { return GUMBEL_MOE_CHOOSE(LogSum(x, k)); }
template <typename Real>
void Exponentials(const double* x, double less, int64_t k, Real* out) {
  GUMBEL_MOE_CHOOSE(Exponentials(x, less, k, out));
}
inline void Bent(const double* w, double mean, double scale, double rate, double tilt, double* value,
                 double* log_slope) {
  GUMBEL_MOE_CHOOSE(Bent(w, mean, scale, rate, tilt, value, log_slope));
}
#undef GUMBEL_MOE_CHOOSE

// What is below the diagonal of a symmetric (k, k), from what is above.
template <typename Real>
void Mirror(Real* a, int64_t k) {
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < i; ++j) a[i * k + j] = a[j * k + i];
  }
}

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_VECTOR_MATH_H_
