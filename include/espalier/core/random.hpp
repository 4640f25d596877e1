// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as
// easy as 1, 2, 3"). A value is a pure function of (seed, stream, index), so any thread may draw
// any element, and a backward pass draws a dropout mask again instead of storing it.
#pragma once

#include <array>
#include <cstdint>
#include <espalier/core/math.hpp>

namespace espalier {

class Philox {
 public:
  explicit Philox(std::uint64_t seed, std::uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  /// Four independent 32-bit words for counter `index`.
  std::array<std::uint32_t, 4> block(std::uint64_t index) const {
    std::array<std::uint32_t, 4> c = {lo(index), hi(index), lo(stream_), hi(stream_)};
    std::uint32_t k0 = lo(seed_), k1 = hi(seed_);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c[0];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c[2];
      c = {hi(p1) ^ c[1] ^ k0, lo(p1), hi(p0) ^ c[3] ^ k1, lo(p0)};
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return c;
  }

  std::uint32_t bits(std::uint64_t index) const { return block(index >> 2)[index & 3]; }

  /// Uniform in [0, 1), 24 random bits: exact in float.
  float uniform(std::uint64_t index) const {
    return static_cast<float>(bits(index) >> 8) * 0x1p-24f;
  }
  /// Standard normal by Box-Muller; uses words 2*index and 2*index+1.
  float normal(std::uint64_t index) const {
    const double u1 = (static_cast<double>(bits(2 * index)) + 1.0) * 0x1p-32;  // (0, 1]
    const double u2 = static_cast<double>(bits(2 * index + 1)) * 0x1p-32;
    return static_cast<float>(math::sqrt(-2.0 * math::log(u1)) * math::cos(6.283185307179586 * u2));
  }
  /// Uniform integer in [0, n), n < 2^32, by multiply-shift (bias below n / 2^32).
  std::uint32_t below(std::uint64_t index, std::uint32_t n) const {
    return static_cast<std::uint32_t>((std::uint64_t{bits(index)} * n) >> 32);
  }

 private:
  static std::uint32_t lo(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
  static std::uint32_t hi(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }

  std::uint64_t seed_;
  std::uint64_t stream_;
};

}  // namespace espalier
