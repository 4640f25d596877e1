// SPDX-License-Identifier: Apache-2.0
// Dropout: y_i = x_i / (1 - p) with probability 1 - p, else 0; any shape.
// Srivastava et al. 2014, JMLR 15, in the form that scales while training. Element i is kept when
// uniform(seed, stream, i) >= p (core/random.hpp), so nothing is saved: backward draws again, and
// the result does not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cmath>

#include <espalier/autograd/var.hpp>
#include <espalier/core/random.hpp>
#include <espalier/core/threads.hpp>

namespace espalier {

struct Dropout {
  static constexpr const char* kName = "dropout";

  float p = 0;
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved&, const Tensor<T, D>& x) const {
    static_assert(!D::is_cuda, "dropout: no CUDA path");
    ESP_REQUIRE(p >= 0 && p < 1, Error, kName, ": p is ", p, ", expected 0 <= p < 1");
    return masked(x);
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved&, const Tensor<T, D>& dy) const {
    return {masked(dy)};
  }

 private:
  template <FloatElement T>
  Tensor<T> masked(const Tensor<T>& x) const {
    constexpr std::int64_t kWords = 4;  // one Philox block serves four elements
    const Philox philox(seed, stream);
    // uniform = (bits >> 8) * 2^-24, so comparing the integer is the same test.
    const auto threshold = static_cast<std::uint32_t>(std::ceil(p * 0x1p24f));
    const T scale = static_cast<T>(1 / (1 - static_cast<double>(p)));
    Tensor<T> y(x.shape());
    const std::int64_t n = x.numel();
    parallel_for((n + kWords - 1) / kWords, 1 << 12, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t block = begin; block < end; ++block) {
        const auto words = philox.block(static_cast<std::uint64_t>(block));
        for (std::int64_t i = block * kWords; i < std::min(n, (block + 1) * kWords); ++i) {
          y[i] = (words[i % kWords] >> 8) >= threshold ? x[i] * scale : T{0};
        }
      }
    });
    return y;
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
