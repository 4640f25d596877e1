// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding: in every head, the pair (x_i, x_{i + P/2}) is turned by the angle
// position · theta^(-2i/P).    x, y: [N, A, P]   positions: [N]
// Su et al. 2021, arXiv:2104.09864, eq. 34, in the half-rotation layout of Hugging Face
// checkpoints. Frequencies and angles are rounded to fp32 for every T, as in the models that were
// trained so. Saves the cosines and sines, [N, P]; the gradient turns back.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include <espalier/autograd/var.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/simd.hpp>

namespace espalier {

struct Rope {
  static constexpr const char* kName = "rope";

  Tensor<std::int32_t> positions;
  double theta = 1e4;

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& x) const {
    static_assert(!D::is_cuda, "rope: no CUDA path");
    ESP_REQUIRE(x.shape().rank() == 3 && x.shape(2) % 2 == 0, ShapeError, kName, ": x is ",
                x.shape(), ", expected [tokens, heads, even head dim]");
    ESP_REQUIRE(positions.shape() == Shape{x.shape(0)}, ShapeError, kName, ": positions is ",
                positions.shape(), ", x is ", x.shape(), "; expected [", x.shape(0), "]");
    ESP_REQUIRE(theta > 0, Error, kName, ": theta is ", theta, ", expected a positive number");
    const Tensor<T, D> table = turns<T>(x.shape(2));
    saved.tensors = {table};
    return rotated<T>(x, table, T{1});
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    return {rotated<T>(dy, saved.get<T, D>(0), T{-1})};
  }

 private:
  // Row n: P/2 cosines, then P/2 sines.
  template <FloatElement T>
  Tensor<T> turns(std::int64_t head_dim) const {
    const std::int64_t half = head_dim / 2, rows = positions.numel();
    std::vector<float> inv_freq(static_cast<std::size_t>(half));
    for (std::int64_t i = 0; i < half; ++i) {
      const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
      inv_freq[i] = 1.0f / std::pow(static_cast<float>(theta), exponent);
    }
    const Tensor<T> table(Shape{rows, head_dim});
    parallel_for(rows, 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n) {
        T* row = table.data() + n * head_dim;
        for (std::int64_t i = 0; i < half; ++i) {
          const float angle = inv_freq[i] * static_cast<float>(positions[n]);
          row[i] = std::cos(static_cast<T>(angle));
          row[half + i] = std::sin(static_cast<T>(angle));
        }
      }
    });
    return table;
  }

  template <FloatElement T>
  static Tensor<T> rotated(const Tensor<T>& x, const Tensor<T>& table, T direction) {
    const std::int64_t heads = x.shape(1), dim = x.shape(2), half = dim / 2;
    Tensor<T> y(x.shape());
    const T *from = x.data(), *angles = table.data();
    T* to = y.data();
    parallel_for(x.shape(0), 32, [=](std::int64_t begin, std::int64_t end) {
      simd::dispatch([=]<int W>() {
        for (std::int64_t row = begin * heads; row < end * heads; ++row) {
          rotate<T, W>(from + row * dim, angles + row / heads * dim, direction, half,
                       to + row * dim);
        }
      });
    });
    return y;
  }

  template <FloatElement T, int W>
  static ESP_SIMD_INLINE void rotate(const T* x, const T* cosine, T direction, std::int64_t half,
                                     T* y) {
    using V = simd::Native<T, W>;
    const T* sine = cosine + half;
    std::int64_t i = 0;
    for (; i + V::kLanes <= half; i += V::kLanes) {
      const V c = V::load(cosine + i), s = V(direction) * V::load(sine + i);
      const V low = V::load(x + i), high = V::load(x + half + i);
      (low * c - high * s).store(y + i);
      (high * c + low * s).store(y + half + i);
    }
    for (; i < half; ++i) {
      const T s = direction * sine[i], low = x[i], high = x[half + i];
      y[i] = low * cosine[i] - high * s;
      y[half + i] = high * cosine[i] + low * s;
    }
  }
};

/// Turns x [N, A, P] by `positions` [N]; every row may have a position of its own.
/// @throws ShapeError when x is not [N, A, even P] or there is not one position per row.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> rope(const Var<T, D>& x, const Tensor<std::int32_t>& positions,
                             double theta) {
  return apply(Rope{positions, theta}, x);
}

}  // namespace espalier
