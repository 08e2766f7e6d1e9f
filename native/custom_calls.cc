// Custom calls of XLA, each as `..._f32` and `..._f64`: `gumbel_moe_successive_paths`, the same with `_several` for
// several experts per datapoint, `gumbel_moe_log_prob`, and `gumbel_moe_log_prob_and_score`.
//
// What they return for every input is said at `solve_matching`, in gumbel_moe/matching/_solve.py, and at
// `matching_log_prob`, in gumbel_moe/distributions/_matching_log_prob.py.

#include <cstdint>
#include <exception>
#include <functional>
#include <new>
#include <utility>

#include "log_prob.h"
#include "match.h"
#include "parallel.h"
#include "xla/ffi/api/ffi.h"

namespace gumbel_moe {
namespace {

namespace ffi = xla::ffi;

// What a call returns, with whatever it throws as an error of XLA's.
template <typename Body>
ffi::Error Guarded(const Body& body) try {
  return body();
} catch (const std::bad_alloc&) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "out of memory");  // short enough to need none for itself
} catch (const std::exception& error) {
  return ffi::Error::Internal(error.what());
} catch (...) {
  return ffi::Error::Internal("unknown");
}

// `rank` is that of the assignment: with 2, (n, each), every datapoint has several experts.
template <ffi::DataType type, size_t rank>
ffi::Error SuccessivePathsCall(ffi::Buffer<type, 2> scores, ffi::Buffer<ffi::S32, 1> capacity,
                               ffi::Buffer<type, 1> given, ffi::ResultBuffer<ffi::S32, rank> assignment,
                               ffi::ResultBuffer<type, 1> prices, ffi::ResultBuffer<type, 0> value,
                               ffi::ResultBuffer<type, 0> gap, ffi::ResultBuffer<ffi::S32, 0> steps,
                               ffi::ResultBuffer<type, 2> costs) {
  return Guarded([&] {
    using Score = ffi::NativeType<type>;
    const int64_t n = scores.dimensions()[0];
    const int64_t k = scores.dimensions()[1];
    const int64_t each = rank == 1 ? 1 : assignment->dimensions()[rank - 1];
    if (n < 1 || k < 1) return ffi::Error::InvalidArgument("no scores");
    if (each < 1 || each > k) return ffi::Error::InvalidArgument("too few or too many experts for a datapoint");
    const auto match = rank == 1 ? Match<Score, OneExpert> : Match<Score, SeveralExperts>;
    match(scores.typed_data(), n, k, each, capacity.typed_data(), given.typed_data(),
          {assignment->typed_data(), prices->typed_data(), value->typed_data(), gap->typed_data(), steps->typed_data(),
           costs->typed_data()});
    return ffi::Error::Success();
  });
}

template <ffi::DataType type, size_t rank>
auto SuccessivePathsBinding() {
  return ffi::Ffi::Bind()
      .Arg<ffi::Buffer<type, 2>>()
      .template Arg<ffi::Buffer<ffi::S32, 1>>()
      .template Arg<ffi::Buffer<type, 1>>()
      .template Ret<ffi::Buffer<ffi::S32, rank>>()
      .template Ret<ffi::Buffer<type, 1>>()
      .template Ret<ffi::Buffer<type, 0>>()
      .template Ret<ffi::Buffer<type, 0>>()
      .template Ret<ffi::Buffer<ffi::S32, 0>>()
      .template Ret<ffi::Buffer<type, 2>>();
}

// The arguments of a batch of log-probabilities; of all but the assignments there are as many, or one for all.
template <ffi::DataType type>
struct LogProbBatch {
  ffi::Buffer<type, 3> logits;          // (batch or 1, n, k)
  ffi::Buffer<ffi::S32, 2> assignment;  // (batch, n)
  ffi::Buffer<ffi::PRED, 2> present;    // (batch or 1, n)
  ffi::Buffer<ffi::S32, 2> capacity;    // (batch or 1, k)
  ffi::Buffer<ffi::U32, 3> rounds;      // (batch or 1, rounds, 2) keys
  ffi::Buffer<ffi::U32, 3> sample;      // (batch or 1, chunks, 2) keys
  double target_error;                  // 0: none

  // `value` and `error` (batch), `score` (batch, n, k) or nothing.
  ffi::Error Compute(ffi::ThreadPool pool, ffi::NativeType<type>* value, ffi::NativeType<type>* error,
                     ffi::NativeType<type>* score) {
    const int64_t batch = assignment.dimensions()[0], n = logits.dimensions()[1], k = logits.dimensions()[2];
    if (n < 1 || k < 1) return ffi::Error::InvalidArgument("no logits");
    const auto fits = [&](auto buffer) {
      const auto sizes = buffer.dimensions();
      return sizes[0] == 1 || sizes[0] == batch;
    };
    const auto round = rounds.dimensions(), chunk = sample.dimensions();
    const bool drawn =
        round[1] >= (k <= price_competition::kMostSearched ? 2 : 1) && round[2] == 2 && chunk[1] >= 1 && chunk[2] == 2;
    if (!fits(logits) || !fits(present) || !fits(capacity) || !fits(rounds) || !fits(sample) || (k > 3 && !drawn)) {
      return ffi::Error::InvalidArgument("arguments of other shapes");
    }
    const auto at = [](const auto& buffer, int64_t problem) {
      const int64_t number = buffer.dimensions()[0];
      const int64_t size = number > 0 ? static_cast<int64_t>(buffer.element_count()) / number : 0;
      return buffer.typed_data() + (number > 1 ? problem * size : 0);
    };
    const Workers workers(pool.num_threads(), [&pool](std::function<void()> task) { pool.Schedule(std::move(task)); });
    const auto one = [&](int64_t problem, const Workers& team) {
      LogProb<ffi::NativeType<type>>(
          at(logits, problem), n, k, at(assignment, problem), at(present, problem), at(capacity, problem),
          {{at(rounds, problem), round[1]}, at(sample, problem), chunk[1], target_error}, team, value + problem,
          error + problem, score == nullptr ? nullptr : score + problem * n * k);
    };
    if (batch == 1) {
      one(0, workers);
    } else {
      workers.For(batch, [&](int64_t problem) { one(problem, Workers()); });
    }
    return ffi::Error::Success();
  }
};

template <ffi::DataType type>
ffi::Error LogProbCall(ffi::ThreadPool pool, ffi::Buffer<type, 3> logits, ffi::Buffer<ffi::S32, 2> assignment,
                       ffi::Buffer<ffi::PRED, 2> present, ffi::Buffer<ffi::S32, 2> capacity,
                       ffi::Buffer<ffi::U32, 3> rounds, ffi::Buffer<ffi::U32, 3> sample,
                       ffi::ResultBuffer<type, 1> value, ffi::ResultBuffer<type, 1> error, double target_error) {
  return Guarded([&] {
    return LogProbBatch<type>{logits, assignment, present, capacity, rounds, sample, target_error}.Compute(
        pool, value->typed_data(), error->typed_data(), nullptr);
  });
}

template <ffi::DataType type>
ffi::Error LogProbAndScoreCall(ffi::ThreadPool pool, ffi::Buffer<type, 3> logits, ffi::Buffer<ffi::S32, 2> assignment,
                               ffi::Buffer<ffi::PRED, 2> present, ffi::Buffer<ffi::S32, 2> capacity,
                               ffi::Buffer<ffi::U32, 3> rounds, ffi::Buffer<ffi::U32, 3> sample,
                               ffi::ResultBuffer<type, 1> value, ffi::ResultBuffer<type, 1> error,
                               ffi::ResultBuffer<type, 3> score, double target_error) {
  return Guarded([&] {
    return LogProbBatch<type>{logits, assignment, present, capacity, rounds, sample, target_error}.Compute(
        pool, value->typed_data(), error->typed_data(), score->typed_data());
  });
}

template <ffi::DataType type>
auto LogProbBinding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .template Arg<ffi::Buffer<type, 3>>()
      .template Arg<ffi::Buffer<ffi::S32, 2>>()
      .template Arg<ffi::Buffer<ffi::PRED, 2>>()
      .template Arg<ffi::Buffer<ffi::S32, 2>>()
      .template Arg<ffi::Buffer<ffi::U32, 3>>()
      .template Arg<ffi::Buffer<ffi::U32, 3>>()
      .template Ret<ffi::Buffer<type, 1>>()
      .template Ret<ffi::Buffer<type, 1>>();
}

template <ffi::DataType type>
auto LogProbAndScoreBinding() {
  return LogProbBinding<type>().template Ret<ffi::Buffer<type, 3>>().template Attr<double>("target_error");
}

}  // namespace

// A process in which XLA refuses a handler, as it does one of another version, has no CPU to compute on any more.
extern "C" const int gumbel_moe_xla_ffi_version[2] = {XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR};

XLA_FFI_DEFINE_HANDLER_SYMBOL(gumbel_moe_successive_paths_f32, (SuccessivePathsCall<ffi::F32, 1>),
                              (SuccessivePathsBinding<ffi::F32, 1>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(gumbel_moe_successive_paths_f64, (SuccessivePathsCall<ffi::F64, 1>),
                              (SuccessivePathsBinding<ffi::F64, 1>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(gumbel_moe_successive_paths_several_f32, (SuccessivePathsCall<ffi::F32, 2>),
                              (SuccessivePathsBinding<ffi::F32, 2>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(gumbel_moe_successive_paths_several_f64, (SuccessivePathsCall<ffi::F64, 2>),
                              (SuccessivePathsBinding<ffi::F64, 2>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(gumbel_moe_log_prob_f32, LogProbCall<ffi::F32>,
                              LogProbBinding<ffi::F32>().Attr<double>("target_error"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(gumbel_moe_log_prob_f64, LogProbCall<ffi::F64>,
                              LogProbBinding<ffi::F64>().Attr<double>("target_error"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(gumbel_moe_log_prob_and_score_f32, LogProbAndScoreCall<ffi::F32>,
                              LogProbAndScoreBinding<ffi::F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(gumbel_moe_log_prob_and_score_f64, LogProbAndScoreCall<ffi::F64>,
                              LogProbAndScoreBinding<ffi::F64>());

}  // namespace gumbel_moe
