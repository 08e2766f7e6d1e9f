// Small problems with extreme numbers through the compiled log-probability; for a build with sanitizers.
//
// .ci/run compiles and runs it.
//
// Half of the problems are in float32, half in float64. Results have to make sense: a value of at most 0 but for its
// error, -inf where the assignment is impossible, NaN for logits that are none; scores that are finite, and add up to 0
// over the experts of a datapoint. The value of all at once, and the same from threads, has to be the same. It ends
// with status 1 at the first wrong answer, which it prints with the number that makes it again: `./fuzz_log_prob 1
// NUMBER`.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <thread>
#include <vector>

#include "log_prob.h"
#include "parallel.h"

namespace gumbel_moe {
namespace {

template <typename Score>
struct Problem {
  int64_t n, k;
  std::vector<Score> logits;
  std::vector<int32_t> assignment, capacity;
  std::unique_ptr<bool[]> present;
  How how;
};

int64_t Below(std::mt19937_64& random, int64_t bound) { return random() % bound; }

// Numbers of one kind or several: ordinary, sharp, forbidden, and at both ends of the range.
template <typename Score>
Score Number(std::mt19937_64& random, int kinds) {
  using Limits = std::numeric_limits<Score>;
  const Score sign = Below(random, 2) ? 1 : -1;
  const Score unit = static_cast<Score>(Below(random, 1 << 20)) / (1 << 20);
  switch (Below(random, kinds)) {
    case 0:
      return sign * unit;
    case 1:
      return sign * static_cast<Score>(Below(random, 3));
    case 2:
      return sign * 30 * unit;
    case 3:
      return -Limits::infinity();
    case 4:
      return sign * 1000 * unit;
    case 5:
      return -static_cast<Score>(1e9);
    case 6:
      return sign * Limits::max();
    case 7:
      return sign * Limits::denorm_min() * static_cast<Score>(Below(random, 5));
    default:
      return sign * std::ldexp(unit, static_cast<int>(Below(random, 2 * Limits::max_exponent)) - Limits::max_exponent);
  }
}

template <typename Score>
Problem<Score> Draw(std::mt19937_64& random) {
  using Limits = std::numeric_limits<Score>;
  Problem<Score> problem;
  const bool tiny = Below(random, 4) > 0;
  problem.n = 1 + Below(random, tiny ? 6 : 40);
  problem.k = 1 + Below(random, tiny ? 5 : 13);
  const int64_t n = problem.n, k = problem.k;
  const int kinds = 1 + static_cast<int>(Below(random, 9));
  for (int64_t at = 0; at < n * k; ++at) problem.logits.push_back(Number<Score>(random, kinds));
  if (Below(random, 50) == 0) {
    problem.logits[Below(random, n * k)] = Below(random, 2) ? Limits::quiet_NaN() : Limits::infinity();
  }
  problem.present.reset(new bool[n]);
  std::vector<int32_t> load(k);
  const bool masked = Below(random, 4) == 0;
  for (int64_t i = 0; i < n; ++i) {
    problem.present[i] = !masked || Below(random, 3) > 0;
    int64_t z = Below(random, 3) ? i % k : Below(random, k);
    Score& own = problem.logits[i * k + z];
    if (Below(random, 100) && own == -Limits::infinity()) own = 0;  // most assignments are possible
    if (!problem.present[i]) z = k;
    if (Below(random, 500) == 0) z = static_cast<int64_t>(random());
    problem.assignment.push_back(static_cast<int32_t>(z));
    if (z >= 0 && z < k) ++load[z];
  }
  for (int64_t p = 0; p < k; ++p) {
    problem.capacity.push_back(load[p] + (Below(random, 3) ? 0 : static_cast<int32_t>(Below(random, 3))));
    if (Below(random, 40) == 0) problem.capacity.back() = std::numeric_limits<int32_t>::max();
    if (Below(random, 200) == 0) problem.capacity.back() = static_cast<int32_t>(Below(random, 3)) - 2;
  }
  const Key key{{static_cast<uint32_t>(random()), static_cast<uint32_t>(random())}};
  problem.how = {key, 1 + Below(random, 5), Below(random, 3) ? 0 : 0.1, Below(random, 3) == 0};
  return problem;
}

#define REQUIRE(what)                                   \
  if (!(what)) {                                        \
    std::fprintf(stderr, "does not hold: " #what "\n"); \
    return false;                                       \
  }

template <typename Score>
struct Result {
  Score value, error;
  std::vector<Score> score;
};

template <typename Score>
Result<Score> Solve(const Problem<Score>& problem, const Workers& workers, bool scored) {
  const int64_t n = problem.n, k = problem.k;
  Result<Score> result{0, 0, std::vector<Score>(scored ? n * k : 0, Score(7))};
  LogProb(problem.logits.data(), n, k, problem.assignment.data(), problem.present.get(), problem.capacity.data(),
          problem.how, workers, &result.value, &result.error, scored ? result.score.data() : nullptr);
  return result;
}

template <typename Score>
bool Same(Score a, Score b) {
  return a == b || (std::isnan(a) && std::isnan(b));
}

template <typename Score>
bool Holds(const Problem<Score>& problem, bool threaded) {
  using Limits = std::numeric_limits<Score>;
  const int64_t n = problem.n, k = problem.k;
  const Result<Score> result = Solve(problem, Workers(), true);
  const auto unsound = [](Score x) { return !(x < Limits::infinity()); };
  bool sound = std::none_of(problem.logits.begin(), problem.logits.end(), unsound), possible = true;
  std::vector<int64_t> load(k);
  for (int64_t i = 0; i < n; ++i) {
    const Score* row = &problem.logits[i * k];
    sound &= std::any_of(row, row + k, [](Score x) { return x > -Limits::infinity(); });
    const int64_t z = problem.assignment[i];
    if (!problem.present[i]) {
      possible &= z == k;
    } else if (z < 0 || z >= k) {
      possible = false;
    } else {
      possible &= row[z] > -Limits::infinity();
      ++load[z];
    }
  }
  for (int64_t p = 0; p < k; ++p) possible &= load[p] <= problem.capacity[p];
  if (!sound) {
    REQUIRE(std::isnan(result.value) && std::isnan(result.error));
  } else if (!possible) {
    REQUIRE(result.value == -Limits::infinity() && result.error == 0);
  } else if (!std::isnan(result.error) && result.value > -Limits::infinity()) {
    REQUIRE(result.error > 0);
    REQUIRE(result.value <= 8 * result.error || result.error > 0.3);
  }
  for (int64_t i = 0; i < n; ++i) {
    Score sum = 0;
    for (int64_t j = 0; j < k; ++j) {
      const Score slope = result.score[i * k + j];
      REQUIRE(std::isfinite(slope));
      REQUIRE(problem.logits[i * k + j] != -Limits::infinity() || slope == 0);
      sum += slope;
    }
    REQUIRE(std::abs(sum) <= 1e-3 || !(result.value > -1e5));  // there differences of prices are rounded away
  }
  const Result<Score> alone = Solve(problem, Workers(), false);
  REQUIRE(Same(alone.value, result.value) && Same(alone.error, result.error));
  if (!threaded) return true;
  std::vector<std::thread> threads;
  int64_t asked = 0;
  const Workers team(3, [&](std::function<void()> task) {
    if (++asked % 5 == 0) throw std::bad_alloc();  // fewer threads do as well
    threads.emplace_back(std::move(task));
  });
  const Result<Score> together = Solve(problem, team, true);
  for (std::thread& thread : threads) thread.join();
  REQUIRE(Same(together.value, result.value) && together.score == result.score);
  return true;
}

// The running error is that of all pairs, to the rounding that the stopping rule allows for.
bool RunningErrorHolds(std::mt19937_64& random) {
  price_proposal::RunningError running;
  std::vector<Pair> pairs;
  const double scale = std::ldexp(1.0, static_cast<int>(Below(random, 24)) - 12);
  const auto number = [&] { return Below(random, 9) ? Number<double>(random, 2) * scale : Number<double>(random, 5); };
  for (int64_t left = 1 + Below(random, 300); left > 0; --left) {
    pairs.push_back({number(), number()});
    running.Add(pairs.back());
    const double error = price_proposal::LogMean(pairs).error;
    REQUIRE(!(std::abs(running.Value() - error) > 1e-5 * error) && std::isnan(running.Value()) == std::isnan(error));
  }
  return true;
}

bool Passes(int64_t number) {
  std::mt19937_64 random(number);
  if (!RunningErrorHolds(random)) return false;
  const bool threaded = number % 40 < 2;
  return number % 2 ? Holds(Draw<float>(random), threaded) : Holds(Draw<double>(random), threaded);
}

}  // namespace
}  // namespace gumbel_moe

int main(int argc, char** argv) {
  const int64_t problems = argc > 1 ? std::atoll(argv[1]) : 400;
  const int64_t first = argc > 2 ? std::atoll(argv[2]) : 0;
  for (int64_t number = first; number < first + problems; ++number) {
    if (gumbel_moe::Passes(number)) continue;
    std::fprintf(stderr, "wrong for problem %lld\n", static_cast<long long>(number));
    return 1;
  }
  std::printf("%lld problems\n", static_cast<long long>(problems));
}
