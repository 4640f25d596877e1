// SPDX-License-Identifier: Apache-2.0
// Dropout: y_i = x_i / (1 - p) with probability 1 - p, else 0; any shape.
// Srivastava et al. 2014, JMLR 15, in the form that scales while training. Element i is kept when
// uniform(seed, stream, i) >= p (core/random.hpp), so nothing is saved: backward draws again, and
// the result does not depend on the number of threads. Computed in acc_t, rounded to T once.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/core/math.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/philox.hpp>

namespace espalier {

struct Dropout {
  static constexpr const char* kName = "dropout";

  float p = 0;
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved&, const Tensor<T, D>& x) const {
    ESP_CPU_ONLY(D, dropout, Dropout, dropout.hpp);
    ESP_REQUIRE(p >= 0 && p < 1, Error, kName, ": p is ", p, ", expected 0 <= p < 1");
    return masked(x);
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved&, const Tensor<T, D>& dy) const {
    return {masked(dy)};
  }

 private:
  static constexpr std::int64_t kBlocks = 256;  // drawn at a time, each for four elements

  template <FloatElement T>
  Tensor<T> masked(const Tensor<T>& x) const {
    Tensor<T> y(x.shape());
    const std::int64_t n = x.numel();
    const T* from = x.data();
    T* to = y.data();
    parallel_for((n + 4 * kBlocks - 1) / (4 * kBlocks), 8,
                 [&](std::int64_t begin, std::int64_t end) {
                   simd::dispatch([&]<int W>() {
                     for (std::int64_t first = 4 * kBlocks * begin;
                          first < 4 * kBlocks * end && first < n; first += 4 * kBlocks) {
                       const std::int64_t count = n - first < 4 * kBlocks ? n - first : 4 * kBlocks;
                       mask_some<T, W>(from + first, first / 4, count, to + first);
                     }
                   });
                 });
    return y;
  }

  /// `count` elements, the first of which belongs to block `block`.
  template <FloatElement T, int W>
  ESP_SIMD_INLINE void mask_some(const T* x, std::int64_t block, std::int64_t count, T* y) const {
    using V = simd::Native<T, W>;
    std::uint32_t words[4 * kBlocks];
    cpu::philox_words<W>(seed, stream, static_cast<std::uint64_t>(block), (count + 3) / 4, words);
    // uniform = (bits >> 8) * 2^-24, so comparing the integer is the same test.
    const auto threshold = static_cast<std::int32_t>(math::ceil(p * 0x1p24f));
    using A = acc_t<T>;
    const A scale = static_cast<A>(1 / (1 - static_cast<double>(p)));
    std::int64_t i = 0;
    if constexpr (sizeof(A) == sizeof(std::uint32_t)) {
      using Int = simd::detail::Raw<std::int32_t, W>;
      using Bits = simd::detail::Raw<std::uint32_t, W>;
      for (; i + W <= count; i += W) {
        Bits bits;
        __builtin_memcpy(&bits, words + i, sizeof bits);
        const simd::Mask<A, W> keep{reinterpret_cast<Int>(bits >> 8) >= threshold};
        select(keep, V::load(x + i) * V(scale), V(A{0})).store(y + i);
      }
    }
    for (; i < count; ++i) {
      const bool keep = static_cast<std::int32_t>(words[i] >> 8) >= threshold;
      y[i] = static_cast<T>(keep ? static_cast<A>(x[i]) * scale : A{0});
    }
  }
};

/// Zeroes elements with probability `p` and scales the others by 1 / (1 - p); p = 0 returns `x`
/// itself. A draw depends on (seed, stream, element) alone: give every call its own stream.
/// @throws Error when p is not in [0, 1).
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> dropout(const Var<T, D>& x, float p, std::uint64_t seed,
                                std::uint64_t stream) {
  if (p == 0) return x;
  return apply(Dropout{p, seed, stream}, x);
}

}  // namespace espalier
