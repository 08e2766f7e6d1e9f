// Successive shortest paths as custom calls of XLA: `gumbel_moe_successive_paths_f32` and `..._f64`.
//
// What they return for every input is said at `solve_matching`, in gumbel_moe/matching/_solve.py.

#include <cstdint>
#include <exception>
#include <new>

#include "match.h"
#include "xla/ffi/api/ffi.h"

namespace gumbel_moe {
namespace {

namespace ffi = xla::ffi;

template <ffi::DataType type>
ffi::Error Call(ffi::Buffer<type, 2> scores, ffi::Buffer<ffi::S32, 1> capacity, ffi::Buffer<type, 1> given,
                ffi::ResultBuffer<ffi::S32, 1> assignment, ffi::ResultBuffer<type, 1> prices,
                ffi::ResultBuffer<type, 0> value, ffi::ResultBuffer<type, 0> gap, ffi::ResultBuffer<ffi::S32, 0> steps,
                ffi::ResultBuffer<type, 2> costs) try {
  const int64_t n = scores.dimensions()[0];
  const int64_t k = scores.dimensions()[1];
  if (n < 1 || k < 1) return ffi::Error::InvalidArgument("no scores");
  Match<ffi::NativeType<type>>(scores.typed_data(), n, k, capacity.typed_data(), given.typed_data(),
                               {assignment->typed_data(), prices->typed_data(), value->typed_data(), gap->typed_data(),
                                steps->typed_data(), costs->typed_data()});
  return ffi::Error::Success();
} catch (const std::bad_alloc&) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "out of memory");  // short enough to need none for itself
} catch (const std::exception& error) {
  return ffi::Error::Internal(error.what());
} catch (...) {
  return ffi::Error::Internal("unknown");
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

XLA_FFI_DEFINE_HANDLER_SYMBOL(gumbel_moe_successive_paths_f32, Call<ffi::F32>, Binding<ffi::F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(gumbel_moe_successive_paths_f64, Call<ffi::F64>, Binding<ffi::F64>());

}  // namespace gumbel_moe
