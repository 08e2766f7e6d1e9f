// Independent pieces of work, spread over the threads of a pool.
//
// What a piece computes may not depend on who computes it: results are the same bits for any number of threads.

#ifndef GUMBEL_MOE_PARALLEL_H_
#define GUMBEL_MOE_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

namespace gumbel_moe {

class Workers {
 public:
  using Schedule = std::function<void(std::function<void()>)>;

  Workers() = default;  // the caller alone
  // `schedule` hands a task to one of `threads` threads, now or later.
  Workers(int64_t threads, Schedule schedule) : threads_(threads), schedule_(std::move(schedule)) {}

  // `piece(0)` to `piece(count - 1)`, in any order. The caller works, too, and waits for nobody but threads that are at
  // work on a piece, so that a pool of which all threads wait like this gets on. Pieces call no `For` of their own.
  // What a piece throws is thrown once all are done; fewer threads work where one cannot be scheduled.
  void For(int64_t count, const std::function<void(int64_t)>& piece) const {
    const int64_t helpers = std::min(threads_, count) - 1;
    if (helpers < 1) {
      for (int64_t at = 0; at < count; ++at) piece(at);
      return;
    }
    const auto state = std::make_shared<State>();
    state->count = count;
    state->piece = &piece;
    try {
      for (int64_t at = 0; at < helpers; ++at) schedule_([state] { state->Work(); });
    } catch (...) {  // those that are at work use the piece, which would be gone: the caller does the rest
    }
    state->Work();
    std::unique_lock<std::mutex> lock(state->mutex);
    state->finished.wait(lock, [&] { return state->done == count; });
    if (state->error) std::rethrow_exception(state->error);
  }

 private:
  struct State {
    // A task that comes late finds nothing left to do, and does not look at the piece, which is gone by then.
    void Work() {
      for (int64_t at = next.fetch_add(1); at < count; at = next.fetch_add(1)) {
        std::exception_ptr thrown;
        try {
          (*piece)(at);
        } catch (...) {
          thrown = std::current_exception();
        }
        const std::lock_guard<std::mutex> lock(mutex);
        if (thrown && !error) error = thrown;
        if (++done == count) finished.notify_all();
      }
    }

    int64_t count = 0;
    const std::function<void(int64_t)>* piece = nullptr;
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::condition_variable finished;
    int64_t done = 0;
    std::exception_ptr error;
  };

  int64_t threads_ = 1;
  Schedule schedule_;
};

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_PARALLEL_H_
