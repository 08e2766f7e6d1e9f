// Successive shortest paths as custom calls of XLA: `gumbel_moe_successive_paths_f32` and `..._f64`.
//
// What they return for every input is said at `solve_matching`, in gumbel_moe/matching/_solve.py.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <exception>
#include <limits>
#include <vector>

#include "successive_paths.h"
#include "xla/ffi/api/ffi.h"

namespace gumbel_moe {
namespace {

namespace ffi = xla::ffi;

// The given prices, or nothing where they are not finite.
template <typename Score>
std::vector<double> Usable(const Score* prices, int64_t k) {
  const bool finite = std::all_of(prices, prices + k, [](Score price) { return std::isfinite(price); });
  return finite ? std::vector<double>(prices, prices + k) : std::vector<double>();
}

enum class Sanity { kSound, kImpossible, kUnsound };

// Unsound: a NaN or +inf; impossible: a datapoint without an expert, as all are forbidden.
template <typename Score>
Sanity Check(const Score* scores, int64_t n, int64_t k) {
  constexpr Score infinity = std::numeric_limits<Score>::infinity();
  Sanity sanity = Sanity::kSound;
  for (int64_t i = 0; i < n; ++i) {
    const Score* row = scores + i * k;
    int32_t unsound = 0;
    int32_t allowed = 0;
    for (int64_t j = 0; j < k; ++j) {
      unsound |= !(row[j] < infinity);
      allowed |= row[j] > -infinity;
    }
    if (unsound) return Sanity::kUnsound;
    if (!allowed) sanity = Sanity::kImpossible;
  }
  return sanity;
}

template <ffi::DataType type>
ffi::Error Match(ffi::Buffer<type, 2> scores, ffi::Buffer<ffi::S32, 1> capacity, ffi::Buffer<type, 1> given,
                 ffi::ResultBuffer<ffi::S32, 1> assignment, ffi::ResultBuffer<type, 1> prices,
                 ffi::ResultBuffer<type, 0> value, ffi::ResultBuffer<type, 0> gap, ffi::ResultBuffer<ffi::S32, 0> steps,
                 ffi::ResultBuffer<type, 2> costs) try {
  using Score = ffi::NativeType<type>;
  const int64_t n = scores.dimensions()[0];
  const int64_t k = scores.dimensions()[1];
  const Score* s = scores.typed_data();

  std::vector<int64_t> places(k);
  int64_t room = 0;
  for (int64_t j = 0; j < k; ++j) {
    // More than n + 1 places are never told apart: an expert with room for all still has a free place.
    places[j] = std::clamp<int64_t>(capacity.typed_data()[j], 0, n + 1);
    room += places[j];
  }
  const Sanity sanity = Check(s, n, k);
  SuccessivePaths<Score> search(s, n, k, places.data());
  const bool solved = sanity == Sanity::kSound && room >= n && search.Solve(Usable(given.typed_data(), k));
  *steps->typed_data() = static_cast<int32_t>(search.paths());
  if (!solved) {
    constexpr Score nan = std::numeric_limits<Score>::quiet_NaN();
    std::fill_n(assignment->typed_data(), n, -1);
    std::fill_n(prices->typed_data(), k, nan);
    *value->typed_data() = sanity != Sanity::kUnsound ? -std::numeric_limits<Score>::infinity() : nan;
    *gap->typed_data() = nan;
    std::fill_n(costs->typed_data(), k * k, nan);
    return ffi::Error::Success();
  }

  const std::vector<double> optimal = search.Prices();
  const std::vector<Score> rounded(optimal.begin(), optimal.end());
  std::copy(rounded.begin(), rounded.end(), prices->typed_data());
  std::copy(search.assignment().begin(), search.assignment().end(), assignment->typed_data());
  *value->typed_data() = static_cast<Score>(search.Total());
  *gap->typed_data() = static_cast<Score>(search.Regret(rounded));
  for (int64_t p = 0; p < k; ++p) {
    for (int64_t j = 0; j < k; ++j) costs->typed_data()[p * k + j] = static_cast<Score>(search.Cost(p, j));
  }
  return ffi::Error::Success();
} catch (const std::exception& error) {
  return ffi::Error::Internal(error.what());
} catch (...) {
  return ffi::Error::Internal("the compiled solver of the matching failed");
}

template <ffi::DataType type>
auto Binding() {
  return ffi::Ffi::Bind()
      .Arg<ffi::Buffer<type, 2>>()
      .template Arg<ffi::Buffer<ffi::S32, 1>>()
      .template Arg<ffi::Buffer<type, 1>>()
      .template Ret<ffi::Buffer<ffi::S32, 1>>()
      .template Ret<ffi::Buffer<type, 1>>()
      .template Ret<ffi::Buffer<type, 0>>()
      .template Ret<ffi::Buffer<type, 0>>()
      .template Ret<ffi::Buffer<ffi::S32, 0>>()
      .template Ret<ffi::Buffer<type, 2>>();
}

}  // namespace

// A process in which XLA refuses a handler, as it does one of another version, has no CPU to compute on any more.
extern "C" const int gumbel_moe_xla_ffi_version[2] = {XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR};

XLA_FFI_DEFINE_HANDLER_SYMBOL(gumbel_moe_successive_paths_f32, Match<ffi::F32>, Binding<ffi::F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(gumbel_moe_successive_paths_f64, Match<ffi::F64>, Binding<ffi::F64>());

}  // namespace gumbel_moe
