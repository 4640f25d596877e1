// SPDX-License-Identifier: Apache-2.0
// Python's `random.Random`, bit for bit: MT19937 (Matsumoto and Nishimura 1998) seeded with
// init_by_array, integers by rejection on the leading bits. MMLU-Pro's guesses and
// lm-evaluation-harness' few-shot samples come from it.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <numeric>
#include <vector>

#include <espalier/core/error.hpp>

namespace espalier::eval {

class PythonRandom {
 public:
  explicit PythonRandom(std::uint64_t value) { seed(value); }

  /// `random.seed(value)` of a non-negative integer.
  void seed(std::uint64_t value) {
    const std::array<std::uint32_t, 2> key = {static_cast<std::uint32_t>(value),
                                              static_cast<std::uint32_t>(value >> 32)};
    const int words = key[1] != 0 ? 2 : 1;
    state_[0] = 19650218u;
    for (int i = 1; i < kSize; ++i) {
      state_[i] = 1812433253u * mixed(i - 1) + static_cast<std::uint32_t>(i);
    }
    int i = 1;
    for (int step = 0; step < kSize; ++step) {
      const int j = step % words;
      state_[i] = (state_[i] ^ (mixed(i - 1) * 1664525u)) + key[j] + static_cast<std::uint32_t>(j);
      i = following(i);
    }
    for (int step = 1; step < kSize; ++step) {
      state_[i] = (state_[i] ^ (mixed(i - 1) * 1566083941u)) - static_cast<std::uint32_t>(i);
      i = following(i);
    }
    state_[0] = 0x80000000u;
    next_ = kSize;
  }

  /// 32 uniform bits.
  std::uint32_t bits() {
    if (next_ == kSize) refill();
    std::uint32_t y = state_[next_++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
  }

  /// Uniform in [0, n): `random.randrange(n)`, and the index that `random.choice` takes.
  std::uint32_t below(std::uint32_t n) {
    ESP_REQUIRE(n > 0, Error, "PythonRandom: a draw from an empty range");
    const int count = std::bit_width(n);
    std::uint32_t r = bits() >> (32 - count);
    while (r >= n) r = bits() >> (32 - count);
    return r;
  }
  /// Uniform in [low, high]: `random.randint(low, high)`.
  std::int64_t randint(std::int64_t low, std::int64_t high) {
    return low + below(static_cast<std::uint32_t>(high - low + 1));
  }
  /// `random.sample(range(n), count)`.
  std::vector<std::uint32_t> sample(std::uint32_t n, std::uint32_t count) {
    ESP_REQUIRE(count <= n, Error, "PythonRandom: sample of ", count, " from ", n);
    std::vector<std::uint32_t> picked;
    // Which of its two methods Python takes is a guess at their memory: the draws differ.
    std::uint64_t set_size = 21;
    if (count > 5) {
      std::uint64_t power = 4;
      while (power < std::uint64_t{count} * 3) power *= 4;
      set_size += power;
    }
    if (n <= set_size) {
      std::vector<std::uint32_t> pool(n);
      std::iota(pool.begin(), pool.end(), 0u);
      for (std::uint32_t i = 0; i < count; ++i) {
        const std::uint32_t j = below(n - i);
        picked.push_back(pool[j]);
        pool[j] = pool[n - i - 1];
      }
      return picked;
    }
    while (picked.size() < count) {
      const std::uint32_t j = below(n);
      if (std::find(picked.begin(), picked.end(), j) == picked.end()) picked.push_back(j);
    }
    return picked;
  }

 private:
  static constexpr int kSize = 624, kShift = 397;

  std::uint32_t mixed(int i) const { return state_[i] ^ (state_[i] >> 30); }
  /// The word after `i`; the last one is carried over to the front.
  int following(int i) {
    if (i + 1 < kSize) return i + 1;
    state_[0] = state_[kSize - 1];
    return 1;
  }
  void refill() {
    for (int i = 0; i < kSize; ++i) {
      const std::uint32_t y = (state_[i] & 0x80000000u) | (state_[(i + 1) % kSize] & 0x7fffffffu);
      state_[i] = state_[(i + kShift) % kSize] ^ (y >> 1) ^ ((y & 1u) != 0 ? 0x9908b0dfu : 0u);
    }
    next_ = 0;
  }

  std::array<std::uint32_t, kSize> state_{};
  int next_ = kSize;
};

}  // namespace espalier::eval
