// The loops in which nearly all time goes; no header of its own, but included by vector_math.h once for each
// instruction set, with GUMBEL_MOE_TARGET the attribute that asks for it and every function in a namespace of its own.

#define GUMBEL_MOE_INLINE GUMBEL_MOE_TARGET inline __attribute__((always_inline))

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
  const double result = x == x ? sum * power : x;
  return x < -708 ? 0 : result;
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
  const float result = x == x ? sum * power : x;
  return x < -87 ? 0 : result;
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

// Columns from j on, as many tiles as fit; returns the first column that is left.
template <typename Real, int kWide>
GUMBEL_MOE_INLINE int64_t AddColumns(const Product<Real>& p, int64_t ca, int64_t cb, bool upper, int64_t j) {
  constexpr int64_t kLength = kWide * 32 / sizeof(Real);
  for (; j + kLength <= cb; j += kLength) {
    const int64_t high = upper && j + kLength < ca ? j + kLength : ca;
    int64_t i = 0;
    for (; i + 4 <= high; i += 4) AddTile<Real, 4, kWide>(p, i, j);
    for (; i < high; ++i) AddTile<Real, 1, kWide>(p, i, j);
  }
  return j;
}

template <typename Real>
GUMBEL_MOE_INLINE void AddProductBody(const Product<Real>& p, int64_t ca, int64_t cb, bool upper) {
  int64_t j = AddColumns<Real, 2>(p, ca, cb, upper, 0);
  j = AddColumns<Real, 1>(p, ca, cb, upper, j);
  for (; j < cb; ++j) {
    for (int64_t i = 0; i < ca; ++i) {
      Real sum = 0;
      for (int64_t r = 0; r < p.rows; ++r) sum += p.a[r * p.step + i * p.stride] * p.b[r * p.b_row + j];
      p.c[i * p.c_row + j] += sum;
    }
  }
}

GUMBEL_MOE_TARGET inline void AddProduct(const Product<float>& p, int64_t ca, int64_t cb, bool upper) {
  AddProductBody(p, ca, cb, upper);
}
GUMBEL_MOE_TARGET inline void AddProduct(const Product<double>& p, int64_t ca, int64_t cb, bool upper) {
  AddProductBody(p, ca, cb, upper);
}

// The softmax of rows over their temperature, less prices; and the sum of log-probabilities of the expert `own`.
template <typename Real>
GUMBEL_MOE_INLINE double SoftmaxBody(const Real* rows, int64_t number, int64_t k, Real cooling, const Real* prices,
                                     int64_t own, Real* probs) {
  double log_likelihood = 0;
  for (int64_t i = 0; i < number; ++i) {
    const Real* row = rows + i * k;
    Real* p = probs + i * k;
    Real top = -std::numeric_limits<Real>::infinity();
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < k; ++j) {
      p[j] = row[j] * cooling - prices[j];
      top = p[j] > top ? p[j] : top;
    }
    const Real chosen = p[own] - top;
    Real total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < k; ++j) {
      p[j] = Exp(p[j] - top);
      total += p[j];
    }
    const Real scale = 1 / total;
#pragma omp simd
    for (int64_t j = 0; j < k; ++j) p[j] *= scale;
    log_likelihood += static_cast<double>(chosen - Log(total));
  }
  return log_likelihood;
}

GUMBEL_MOE_TARGET inline double Softmax(const float* rows, int64_t number, int64_t k, float cooling,
                                        const float* prices, int64_t own, float* probs) {
  return SoftmaxBody(rows, number, k, cooling, prices, own, probs);
}
GUMBEL_MOE_TARGET inline double Softmax(const double* rows, int64_t number, int64_t k, double cooling,
                                        const double* prices, int64_t own, double* probs) {
  return SoftmaxBody(rows, number, k, cooling, prices, own, probs);
}

// The determinant of `diag(row sums) - rates` on some experts, by eliminating one after the other as in a Markov chain.
//
// Every term is positive, so that nothing cancels: W. K. Grassmann, M. I. Taksar, D. P. Heyman, *Regenerative Analysis
// and Steady State Distributions for Markov Chains*, Operations Research 33 (1985). `rates` (number, number, width) are
// between them, `away` (number, width) those to all others, and above 0.
template <typename Real, int kWidth>
GUMBEL_MOE_INLINE void EliminateBody(int64_t number, Real* rates, Real* away, Real* leaving, Real* log_det) {
  for (int d = 0; d < kWidth; ++d) log_det[d] = 0;
  for (int64_t p = 0; p < number; ++p) {
    const Real* row = rates + p * number * kWidth;
    Real sum[kWidth], inverse[kWidth];
#pragma omp simd
    for (int d = 0; d < kWidth; ++d) sum[d] = away[p * kWidth + d];
    for (int64_t j = p + 1; j < number; ++j) {
#pragma omp simd
      for (int d = 0; d < kWidth; ++d) sum[d] += row[j * kWidth + d];
    }
#pragma omp simd
    for (int d = 0; d < kWidth; ++d) {
      leaving[p * kWidth + d] = sum[d];
      inverse[d] = 1 / sum[d];
      log_det[d] += Log(sum[d]) + (sum[d] - sum[d]);  // what is not finite stays so
    }
    for (int64_t q = p + 1; q < number; ++q) {
      Real* other = rates + q * number * kWidth;
      Real share[kWidth];
#pragma omp simd
      for (int d = 0; d < kWidth; ++d) {
        share[d] = other[p * kWidth + d] * inverse[d];
        away[q * kWidth + d] += share[d] * away[p * kWidth + d];
      }
      for (int64_t j = p + 1; j < number; ++j) {
#pragma omp simd
        for (int d = 0; d < kWidth; ++d) other[j * kWidth + d] += share[d] * row[j * kWidth + d];
      }
    }
  }
}

// From what the elimination has left: the derivatives of the logarithm of the determinant in `rates` and in `away`.
template <typename Real, int kWidth>
GUMBEL_MOE_INLINE void AdjointBody(int64_t number, const Real* rates, const Real* away, const Real* leaving,
                                   Real* by_rates, Real* by_away) {
  std::fill_n(by_rates, number * number * kWidth, Real(0));
  std::fill_n(by_away, number * kWidth, Real(0));
  for (int64_t p = number - 1; p >= 0; --p) {
    const Real* row = rates + p * number * kWidth;
    Real* by_row = by_rates + p * number * kWidth;
    Real inverse[kWidth], by_leaving[kWidth];
#pragma omp simd
    for (int d = 0; d < kWidth; ++d) by_leaving[d] = inverse[d] = 1 / leaving[p * kWidth + d];
    for (int64_t q = p + 1; q < number; ++q) {
      const Real* other = rates + q * number * kWidth;
      Real* by_other = by_rates + q * number * kWidth;
      Real share[kWidth], by_share[kWidth];
#pragma omp simd
      for (int d = 0; d < kWidth; ++d) {
        share[d] = other[p * kWidth + d] * inverse[d];
        by_share[d] = by_away[q * kWidth + d] * away[p * kWidth + d];
        by_away[p * kWidth + d] += share[d] * by_away[q * kWidth + d];
      }
      for (int64_t j = p + 1; j < number; ++j) {
#pragma omp simd
        for (int d = 0; d < kWidth; ++d) {
          by_share[d] += by_other[j * kWidth + d] * row[j * kWidth + d];
          by_row[j * kWidth + d] += share[d] * by_other[j * kWidth + d];
        }
      }
#pragma omp simd
      for (int d = 0; d < kWidth; ++d) {
        by_other[p * kWidth + d] = by_share[d] * inverse[d];
        by_leaving[d] -= by_share[d] * share[d] * inverse[d];
      }
    }
    for (int64_t j = p + 1; j < number; ++j) {
#pragma omp simd
      for (int d = 0; d < kWidth; ++d) by_row[j * kWidth + d] += by_leaving[d];
    }
#pragma omp simd
    for (int d = 0; d < kWidth; ++d) by_away[p * kWidth + d] += by_leaving[d];
  }
}

// `exp(least - shift)` (k, lanes), and 1 in lanes that are `far`.
template <typename Real>
GUMBEL_MOE_INLINE void FactorsBody(int64_t k, const double* shift, const double* least, const double* far,
                                   Real* factor) {
  for (int64_t j = 0; j < k; ++j) {
#pragma omp simd
    for (int64_t d = 0; d < kLanes; ++d) {
      const double power = Exp(least[d] - shift[j * kLanes + d]);
      factor[j * kLanes + d] = static_cast<Real>(far[d] != 0 ? 1 : power);
    }
  }
}

// `sum += a b`, (lanes).
template <typename Real>
GUMBEL_MOE_INLINE void AddScaledBody(const Real* a, const Real* b, Real* sum) {
#pragma omp simd
  for (int64_t d = 0; d < kLanes; ++d) sum[d] += a[d] * b[d];
}

// From inverse norms and `sum_l c_pl f_l p_il` (rows, lanes): `w (1 + both multiplied)` times the inverse, and `-w`
// times it. Lanes without a weight may hold anything, and become 0.
template <typename Real>
GUMBEL_MOE_INLINE void ShareOutBody(int64_t rows, const Real* weight, Real* inverse, Real* mean) {
  for (int64_t i = 0; i < rows; ++i) {
    Real* of = inverse + i * kLanes;
    Real* to = mean + i * kLanes;
#pragma omp simd
    for (int64_t d = 0; d < kLanes; ++d) {
      const bool used = weight[d] != 0;
      const Real one = used ? of[d] : 0;
      const Real part = weight[d] * one;
      to[d] = part * (1 + (used ? to[d] : 0) * one);
      of[d] = -part;
    }
  }
}

// The logarithm of the sum of exponentials of (k), of which one at least is finite and none is infinite.
GUMBEL_MOE_TARGET inline double LogSum(const double* x, int64_t k) {
  double top = -std::numeric_limits<double>::infinity(), total = 0;
#pragma omp simd reduction(max : top)
  for (int64_t j = 0; j < k; ++j) top = x[j] > top ? x[j] : top;
#pragma omp simd reduction(+ : total)
  for (int64_t j = 0; j < k; ++j) total += Exp(x[j] - top);
  return top + Log(total);
}

// `exp(x - less)` (k).
template <typename Real>
GUMBEL_MOE_INLINE void ExponentialsBody(const double* x, double less, int64_t k, Real* out) {
#pragma omp simd
  for (int64_t j = 0; j < k; ++j) out[j] = static_cast<Real>(Exp(x[j] - less));
}

// `mean + scale w` bent by a hyperbolic sine of rate `rate` around `tilt`, and the logarithm of the slope of that,
// added to what is there; beyond the exponential's range, infinite.
GUMBEL_MOE_TARGET inline void Bent(const double* w, double mean, double scale, double rate, double tilt, double* value,
                                   double* log_slope) {
  const double sinh_tilt = std::sinh(tilt), cosh_tilt = std::cosh(tilt);
  const double inverse = 1 / (rate * cosh_tilt), steep = scale / cosh_tilt;
#pragma omp simd
  for (int64_t d = 0; d < kLanes; ++d) {
    const double y = rate * (mean + scale * w[d]) + tilt;
    const double growth = Exp(y < 0 ? -y : y);
    const double up = 0.5 * growth, down = 0.5 / growth;
    const double bent = ((y < 0 ? down - up : up - down) - sinh_tilt) * inverse;
    const double slope = Log(steep * (up + down));
    const bool within = y > -700 && y < 700;
    value[d] = within ? bent : std::numeric_limits<double>::infinity();
    log_slope[d] += slope;
  }
}

#define GUMBEL_MOE_FOR_BOTH(Real)                                                                                    \
  GUMBEL_MOE_TARGET inline void Eliminate(int64_t number, Real* rates, Real* away, Real* leaving, Real* log_det) {   \
    EliminateBody<Real, kLanes>(number, rates, away, leaving, log_det);                                              \
  }                                                                                                                  \
  GUMBEL_MOE_TARGET inline void Adjoint(int64_t number, const Real* rates, const Real* away, const Real* leaving,    \
                                        Real* by_rates, Real* by_away) {                                             \
    AdjointBody<Real, kLanes>(number, rates, away, leaving, by_rates, by_away);                                      \
  }                                                                                                                  \
  GUMBEL_MOE_TARGET inline void Factors(int64_t k, const double* shift, const double* least, const double* far,      \
                                        Real* factor) {                                                              \
    FactorsBody(k, shift, least, far, factor);                                                                       \
  }                                                                                                                  \
  GUMBEL_MOE_TARGET inline void Exponentials(const double* x, double less, int64_t k, Real* out) {                   \
    ExponentialsBody(x, less, k, out);                                                                               \
  }                                                                                                                  \
  GUMBEL_MOE_TARGET inline void AddScaled(const Real* a, const Real* b, Real* sum) { AddScaledBody(a, b, sum); }     \
  GUMBEL_MOE_TARGET inline void ShareOut(int64_t rows, const Real* weight, Real* inverse, Real* mean) {              \
    ShareOutBody(rows, weight, inverse, mean);                                                                       \
  }                                                                                                                  \
  /* Norms (rows, lanes) to their inverses; the sum of their logarithms, but for lanes in which one is too small. */ \
  GUMBEL_MOE_TARGET inline void Invert(int64_t rows, Real least, Real* norm, double* log_sum, Real* smallest) {      \
    for (int64_t i = 0; i < rows; ++i) {                                                                             \
      Real* row = norm + i * kLanes;                                                                                 \
      Real logs[kLanes];                                                                                             \
      _Pragma("omp simd") for (int64_t d = 0; d < kLanes; ++d) {                                                     \
        smallest[d] = row[d] > smallest[d] ? smallest[d] : row[d]; /* NaN as well */                                 \
        const Real within = row[d] > least ? row[d] : 1;                                                             \
        logs[d] = Log(within);                                                                                       \
        row[d] = 1 / within;                                                                                         \
      }                                                                                                              \
      _Pragma("omp simd") for (int64_t d = 0; d < kLanes; ++d) log_sum[d] += static_cast<double>(logs[d]);           \
    }                                                                                                                \
  }
GUMBEL_MOE_FOR_BOTH(float)
GUMBEL_MOE_FOR_BOTH(double)
#undef GUMBEL_MOE_FOR_BOTH

#undef GUMBEL_MOE_INLINE
