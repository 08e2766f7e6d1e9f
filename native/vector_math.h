// Exponentials, logarithms and matrix products of many numbers at once.
//
// The loops are written so that a compiler makes vector instructions of them; where it can, it makes two versions, and
// the machine that runs them chooses. The sanitizers' own start is too late for that choice.

#ifndef GUMBEL_MOE_VECTOR_MATH_H_
#define GUMBEL_MOE_VECTOR_MATH_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define GUMBEL_MOE_CLONES __attribute__((target_clones("arch=haswell", "default")))
#else
#define GUMBEL_MOE_CLONES
#endif
#define GUMBEL_MOE_INLINE inline __attribute__((always_inline))

namespace gumbel_moe {

template <typename To, typename From>
GUMBEL_MOE_INLINE To Bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// exp(x) to a few units of rounding; 0 where it would not be a normal number, and finite where it would overflow.
GUMBEL_MOE_INLINE double Exp(double x) {
  constexpr double kShift = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer, in the lowest bits
  const double bounded = x > 709 ? 709 : x;
  const double clamped = bounded > -708 ? bounded : -708;  // NaN as well: see below
  const double shifted = clamped * 1.4426950408889634 + kShift;
  const double whole = shifted - kShift;
  const double r = (clamped - whole * 6.93147180369123816490e-01) - whole * 1.90821492927058770002e-10;
  double sum = 1.0 / 479001600;
  sum = sum * r + 1.0 / 39916800;
  sum = sum * r + 1.0 / 3628800;
  sum = sum * r + 1.0 / 362880;
  sum = sum * r + 1.0 / 40320;
  sum = sum * r + 1.0 / 5040;
  sum = sum * r + 1.0 / 720;
  sum = sum * r + 1.0 / 120;
  sum = sum * r + 1.0 / 24;
  sum = sum * r + 1.0 / 6;
  sum = sum * r + 0.5;
  sum = sum * r + 1;
  sum = sum * r + 1;
  const double power = Bits<double>((Bits<uint64_t>(shifted) + 1023) << 52);
  return x < -708 ? 0 : (x != x ? x : sum * power);
}

GUMBEL_MOE_INLINE float Exp(float x) {
  constexpr float kShift = 12582912.0F;  // 1.5 * 2^23
  const float bounded = x > 88 ? 88 : x;
  const float clamped = bounded > -87 ? bounded : -87;
  const float shifted = clamped * 1.44269504F + kShift;
  const float whole = shifted - kShift;
  const float r = (clamped - whole * 0.693359375F) + whole * 2.12194440e-4F;
  float sum = 1.0F / 5040;
  sum = sum * r + 1.0F / 720;
  sum = sum * r + 1.0F / 120;
  sum = sum * r + 1.0F / 24;
  sum = sum * r + 1.0F / 6;
  sum = sum * r + 0.5F;
  sum = sum * r + 1;
  sum = sum * r + 1;
  const float power = Bits<float>((Bits<uint32_t>(shifted) + 127) << 23);
  return x < -87 ? 0 : (x != x ? x : sum * power);
}

// log(x) of a positive normal number, to a few units of rounding.
GUMBEL_MOE_INLINE double Log(double x) {
  const uint64_t bits = Bits<uint64_t>(x);
  // The exponent of x / m, for a mantissa m between the roots of 1/2 and 2.
  const uint64_t biased = (bits + (0x3FF0000000000000ULL - 0x3FE6A09E667F3BCDULL)) >> 52;
  const double m = Bits<double>(bits - ((biased - 1023) << 52));
  const double exponent = Bits<double>(biased | 0x4330000000000000ULL) - (4503599627370496.0 + 1023);
  const double s = (m - 1) / (m + 1);
  const double z = s * s;
  double sum = 1.0 / 21;
  sum = sum * z + 1.0 / 19;
  sum = sum * z + 1.0 / 17;
  sum = sum * z + 1.0 / 15;
  sum = sum * z + 1.0 / 13;
  sum = sum * z + 1.0 / 11;
  sum = sum * z + 1.0 / 9;
  sum = sum * z + 1.0 / 7;
  sum = sum * z + 1.0 / 5;
  sum = sum * z + 1.0 / 3;
  const double small = 2 * s + 2 * s * (sum * z);
  return exponent * 6.93147180369123816490e-01 + (small + exponent * 1.90821492927058770002e-10);
}

GUMBEL_MOE_INLINE float Log(float x) {
  const uint32_t bits = Bits<uint32_t>(x);
  const uint32_t biased = (bits + (0x3F800000U - 0x3F3504F3U)) >> 23;
  const float m = Bits<float>(bits - ((biased - 127) << 23));
  const float exponent = static_cast<float>(static_cast<int32_t>(biased) - 127);
  const float s = (m - 1) / (m + 1);
  const float z = s * s;
  float sum = 1.0F / 9;
  sum = sum * z + 1.0F / 7;
  sum = sum * z + 1.0F / 5;
  sum = sum * z + 1.0F / 3;
  const float small = 2 * s + 2 * s * (sum * z);
  return exponent * 0.693359375F + (small - exponent * 2.12194440e-4F);
}

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

template <typename Real, int kHigh, int kWide>  // a tile of kHigh rows and kWide vectors, in registers
GUMBEL_MOE_INLINE void AddTile(const Product<Real>& p, int64_t i, int64_t j) {
  constexpr int kLength = 32 / sizeof(Real);
  typedef Real Vector __attribute__((vector_size(32)));
  Vector sum[kHigh][kWide] = {};
  const Real* a = p.a + i * p.stride;
  const Real* b = p.b + j;
  for (int64_t r = 0; r < p.rows; ++r) {
    Vector right[kWide];
#pragma GCC unroll 4
    for (int w = 0; w < kWide; ++w) std::memcpy(&right[w], b + w * kLength, sizeof(Vector));
#pragma GCC unroll 4
    for (int h = 0; h < kHigh; ++h) {
      const Real left = a[h * p.stride];
#pragma GCC unroll 4
      for (int w = 0; w < kWide; ++w) sum[h][w] += left * right[w];
    }
    a += p.step;
    b += p.b_row;
  }
#pragma GCC unroll 4
  for (int h = 0; h < kHigh; ++h) {
    Real* c = p.c + (i + h) * p.c_row + j;
#pragma GCC unroll 4
    for (int w = 0; w < kWide; ++w) {
      Vector old;
      std::memcpy(&old, c + w * kLength, sizeof(Vector));
      old += sum[h][w];
      std::memcpy(c + w * kLength, &old, sizeof(Vector));
    }
  }
}

template <typename Real>
GUMBEL_MOE_INLINE void AddProductBody(const Product<Real>& p, int64_t ca, int64_t cb, bool upper) {
  constexpr int kLength = 32 / sizeof(Real);
  int64_t j = 0;
  const auto columns = [&](auto wide) {
    constexpr int kWide = decltype(wide)::value;
    for (; j + kWide * kLength <= cb; j += kWide * kLength) {
      const int64_t high = upper && j + kWide * kLength < ca ? j + kWide * kLength : ca;
      int64_t i = 0;
      for (; i + 4 <= high; i += 4) AddTile<Real, 4, kWide>(p, i, j);
      for (; i < high; ++i) AddTile<Real, 1, kWide>(p, i, j);
    }
  };
  columns(std::integral_constant<int, 2>());
  columns(std::integral_constant<int, 1>());
  for (; j < cb; ++j) {
    for (int64_t i = 0; i < ca; ++i) {
      Real sum = 0;
      for (int64_t r = 0; r < p.rows; ++r) sum += p.a[r * p.step + i * p.stride] * p.b[r * p.b_row + j];
      p.c[i * p.c_row + j] += sum;
    }
  }
}

GUMBEL_MOE_CLONES inline void AddProduct(const Product<float>& p, int64_t ca, int64_t cb, bool upper = false) {
  AddProductBody(p, ca, cb, upper);
}
GUMBEL_MOE_CLONES inline void AddProduct(const Product<double>& p, int64_t ca, int64_t cb, bool upper = false) {
  AddProductBody(p, ca, cb, upper);
}

// What is below the diagonal of a symmetric (k, k), from what is above.
template <typename Real>
void Mirror(Real* a, int64_t k) {
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < i; ++j) a[i * k + j] = a[j * k + i];
  }
}

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_VECTOR_MATH_H_
