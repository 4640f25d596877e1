// SPDX-License-Identifier: Apache-2.0
// The output head and its loss in one: the sum over rows of -log softmax(x wᵀ)[target].
//   x [N, H]   w [V, H] in any float type   targets [N], -1: the row does not count
// Works through chunks of rows, so N x V is never held; rows that do not count are never computed.
// When a gradient is wanted, dx and dw are computed with the logits at hand and scaled in backward
// (Liger kernels, Hsu et al. 2024, arXiv:2410.10989, do the same). Sums of exp and of the loss are
// in double.
#pragma once

#include <cmath>
#include <limits>

#include <espalier/autograd/var.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/gemm.hpp>
#include <espalier/ops/cpu/simd.hpp>
#include <espalier/ops/scale.hpp>

namespace espalier {

namespace detail {

inline constexpr std::int64_t kLogitChunk = 1 << 23;  // elements of a chunk of logits: 32 MB in f32

/// Of one row of logits z [V].
struct LogSoftmax {
  double largest;
  double log_sum;  // log of sum exp(z - largest)
};

template <FloatElement T, int W>
ESP_SIMD_INLINE LogSoftmax log_softmax(const T* z, std::int64_t v) {
  using V = simd::Native<T, W>;
  constexpr std::int64_t kBlock = 1024;  // summed in T, then in double
  T top = z[0];
  std::int64_t i = 0;
  if (v >= V::kLanes) {
    V m = V::load(z);
    for (i = V::kLanes; i + V::kLanes <= v; i += V::kLanes) m = max(m, V::load(z + i));
    const T all = max(m);
    top = all > top ? all : top;
  }
  for (; i < v; ++i) top = z[i] > top ? z[i] : top;
  double total = 0;
  for (std::int64_t block = 0; block < v; block += kBlock) {
    const std::int64_t end = block + kBlock < v ? block + kBlock : v;
    V sum(T{0});
    for (i = block; i + V::kLanes <= end; i += V::kLanes) sum += exp(V::load(z + i) - V(top));
    total += static_cast<double>(simd::sum(sum));
    for (; i < end; ++i) total += std::exp(static_cast<double>(z[i]) - static_cast<double>(top));
  }
  return {static_cast<double>(top), std::log(total)};
}

/// z <- softmax(z), then 1 less at the target. Probabilities below 2^-100 (in f32) become 0:
/// products with them would be subnormal numbers, which slow the gradient's GEMM down a
/// hundredfold.
template <FloatElement T, int W>
ESP_SIMD_INLINE void softmax_minus_one_hot(T* z, std::int64_t v, const LogSoftmax& s,
                                           std::int64_t target) {
  using V = simd::Native<T, W>;
  const T shift = static_cast<T>(s.largest + s.log_sum);
  std::int64_t i = 0;
  const V zero(T{0}), least(std::numeric_limits<T>::min() * T{1 << 26});
  for (; i + V::kLanes <= v; i += V::kLanes) {
    const V p = exp(V::load(z + i) - V(shift));
    select(p < least, zero, p).store(z + i);
  }
  for (; i < v; ++i) {
    const T p = std::exp(z[i] - shift);
    z[i] = p < least[0] ? T{0} : p;
  }
  z[target] -= 1;
}

/// Index of the largest of z [V], the lowest of equals; 0 where that is NaN.
template <FloatElement T, int W>
ESP_SIMD_INLINE std::int64_t first_largest(const T* z, std::int64_t v, T largest) {
  using V = simd::Native<T, W>;
  constexpr std::int64_t kBlock = 16 * V::kLanes;
  std::int64_t i = 0;
  for (; i + kBlock <= v; i += kBlock) {
    V m = V::load(z + i);
    for (std::int64_t j = V::kLanes; j < kBlock; j += V::kLanes) m = max(m, V::load(z + i + j));
    if (max(m) >= largest) break;
  }
  for (; i < v; ++i) {
    if (z[i] >= largest) return i;
  }
  return 0;
}

inline void check_head(const char* op, const Shape& x, const Shape& w,
                       const Tensor<std::int32_t>& targets) {
  ESP_REQUIRE(x.rank() == 2 && w.rank() == 2 && x[1] == w[1], ShapeError, op, ": x is ", x,
              ", w is ", w, "; expected [N, H] and [V, H]");
  ESP_REQUIRE(targets.shape() == Shape{x[0]}, ShapeError, op, ": targets are ", targets.shape(),
              ", x is ", x, "; expected [", x[0], "]");
  for (std::int64_t n = 0; n < x[0]; ++n) {
    ESP_REQUIRE(targets[n] >= -1 && targets[n] < w[0], ShapeError, op, ": target ", targets[n],
                " at row ", n, ", expected -1 or 0 to ", w[0] - 1);
  }
}

inline std::int64_t rows_a_chunk(std::int64_t vocab) {
  return std::max<std::int64_t>(16, kLogitChunk / std::max<std::int64_t>(vocab, 1));
}

}  // namespace detail

struct LinearCrossEntropy {
  static constexpr const char* kName = "linear_cross_entropy";
  Tensor<std::int32_t> targets;

  template <FloatElement T, Device D = Cpu>
  Tensor<T, D> forward(Saved& saved, const std::vector<AnyTensor>& in) const {
    static_assert(!D::is_cuda, "linear_cross_entropy: no CUDA path");
    const Tensor<T, D> x(in[0]);
    const AnyTensor& w = in[1];
    detail::check_head(kName, x.shape(), w.shape(), targets);
    const std::int64_t h = x.shape(1), v = w.shape(0);
    std::vector<std::int64_t> kept;
    for (std::int64_t n = 0; n < targets.numel(); ++n) {
      if (targets[n] >= 0) kept.push_back(n);
    }
    Tensor<T, D> dx, dw;
    if (saved.needs[0]) dx = Tensor<T, D>(x.shape(), T{0});
    if (saved.needs[1]) dw = Tensor<T, D>(w.shape(), T{0});
    double loss = 0;
    const std::int64_t count = static_cast<std::int64_t>(kept.size());
    const std::int64_t chunk = std::min(detail::rows_a_chunk(v), std::max<std::int64_t>(count, 1));
    const Tensor<T, D> rows(Shape{chunk, h}), z(Shape{chunk, v});
    std::vector<double> losses(chunk);
    for (std::int64_t begin = 0; begin < count; begin += chunk) {
      const std::int64_t m = std::min(chunk, count - begin);
      for (std::int64_t r = 0; r < m; ++r) {
        std::copy_n(x.data() + kept[begin + r] * h, h, rows.data() + r * h);
      }
      cpu::gemm<T>(m, v, h, view(rows), {w.bytes(), w.dtype(), h, true}, z.data(), v);
      parallel_for(m, 4, [&](std::int64_t first, std::int64_t last) {
        simd::dispatch([&]<int W>() {
          for (std::int64_t r = first; r < last; ++r) {
            T* row = z.data() + r * v;
            const std::int64_t target = targets[kept[begin + r]];
            const auto s = detail::log_softmax<T, W>(row, v);
            losses[r] = s.largest + s.log_sum - static_cast<double>(row[target]);
            if (dx || dw) detail::softmax_minus_one_hot<T, W>(row, v, s, target);
          }
        });
      });
      for (std::int64_t r = 0; r < m; ++r) loss += losses[r];
      if (dw) {
        cpu::gemm<T>(v, h, m, {z.data(), z.dtype(), v, true}, view(rows), dw.data(), h, T{1}, T{1});
      }
      if (dx) {
        cpu::gemm<T>(m, h, v, view(z), {w.bytes(), w.dtype(), h}, rows.data(), h);
        for (std::int64_t r = 0; r < m; ++r) {
          std::copy_n(rows.data() + r * h, h, dx.data() + kept[begin + r] * h);
        }
      }
    }
    saved.tensors = {dx, dw};
    return Tensor<T, D>(Shape{1}, static_cast<T>(loss));
  }

  template <FloatElement T, Device D = Cpu>
  std::vector<AnyTensor> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    std::vector<AnyTensor> grads(2);
    const Scale by{static_cast<double>(dy[0])};
    Saved none;
    for (std::size_t i = 0; i < 2; ++i) {
      if (saved.needs[i]) grads[i] = by.forward(none, saved.get<T, D>(i));
    }
    return grads;
  }

 private:
  template <FloatElement T, Device D>
  static cpu::MatrixView view(const Tensor<T, D>& m) {
    return {m.data(), m.dtype(), m.shape(1)};
  }
};

/// Shape [1]; divide by the number of targets for the mean.
/// @throws ShapeError when x, w and targets do not fit or a target is no row of w.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> linear_cross_entropy(const Var<T, D>& x, const AnyVar& w,
                                             const Tensor<std::int32_t>& targets) {
  return apply_list<T, D>(LinearCrossEntropy{targets}, {x, w});
}

template <FloatElement T>
struct TokenLogProbs {
  Tensor<T> log_prob;           // [N] of the target; 0 where it is -1
  Tensor<std::int32_t> argmax;  // [N] most likely id, the lowest of equals; -1 where it is -1
};

/// log softmax(x wᵀ)[target] of every row, without a graph and without holding N x V.
/// @throws ShapeError as linear_cross_entropy.
template <FloatElement T, Device D>
[[nodiscard]] TokenLogProbs<T> linear_log_probs(const Tensor<T, D>& x, const AnyTensor& w,
                                                const Tensor<std::int32_t>& targets) {
  detail::check_head("linear_log_probs", x.shape(), w.shape(), targets);
  const trace::Scope scope("linear_log_probs");
  const std::int64_t n = x.shape(0), h = x.shape(1), v = w.shape(0);
  TokenLogProbs<T> out{Tensor<T>(Shape{n}, T{0}), Tensor<std::int32_t>(Shape{n}, -1)};
  const std::int64_t chunk = std::min(detail::rows_a_chunk(v), std::max<std::int64_t>(n, 1));
  const Tensor<T, D> z(Shape{chunk, v});
  for (std::int64_t begin = 0; begin < n; begin += chunk) {
    const std::int64_t m = std::min(chunk, n - begin);
    cpu::gemm<T>(m, v, h, {x.data() + begin * h, x.dtype(), h}, {w.bytes(), w.dtype(), h, true},
                 z.data(), v);
    parallel_for(m, 4, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r) {
        const T* row = z.data() + r * v;
        const std::int32_t target = targets[begin + r];
        if (target < 0) continue;
        detail::LogSoftmax s{};
        std::int64_t best = 0;
        simd::dispatch([&]<int W>() {
          s = detail::log_softmax<T, W>(row, v);
          best = detail::first_largest<T, W>(row, v, static_cast<T>(s.largest));
        });
        out.log_prob[begin + r] =
            static_cast<T>(static_cast<double>(row[target]) - s.largest - s.log_sum);
        out.argmax[begin + r] = static_cast<std::int32_t>(best);
      }
    });
  }
  return out;
}

}  // namespace espalier
