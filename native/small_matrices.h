// Factors, inverses and eigenvectors of matrices with one row and one column for each expert, in double precision.

#ifndef GUMBEL_MOE_SMALL_MATRICES_H_
#define GUMBEL_MOE_SMALL_MATRICES_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace gumbel_moe {

using Vector = std::vector<double>;
using Matrix = std::vector<double>;  // (k, k), rows one after the other

inline Matrix Identity(int64_t k, double diagonal = 1) {
  Matrix eye(k * k);
  for (int64_t i = 0; i < k; ++i) eye[i * k + i] = diagonal;
  return eye;
}

inline bool AllFinite(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double x) { return std::isfinite(x); });
}

// a b, and a^T b.
inline Matrix Times(const Matrix& a, const Matrix& b, int64_t k, bool transposed = false) {
  Matrix c(k * k);
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t l = 0; l < k; ++l) {
      const double left = transposed ? a[l * k + i] : a[i * k + l];
      if (left == 0) continue;
      for (int64_t j = 0; j < k; ++j) c[i * k + j] += left * b[l * k + j];
    }
  }
  return c;
}

inline Vector Apply(const Matrix& a, const Vector& x, bool transposed = false) {
  const int64_t k = x.size();
  Vector y(k);
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < k; ++j) y[transposed ? j : i] += a[i * k + j] * x[transposed ? i : j];
  }
  return y;
}

// Whether a symmetric matrix, of which the lower half is read, is positive definite; then its lower factor is there.
inline bool Cholesky(const Matrix& a, int64_t k, Matrix& factor) {
  factor.assign(k * k, 0);
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double rest = a[i * k + j];
      for (int64_t l = 0; l < j; ++l) rest -= factor[i * k + l] * factor[j * k + l];
      if (j < i) {
        factor[i * k + j] = rest / factor[j * k + j];
      } else if (rest > 0 && std::isfinite(rest)) {
        factor[i * k + i] = std::sqrt(rest);
      } else {
        return false;
      }
    }
  }
  return true;
}

// The solution of a x = b for the lower factor of `a`.
inline Vector SolveFactored(const Matrix& factor, Vector x) {
  const int64_t k = x.size();
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t l = 0; l < i; ++l) x[i] -= factor[i * k + l] * x[l];
    x[i] /= factor[i * k + i];
  }
  for (int64_t i = k - 1; i >= 0; --i) {
    for (int64_t l = i + 1; l < k; ++l) x[i] -= factor[l * k + i] * x[l];
    x[i] /= factor[i * k + i];
  }
  return x;
}

// The inverse, by elimination with row exchanges, and the logarithm of the determinant's magnitude.
inline Matrix Inverse(Matrix a, int64_t k, double& log_det) {
  Matrix inverse = Identity(k);
  log_det = 0;
  for (int64_t c = 0; c < k; ++c) {
    int64_t pivot = c;
    for (int64_t i = c + 1; i < k; ++i) {
      if (std::abs(a[i * k + c]) > std::abs(a[pivot * k + c])) pivot = i;
    }
    if (pivot != c) {
      std::swap_ranges(&a[c * k], &a[c * k] + k, &a[pivot * k]);
      std::swap_ranges(&inverse[c * k], &inverse[c * k] + k, &inverse[pivot * k]);
    }
    const double scale = 1 / a[c * k + c];
    log_det += std::log(std::abs(a[c * k + c]));
    for (int64_t j = c; j < k; ++j) a[c * k + j] *= scale;
    for (int64_t j = 0; j < k; ++j) inverse[c * k + j] *= scale;
    for (int64_t i = 0; i < k; ++i) {
      const double factor = a[i * k + c];
      if (i == c || factor == 0) continue;
      for (int64_t j = c; j < k; ++j) a[i * k + j] -= factor * a[c * k + j];
      for (int64_t j = 0; j < k; ++j) inverse[i * k + j] -= factor * inverse[c * k + j];
    }
  }
  return inverse;
}

// Eigenvalues, ascending, and eigenvectors, in columns, of a symmetric matrix: Jacobi's method, for which those met
// here are nearly diagonal. Of both signs of a vector, that with a positive largest entry.
inline void Eigen(Matrix a, int64_t k, Vector& values, Matrix& vectors) {
  constexpr int kSweeps = 30;
  Matrix rows = Identity(k);  // eigenvectors as rows
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    bool rotated = false;
    for (int64_t p = 0; p < k; ++p) {
      for (int64_t q = p + 1; q < k; ++q) {
        const double off = a[p * k + q];
        const double gap = a[q * k + q] - a[p * k + p];
        const double size = std::abs(a[p * k + p]) + std::abs(a[q * k + q]);
        if (!(std::abs(off) > 1e-17 * size)) continue;
        rotated = true;
        const double ratio = gap / (2 * off);
        const double t = std::copysign(1.0, ratio) / (std::abs(ratio) + std::hypot(ratio, 1.0));
        const double cosine = 1 / std::hypot(t, 1.0), sine = t * cosine;
        const auto turn = [cosine, sine](double* x, double* y, int64_t number) {
          for (int64_t j = 0; j < number; ++j) {
            const double old = x[j];
            x[j] = cosine * old - sine * y[j];
            y[j] = sine * old + cosine * y[j];
          }
        };
        turn(&a[p * k], &a[q * k], k);
        for (int64_t i = 0; i < k; ++i) {
          const double old = a[i * k + p];
          a[i * k + p] = cosine * old - sine * a[i * k + q];
          a[i * k + q] = sine * old + cosine * a[i * k + q];
        }
        a[p * k + q] = a[q * k + p] = 0;
        turn(&rows[p * k], &rows[q * k], k);
      }
    }
    if (!rotated) break;
  }
  std::vector<int64_t> order(k);
  for (int64_t i = 0; i < k; ++i) order[i] = i;
  const auto key = [&](int64_t i) {  // NaN would make no order
    return std::isnan(a[i * k + i]) ? std::numeric_limits<double>::infinity() : a[i * k + i];
  };
  std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return key(i) < key(j); });
  values.resize(k);
  vectors.resize(k * k);
  for (int64_t c = 0; c < k; ++c) {
    const double* row = &rows[order[c] * k];
    const double* top = std::max_element(row, row + k, [](double x, double y) { return std::abs(x) < std::abs(y); });
    const double sign = *top < 0 ? -1 : 1;
    values[c] = a[order[c] * k + order[c]];
    for (int64_t i = 0; i < k; ++i) vectors[i * k + c] = sign * row[i];
  }
}

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_SMALL_MATRICES_H_
