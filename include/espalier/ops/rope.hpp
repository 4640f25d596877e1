// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding: in every head, the pair (x_i, x_{i + P/2}) is turned by the angle
// position · theta^(-2i/P).    x, y: [N, A, P]   positions: [N]
// Su et al. 2021, arXiv:2104.09864, eq. 34, in the half-rotation layout of Hugging Face
// checkpoints. Frequencies and angles are rounded to fp32 for every T, as in the models that were
// trained so; each result is rounded to T once. Saves the cosines and sines, [N, P], which all
// layers of a model share; the gradient turns back.
#pragma once

#include <mutex>
#include <vector>

#include <espalier/autograd/var.hpp>
#include <espalier/core/math.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/simd.hpp>

namespace espalier {

namespace detail {

/// Row n: P/2 cosines of the angles of positions[n], then P/2 sines.
template <std::floating_point A>
Tensor<A> rope_turns(const Tensor<std::int32_t>& positions, double theta, std::int64_t head_dim) {
  const std::int64_t half = head_dim / 2, rows = positions.numel();
  std::vector<float> inv_freq(static_cast<std::size_t>(half));
  for (std::int64_t i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    inv_freq[i] = 1.0f / math::pow(static_cast<float>(theta), exponent);
  }
  const Tensor<A> table(Shape{rows, head_dim});
  parallel_for(rows, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      A* row = table.data() + n * head_dim;
      for (std::int64_t i = 0; i < half; ++i) {
        const float angle = inv_freq[i] * static_cast<float>(positions[n]);
        row[i] = math::cos(static_cast<A>(angle));
        row[half + i] = math::sin(static_cast<A>(angle));
      }
    }
  });
  return table;
}

/// The table made last, for the next layer of the same model on the same rows: the cosines take
/// several times as long as the rotation itself.
template <std::floating_point A>
class RopeTables {
 public:
  Tensor<A> get(const Tensor<std::int32_t>& positions, double theta, std::int64_t head_dim) {
    const std::lock_guard lock(mutex_);
    const auto now = positions.span();
    if (!table_ || theta != theta_ || table_.shape(1) != head_dim ||
        !std::equal(now.begin(), now.end(), positions_.begin(), positions_.end())) {
      table_ = rope_turns<A>(positions, theta, head_dim);
      positions_.assign(now.begin(), now.end());
      theta_ = theta;
    }
    return table_;
  }
  static RopeTables& instance() {
    static RopeTables* tables = new RopeTables;  // never destroyed, as the pool of tensors
    return *tables;
  }

 private:
  std::mutex mutex_;
  Tensor<A> table_;
  std::vector<std::int32_t> positions_;
  double theta_ = 0;
};

}  // namespace detail

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
    const auto table = detail::RopeTables<acc_t<T>>::instance().get(positions, theta, x.shape(2));
    saved.tensors = {table};
    return rotated(x, table, acc_t<T>{1});
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    using A = acc_t<T>;
    return {rotated(dy, saved.get<A, D>(0), A{-1})};
  }

 private:
  template <FloatElement T, std::floating_point A>
  static Tensor<T> rotated(const Tensor<T>& x, const Tensor<A>& table, A direction) {
    const std::int64_t heads = x.shape(1), dim = x.shape(2), row = heads * dim;
    Tensor<T> y(x.shape());
    const T* from = x.data();
    const A* turns = table.data();
    T* to = y.data();
    parallel_for(x.shape(0), rows_per_task(row), [=](std::int64_t begin, std::int64_t end) {
      simd::dispatch([=]<int W>() {
        for (std::int64_t n = begin; n < end; ++n) {
          for (std::int64_t a = 0; a < row; a += dim) {
            rotate<T, W>(from + n * row + a, turns + n * dim, direction, dim / 2, to + n * row + a);
          }
        }
      });
    });
    return y;
  }

  template <FloatElement T, int W>
  static ESP_SIMD_INLINE void rotate(const T* x, const acc_t<T>* cosine, acc_t<T> direction,
                                     std::int64_t half, T* y) {
    using V = simd::Native<T, W>;
    simd::for_each_vector<V>(0, half, [=](std::int64_t i, auto lanes) ESP_SIMD_LAMBDA {
      const V c = V::load(cosine + i, lanes), s = V(direction) * V::load(cosine + half + i, lanes);
      const V low = V::load_ahead(x + i, lanes), high = V::load_ahead(x + half + i, lanes);
      (low * c - high * s).store(y + i, lanes);
      (high * c + low * s).store(y + half + i, lanes);
    });
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
