// Small problems with extreme numbers through the compiled solver, against brute force; for a build with sanitizers.
//
// .ci/run compiles and runs it.
//
// Half of the problems are in float32, half in float64; half with one expert for every datapoint, half with up to all
// of them. It ends with status 1 at the first wrong answer, which it prints with the number that makes it again:
// `./fuzz_matching 1 NUMBER`.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "match.h"

namespace gumbel_moe {
namespace {

template <typename Score>
struct Problem {
  int64_t n, k, each;  // experts for every datapoint
  std::vector<Score> scores, prices;
  std::vector<int32_t> capacity;
};

int64_t Below(std::mt19937_64& random, int64_t bound) { return random() % bound; }

// Numbers of one kind or several: at both ends of the range, tied, ordinary, forbidden.
template <typename Score>
Score Number(std::mt19937_64& random, int kinds) {
  using Limits = std::numeric_limits<Score>;
  const Score sign = Below(random, 2) ? 1 : -1;
  const Score unit = static_cast<Score>(Below(random, 1 << 20)) / (1 << 20);
  switch (Below(random, kinds)) {
    case 0:
      return sign * static_cast<Score>(Below(random, 3));
    case 1:
      return -Limits::infinity();
    case 2:
      return sign * Limits::max();
    case 3:
      return sign * unit;
    case 4:
      return sign * unit * Limits::max();
    case 5:
      return sign * Limits::denorm_min() * static_cast<Score>(Below(random, 5));
    case 6:
      return sign * Limits::min();
    case 7:
      return -static_cast<Score>(1e30);
    default:
      return sign * std::ldexp(unit, static_cast<int>(Below(random, 2 * Limits::max_exponent)) - Limits::max_exponent);
  }
}

template <typename Score>
Problem<Score> Draw(std::mt19937_64& random, bool several) {
  using Limits = std::numeric_limits<Score>;
  Problem<Score> problem;
  const bool tiny = Below(random, 4) > 0;
  problem.n = 1 + Below(random, tiny ? 6 : 40);
  if (several && Below(random, 50) == 0) problem.n += 200;  // enough for prices that come from a sample
  problem.k = 1 + Below(random, tiny ? 4 : 9);
  problem.each = 1 + (several ? Below(random, problem.k) : 0);
  const int kinds = 1 + static_cast<int>(Below(random, 9));
  for (int64_t at = 0; at < problem.n * problem.k; ++at) problem.scores.push_back(Number<Score>(random, kinds));
  for (int64_t i = 0; i < problem.n; ++i) {  // a datapoint without enough experts makes the rest of the problem idle
    Score* row = &problem.scores[i * problem.k];
    int64_t missing = problem.each - std::count_if(row, row + problem.k, [](Score x) { return std::isfinite(x); });
    if (Below(random, 50) == 0) continue;
    for (int64_t j = 0; missing > 0; ++j) {
      if (std::isfinite(row[j])) continue;
      row[j] = 0;
      --missing;
    }
  }
  if (Below(random, 50) == 0) {
    problem.scores[Below(random, problem.n * problem.k)] = Below(random, 2) ? Limits::quiet_NaN() : Limits::infinity();
  }
  const int64_t even = (problem.n * problem.each + problem.k - 1) / problem.k;
  const int64_t most = Below(random, 2) ? even : problem.n;
  // Capacities drawn for one expert each rarely hold several.
  const int64_t least = problem.each > 1 && Below(random, 3) ? even : 1;
  for (int64_t j = 0; j < problem.k; ++j) {
    const int32_t free = static_cast<int32_t>(Below(random, 3));
    problem.capacity.push_back(static_cast<int32_t>(std::max(1 + Below(random, most), least)) + free);
    if (Below(random, 40) == 0) problem.capacity.back() = std::numeric_limits<int32_t>::max();
    if (Below(random, 200) == 0) problem.capacity.back() = static_cast<int32_t>(Below(random, 3)) - 2;
    problem.prices.push_back(Number<Score>(random, kinds));
  }
  switch (Below(random, 8)) {
    case 0:
      std::fill(problem.prices.begin(), problem.prices.end(), Limits::quiet_NaN());
      break;
    case 1:
      problem.prices[0] = Limits::infinity();
      break;
    case 2:
      std::fill(problem.prices.begin(), problem.prices.end(), Limits::max());
      break;
  }
  return problem;
}

// The best total in extended precision, by trying all assignments; NaN where there is none.
template <typename Score>
long double BestTotal(const Problem<Score>& problem) {
  long double best = std::numeric_limits<long double>::quiet_NaN();
  std::vector<int64_t> load(problem.k);
  // Datapoint i has `chosen` of its experts, all before j.
  const auto extend = [&](const auto& self, int64_t i, int64_t j, int64_t chosen, long double total) -> void {
    if (i == problem.n) {
      if (!(best >= total)) best = total;
      return;
    }
    if (chosen == problem.each) return self(self, i + 1, 0, 0, total);
    for (; j < problem.k; ++j) {
      const Score score = problem.scores[i * problem.k + j];
      if (std::isinf(score) || load[j] >= problem.capacity[j]) continue;
      ++load[j];
      self(self, i, j + 1, chosen + 1, total + score);
      --load[j];
    }
  };
  extend(extend, 0, 0, 0, 0);
  return best;
}

#define REQUIRE(what)                                   \
  if (!(what)) {                                        \
    std::fprintf(stderr, "does not hold: %s\n", #what); \
    return false;                                       \
  }

template <typename Score, template <typename> typename Graph>
bool Holds(const Problem<Score>& problem) {
  using Limits = std::numeric_limits<Score>;
  const int64_t n = problem.n, k = problem.k, each = problem.each;
  std::vector<int32_t> assignment(n * each);
  std::vector<Score> prices(k), costs(k * k);
  Score value, gap;
  int32_t steps;
  Match<Score, Graph>(problem.scores.data(), n, k, each, problem.capacity.data(), problem.prices.data(),
                      {assignment.data(), prices.data(), &value, &gap, &steps, costs.data()});

  const auto unsound = [](Score x) { return !(x < Limits::infinity()); };
  const bool sound = std::none_of(problem.scores.begin(), problem.scores.end(), unsound);
  const bool solved = assignment[0] >= 0;
  if (!solved) {
    REQUIRE(std::all_of(assignment.begin(), assignment.end(), [](int32_t z) { return z == -1; }));
    REQUIRE(std::all_of(prices.begin(), prices.end(), [](Score u) { return std::isnan(u); }));
    REQUIRE(std::isnan(gap));
    REQUIRE(sound ? value == -Limits::infinity() : std::isnan(value));
  }
  long double total = 0, peak = 0;
  for (const Score score : problem.scores) {
    if (std::isfinite(score)) peak = std::max<long double>(peak, std::abs(score));
  }
  if (solved) {
    REQUIRE(sound);
    std::vector<int64_t> load(k);
    for (int64_t at = 0; at < n * each; ++at) {
      const int64_t i = at / each, j = assignment[at];
      REQUIRE(at % each == 0 ? 0 <= j : assignment[at - 1] < j);
      REQUIRE(j < k);
      const Score score = problem.scores[i * k + j];
      REQUIRE(std::isfinite(score));
      REQUIRE(++load[j] <= problem.capacity[j]);
      total += score;
    }
    const Score lowest = *std::min_element(prices.begin(), prices.end());
    REQUIRE(lowest == 0);
    for (int64_t j = 0; j < k; ++j) {
      REQUIRE(std::isfinite(prices[j]));
      REQUIRE(load[j] == std::max(problem.capacity[j], 0) || prices[j] == 0);
    }
    REQUIRE(gap >= 0);
    REQUIRE(std::none_of(costs.begin(), costs.end(), [](Score cost) { return std::isnan(cost); }));
    const long double slack = 4 * n * each * peak * Limits::epsilon() + Limits::min();
    if (std::abs(total) < Limits::max() - slack) {
      REQUIRE(std::abs(value - total) <= slack);
    } else if (std::abs(total) > Limits::max() + slack) {
      REQUIRE(value == std::copysign(Limits::infinity(), static_cast<Score>(total > 0 ? 1 : -1)));
    }
    if (n > 8 || k > 4) return true;
  }
  if (!sound || n > 8 || k > 4) return true;
  const long double best = BestTotal(problem);
  REQUIRE(solved != std::isnan(best));
  if (!solved) return true;
  // As good as double precision can tell numbers apart next to the largest one; and the gap admits what is more.
  const long double unit = peak * std::numeric_limits<double>::epsilon() + n * each * Limits::min();
  REQUIRE(best - total <= 16 * n * each * k * unit);
  REQUIRE(best - total <= static_cast<long double>(gap) + 4 * n * each * unit);
  return true;
}

// Straight into the solver, without the scaling that its results need: nothing may be read or written out of range.
template <template <typename> typename Graph>
void Survive(const Problem<double>& problem) {
  const int64_t n = problem.n, each = problem.each;
  if (Check(problem.scores.data(), n, problem.k, each) != Sanity::kSound) return;
  std::vector<int64_t> places(problem.capacity.begin(), problem.capacity.end());
  int64_t room = 0;
  for (int64_t& place : places) {
    place = std::clamp<int64_t>(place, 0, n + 1);
    room += std::min(place, n);
  }
  if (room < n * each) return;
  SuccessivePaths<double, Graph> search(problem.scores.data(), n, problem.k, each, places.data());
  search.Solve(problem.prices);
  search.Regret(search.Prices());
}

template <template <typename> typename Graph>
bool Passes(int64_t number, bool several) {
  std::mt19937_64 random(number);
  if (number % 2) return Holds<float, Graph>(Draw<float>(random, several));
  const Problem<double> problem = Draw<double>(random, several);
  Survive<Graph>(problem);
  return Holds<double, Graph>(problem);
}

}  // namespace
}  // namespace gumbel_moe

int main(int argc, char** argv) {
  const int64_t problems = argc > 1 ? std::atoll(argv[1]) : 200000;
  const int64_t first = argc > 2 ? std::atoll(argv[2]) : 0;
  for (int64_t number = first; number < first + problems; ++number) {
    const bool several = number % 4 >= 2;
    if (several ? gumbel_moe::Passes<gumbel_moe::SeveralExperts>(number, true)
                : gumbel_moe::Passes<gumbel_moe::OneExpert>(number, false)) {
      continue;
    }
    std::fprintf(stderr, "wrong for problem %lld\n", static_cast<long long>(number));
    return 1;
  }
  std::printf("%lld problems\n", static_cast<long long>(problems));
}
