// SPDX-License-Identifier: Apache-2.0
// The output head and its loss in one: the sum over rows of -log softmax(x wᵀ)[target].
//   x [N, H]   w [V, H] in any float type   targets [N], -1: the row does not count
// Works through chunks of rows, so N x V is never held; rows that do not count are never computed.
// When a gradient is wanted, dx and dw are computed with the logits at hand and scaled in backward
// (Liger kernels, Hsu et al. 2024, arXiv:2410.10989, do the same). Logits are acc_t, sums of exp
// and of the loss double. Where x and w are bf16, so is the gradient of the logits: all products
// are of bf16 and summed in f32. dx and dw are kept in acc_t, and rounded to the types of x and w
// once.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/core/algorithm.hpp>
#include <espalier/core/math.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/gemm.hpp>
#include <espalier/ops/cpu/log_softmax.hpp>

namespace espalier {

namespace detail {

inline constexpr std::int64_t kLogitChunk = 1 << 24;  // elements of a chunk of logits: 64 MB in f32

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

/// Chunks of equal size: a last chunk of few rows would read all of w for them.
inline std::int64_t rows_a_chunk(std::int64_t rows, std::int64_t vocab) {
  const std::int64_t most =
      std::max<std::int64_t>(16, kLogitChunk / std::max<std::int64_t>(vocab, 1));
  const std::int64_t chunks = std::max<std::int64_t>(1, (rows + most - 1) / most);
  return std::max<std::int64_t>(1, (rows + chunks - 1) / chunks);
}

inline cpu::MatrixView matrix(const AnyTensor& m, bool transposed = false) {
  return {m.bytes(), m.dtype(), m.shape(1), transposed};
}

/// out [M, H] = dz w. As deep as the vocabulary, the product is taken in parts where w is narrow:
/// 1.3 times faster at H 576 in f32 and bf16, for what is read of dz and w stays in the caches. A
/// wide w is better off in one piece.
template <std::floating_point A>
void gradient_of_rows(std::int64_t rows, const cpu::MatrixView& dz, const AnyTensor& w, A* out) {
  const std::int64_t v = w.shape(0), h = w.shape(1), depth = h < 2048 ? 2048 : v;
  const auto width = static_cast<std::int64_t>(size_of(dz.dtype));
  for (std::int64_t k = 0; k < v; k += depth) {
    const std::int64_t part = std::min(depth, v - k);
    const cpu::MatrixView of_dz{static_cast<const std::byte*>(dz.data) + k * width, dz.dtype,
                                dz.stride};
    cpu::gemm<A>(rows, h, part, of_dz, matrix(w.rows(k, k + part)), out, h, A{1},
                 k == 0 ? A{0} : A{1});
  }
}

/// factor · x, rounded to To.
template <Element To, std::floating_point A>
Tensor<To> scaled(const Tensor<A>& x, A factor) {
  Tensor<To> y(x.shape());
  const A* from = x.data();
  To* to = y.data();
  parallel_for(x.numel(), rows_per_task(1), [=](std::int64_t begin, std::int64_t end) {
    simd::dispatch([=]<int W>() {
      using V = simd::Native<A, W>;
      simd::for_each_vector<V>(begin, end, [=](std::int64_t i, auto lanes) ESP_SIMD_LAMBDA {
        (V(factor) * V::load(from + i, lanes)).store(to + i, lanes);
      });
    });
  });
  return y;
}

}  // namespace detail

/// X is the type of x; the loss is acc_t<X>.
template <FloatElement X>
struct LinearCrossEntropy {
  static constexpr const char* kName = "linear_cross_entropy";
  Tensor<std::int32_t> targets;

  template <std::floating_point A, Device D = Cpu>
  Tensor<A, D> forward(Saved& saved, const AnyTensors& in) const {
    ESP_CPU_ONLY(D, linear_cross_entropy, LinearCrossEntropy, linear_cross_entropy.hpp);
    const Tensor<X, D> x(in[0]);
    const AnyTensor& w = in[1];
    detail::check_head(kName, x.shape(), w.shape(), targets);
    const std::int64_t h = x.shape(1), v = w.shape(0);
    std::vector<std::int64_t> kept;
    for (std::int64_t n = 0; n < targets.numel(); ++n) {
      if (targets.data()[n] >= 0) kept.push_back(n);
    }
    Tensor<A, D> dx, dw;
    if (saved.needs[0]) dx = Tensor<A, D>(x.shape(), A{0});
    if (saved.needs[1]) dw = Tensor<A, D>(w.shape(), A{0});
    double loss = 0;
    const std::int64_t count = static_cast<std::int64_t>(kept.size());
    const std::int64_t chunk = detail::rows_a_chunk(count, v);
    const Tensor<X, D> rows(Shape{chunk, h});
    const Tensor<A, D> z(Shape{chunk, v}), row_grads(Shape{dx ? chunk : 0, h});
    for (std::int64_t begin = 0; begin < count; begin += chunk) {
      const std::int64_t m = std::min(chunk, count - begin);
      for (std::int64_t r = 0; r < m; ++r) {
        algo::copy_n(x.data() + kept[begin + r] * h, h, rows.data() + r * h);
      }
      cpu::gemm<A>(m, v, h, detail::matrix(rows), detail::matrix(w, true), z.data(), v);
      const bool narrow = std::same_as<X, bf16> && w.dtype() == DType::bf16;
      loss += losses(z, std::span(kept).subspan(begin, m), dx || dw, narrow);
      cpu::MatrixView dz = detail::matrix(z);
      if (narrow) dz = {z.data(), DType::bf16, 2 * v};
      if (dx) {
        detail::gradient_of_rows<A>(m, dz, w, row_grads.data());
        for (std::int64_t r = 0; r < m; ++r) {
          algo::copy_n(row_grads.data() + r * h, h, dx.data() + kept[begin + r] * h);
        }
      }
      dz.transposed = true;
      if (dw) cpu::gemm<A>(v, h, m, dz, detail::matrix(rows), dw.data(), h, A{1}, A{1});
    }
    // An empty tensor keeps the type of w for its gradient.
    saved.tensors = {dx, dw, AnyTensor(Shape{0}, w.dtype())};
    return Tensor<A, D>(Shape{1}, static_cast<A>(loss));
  }

  template <std::floating_point A, Device D = Cpu>
  AnyTensors backward(const Saved& saved, const Tensor<A, D>& dy) const {
    AnyTensors grads(2);
    if (saved.needs[0]) grads[0] = detail::scaled<X>(saved.get<A, D>(0), dy[0]);
    if (saved.needs[1]) {
      visit_dtype<A, bf16, f16>(kName, saved.tensors[2].dtype(), [&]<class M>() {
        grads[1] = detail::scaled<M>(saved.get<A, D>(1), dy[0]);
      });
    }
    return grads;
  }

 private:
  /// The sum of the losses of the rows of logits z. With `gradient` a row of z becomes softmax(z),
  /// less 1 at the target: in A, or (`narrow`) in bf16 from the row's begin on.
  template <std::floating_point A, Device D>
  double losses(const Tensor<A, D>& z, std::span<const std::int64_t> kept, bool gradient,
                bool narrow) const {
    const std::int64_t v = z.shape(1), m = static_cast<std::int64_t>(kept.size());
    std::vector<double> loss(kept.size());
    parallel_for(m, rows_per_task(v), [&](std::int64_t first, std::int64_t last) {
      simd::dispatch([&]<int W>() {
        for (std::int64_t r = first; r < last; ++r) {
          A* row = z.data() + r * v;
          const std::int64_t target = targets.data()[kept[r]];
          const A top = cpu::largest<A, W>(row, v).value;
          const double shift = static_cast<double>(top) + cpu::log_sum_exp<A, W>(row, v, top);
          const double log_p = static_cast<double>(row[target]) - shift;
          loss[r] = -log_p;
          if (!gradient) continue;
          const A at_target = static_cast<A>(math::expm1(log_p));
          if (narrow) {
            bf16* grads = reinterpret_cast<bf16*>(row);
            cpu::softmax<A, bf16, W>(row, v, static_cast<A>(shift), grads);
            grads[target] = bf16(static_cast<float>(at_target));
          } else {
            cpu::softmax<A, A, W>(row, v, static_cast<A>(shift), row);
            row[target] = at_target;
          }
        }
      });
    });
    double total = 0;
    for (const double l : loss) total += l;
    return total;
  }
};

/// Shape [1]; divide by the number of targets for the mean.
/// @throws ShapeError when x, w and targets do not fit or a target is no row of w.
template <FloatElement T, Device D>
[[nodiscard]] Var<acc_t<T>, D> linear_cross_entropy(const Var<T, D>& x, const AnyVar& w,
                                                    const Tensor<std::int32_t>& targets) {
  return apply_list<acc_t<T>, D>(LinearCrossEntropy<T>{targets}, {x, w});
}

/// The name of linear_logits() for Launch: forward(z, x, w) fills z.
struct LinearLogits {};

/// x wᵀ [N, V] in acc_t for x and w of any types; without a graph.
/// @throws ShapeError when x and w do not fit.
template <FloatElement T, Device D>
[[nodiscard]] Tensor<acc_t<T>, D> linear_logits(const Tensor<T, D>& x, const AnyTensor& w) {
  ESP_REQUIRE(x.shape().rank() == 2 && w.shape().rank() == 2 && x.shape(1) == w.shape(1),
              ShapeError, "linear_logits: x is ", x.shape(), ", w is ", w.shape(),
              "; expected [N, H] and [V, H]");
  const trace::Scope scope("linear_logits");
  Tensor<acc_t<T>, D> z(Shape{x.shape(0), w.shape(0)});
  if constexpr (D::is_cuda) {
    static_assert(LaunchedForward<LinearLogits, T, D, Tensor<acc_t<T>, D>, Tensor<T, D>, AnyTensor>,
                  "linear_logits on this device: include <espalier/cuda/linear_cross_entropy.hpp>, "
                  "which defines Launch<LinearLogits>");
    Launch<LinearLogits, T, D>::forward(z, x, w);
  } else {
    cpu::gemm<acc_t<T>>(x.shape(0), w.shape(0), x.shape(1), detail::matrix(x),
                        detail::matrix(w, true), z.data(), w.shape(0));
  }
  return z;
}

template <std::floating_point T>
struct TokenLogProbs {
  Tensor<T> log_prob;           // [N] of the target; 0 where it is -1
  Tensor<std::int32_t> argmax;  // [N] most likely id, the lowest of equals; -1 where it is -1
};

/// The name of linear_log_probs() for Launch: forward(x, w, targets).
struct LinearLogProbs {};

/// log softmax(x wᵀ)[target] of every row, without a graph and without holding N x V.
/// @throws ShapeError as linear_cross_entropy.
template <FloatElement T, Device D>
[[nodiscard]] TokenLogProbs<acc_t<T>> linear_log_probs(const Tensor<T, D>& x, const AnyTensor& w,
                                                       const Tensor<std::int32_t>& targets) {
  using A = acc_t<T>;
  detail::check_head("linear_log_probs", x.shape(), w.shape(), targets);
  const trace::Scope scope("linear_log_probs");
  if constexpr (D::is_cuda) {
    static_assert(
        LaunchedForward<LinearLogProbs, T, D, Tensor<T, D>, AnyTensor, Tensor<std::int32_t>>,
        "linear_log_probs on this device: include <espalier/cuda/linear_cross_entropy.hpp>, which "
        "defines Launch<LinearLogProbs>");
    return Launch<LinearLogProbs, T, D>::forward(x, w, targets);
  } else {
    const std::int64_t n = x.shape(0), h = x.shape(1), v = w.shape(0);
    TokenLogProbs<A> out{Tensor<A>(Shape{n}, A{0}), Tensor<std::int32_t>(Shape{n}, -1)};
    const std::int64_t chunk = detail::rows_a_chunk(n, v);
    const Tensor<A, D> z(Shape{chunk, v});
    for (std::int64_t begin = 0; begin < n; begin += chunk) {
      const std::int64_t m = std::min(chunk, n - begin);
      cpu::gemm<A>(m, v, h, detail::matrix(x.rows(begin, begin + m)), detail::matrix(w, true),
                   z.data(), v);
      parallel_for(m, rows_per_task(v), [&](std::int64_t first, std::int64_t last) {
        simd::dispatch([&]<int W>() {
          for (std::int64_t r = first; r < last; ++r) {
            const A* row = z.data() + r * v;
            const std::int32_t target = targets.data()[begin + r];
            if (target < 0) continue;
            const auto top = cpu::largest<A, W>(row, v);
            const double relative =
                static_cast<double>(row[target]) - static_cast<double>(top.value);
            out.log_prob.data()[begin + r] =
                static_cast<A>(relative - cpu::log_sum_exp<A, W>(row, v, top.value));
            out.argmax.data()[begin + r] = static_cast<std::int32_t>(cpu::first_index(row, v, top));
          }
        });
      });
    }
    return out;
  }
}

}  // namespace espalier
