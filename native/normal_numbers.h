// The normal numbers that `jax.random.normal` draws with a key of JAX's default generator, each by its place.
//
// Bits are those of Threefry-2x32 with 20 rounds, at the place as counter: J. K. Salmon, M. A. Moraes, R. O. Dror, D.
// E. Shaw, *Parallel Random Numbers: As Easy as 1, 2, 3*, SC11. They become uniform in (-1, 1), and normal by the
// inverse of the error function, which differs from JAX's by rounding.

#ifndef GUMBEL_MOE_NORMAL_NUMBERS_H_
#define GUMBEL_MOE_NORMAL_NUMBERS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace gumbel_moe {

namespace normal_numbers {

struct Words {
  uint32_t high, low;
};

inline Words Threefry(const uint32_t* key, Words counter) {
  constexpr int kTurns[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  const uint32_t keys[3] = {key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDAU};
  uint32_t x = counter.high + keys[0], y = counter.low + keys[1];
  for (uint32_t group = 0; group < 5; ++group) {
    for (const int turn : kTurns[group % 2]) {
      x += y;
      y = ((y << turn) | (y >> (32 - turn))) ^ x;
    }
    x += keys[(group + 1) % 3];
    y += keys[(group + 2) % 3] + group + 1;
  }
  return {x, y};
}

// The inverse of the error function, in single precision: M. Giles, *Approximating the erfinv Function*, GPU Computing
// Gems (2011).
inline double NearErfInv(double x) {
  constexpr double kCentre[] = {2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
                                -0.00125372503, -0.00417768164, 0.246640727,    1.50140941};
  constexpr double kTail[] = {-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
                              -0.0076224613,   0.00943887047,  1.00167406,    2.83297682};
  double w = -std::log1p(-x * x);
  const bool central = w < 5;
  w = central ? w - 2.5 : std::sqrt(w) - 3;
  double sum = 0;
  for (const double coefficient : central ? kCentre : kTail) sum = sum * w + coefficient;
  return sum * x;
}

inline double ErfInv(double x) {
  constexpr double kSlope = 1.1283791670955126;  // of the error function at 0
  const double size = std::abs(x), start = NearErfInv(size);
  if (!(start > 0)) return x;
  // Halley's method triples the digits. In the tail the distance to 1 is known to more of them than the error function.
  const double off = size < 0.5 ? std::erf(start) - size : (1 - size) - std::erfc(start);
  const double step = off / (kSlope * std::exp(-start * start));
  return std::copysign(start - step / (1 + step * start), x);
}

}  // namespace normal_numbers

// A key of JAX's default generator.
struct Key {
  uint32_t words[2];

  // What `jax.random.split` has at this place, and what `jax.random.fold_in` makes of the number.
  Key Part(int64_t number) const {
    const auto [high, low] = normal_numbers::Threefry(words, {0, static_cast<uint32_t>(number)});
    return {{high, low}};
  }
};

template <typename Score>
class NormalNumbers {
 public:
  explicit NormalNumbers(const Key& key) : key_(key) {}

  double At(int64_t place) const {
    const auto [high, low] = normal_numbers::Threefry(
        key_.words, {static_cast<uint32_t>(static_cast<uint64_t>(place) >> 32), static_cast<uint32_t>(place)});
    if constexpr (sizeof(Score) == sizeof(float)) {
      const float x = Uniform<float, uint32_t>(((high ^ low) >> 9) | 0x3F800000U);
      return static_cast<float>(1.41421356F * static_cast<float>(normal_numbers::NearErfInv(x)));
    } else {
      const uint64_t bits = (static_cast<uint64_t>(high) << 32) | low;
      return 1.4142135623730951 *
             normal_numbers::ErfInv(Uniform<double, uint64_t>((bits >> 12) | 0x3FF0000000000000ULL));
    }
  }

 private:
  // From the bits of a number between 1 and 2.
  template <typename Real, typename Bits>
  static Real Uniform(Bits bits) {
    Real unit;
    std::memcpy(&unit, &bits, sizeof(unit));
    const Real least = -1 + std::numeric_limits<Real>::epsilon() / 2;
    return std::max(least, (unit - 1) * (1 - least) + least);
  }

  Key key_;
};

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_NORMAL_NUMBERS_H_
