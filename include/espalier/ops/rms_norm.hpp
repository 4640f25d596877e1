// SPDX-License-Identifier: Apache-2.0
// y = x / sqrt(mean(x²) + eps) · w, per row.        x, y [N, H]   w [H] in any float type
// Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4. Computed in acc_t, the reciprocal RMS in
// double; each result is rounded to T once. Sums run over vector lanes, in one order for each
// width; dw sums fixed blocks of 64 rows. Saves x, w and 1 / RMS. A trained w is acc_t.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/core/math.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/map.hpp>

namespace espalier {

struct RmsNormOp {
  static constexpr const char* kName = "rms_norm";
  static constexpr std::int64_t kBlock = 64;  // rows of a partial sum of dw
  float eps = 1e-5f;

  template <FloatElement T, Device D = Cpu>
  Tensor<T, D> forward(Saved& saved, const AnyTensors& in) const {
    ESP_CPU_ONLY(D, rms_norm, RmsNormOp, rms_norm.hpp);
    using A = acc_t<T>;
    const Tensor<T, D> x(in[0]);
    check(x.shape(), in[1], saved.needs[1], dtype_of<A>::value);
    const Tensor<A, D> w = widened<A>(in[1]);
    const std::int64_t h = x.shape(1);
    Tensor<T, D> y(x.shape());
    const Tensor<double, D> factor(Shape{x.shape(0)});
    parallel_for(x.shape(0), rows_per_task(h), [&](std::int64_t begin, std::int64_t end) {
      simd::dispatch([&]<int W>() {
        for (std::int64_t n = begin; n < end; ++n) {
          const T* row = x.data() + n * h;
          const double mean = square_sum<T, W>(row, h, y.data() + n * h) / static_cast<double>(h);
          const double r = 1 / math::sqrt(mean + static_cast<double>(eps));
          factor.data()[n] = r;
          scale_row<T, W>(row, w.data(), static_cast<A>(r), y.data() + n * h, h);
        }
      });
    });
    saved.tensors = {x, w, factor};
    return y;
  }

  // dx = r (w dy - x r² / H · <w dy, x>);  dw = sum over rows of dy x r. A row is read twice, the
  // second time from the cache.
  template <FloatElement T, Device D = Cpu>
  AnyTensors backward(const Saved& saved, const Tensor<T, D>& dy) const {
    using A = acc_t<T>;
    const auto x = saved.get<T, D>(0);
    const auto w = saved.get<A, D>(1);
    const auto factor = saved.get<double, D>(2);
    const std::int64_t rows = x.shape(0), h = x.shape(1), blocks = (rows + kBlock - 1) / kBlock;
    AnyTensors grads(2);
    Tensor<T, D> dx;
    Tensor<A, D> partial;
    if (saved.needs[0]) grads[0] = dx = Tensor<T, D>(x.shape());
    if (saved.needs[1]) partial = Tensor<A, D>(Shape{blocks, h}, A{0});
    // Whole blocks where dw is wanted: one task computes the sum of a block.
    const std::int64_t grain = partial ? kBlock : rows_per_task(h);
    parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
      simd::dispatch([&]<int W>() {
        for (std::int64_t n = begin; n < end; ++n) {
          const Row<T> row{x.data() + n * h,
                           dy.data() + n * h,
                           w.data(),
                           factor.data()[n],
                           h,
                           dx ? dx.data() + n * h : nullptr};
          const double dot =
              partial ? gain_gradient<W>(row, partial.data() + n / kBlock * h) : scaled_dot<W>(row);
          if (row.dx) input_gradient<W>(row, dot);
        }
      });
    });
    if (partial) grads[1] = sum_of_rows(partial);
    return grads;
  }

 private:
  // Prefetches the output row for writing while the input row is read.
  template <FloatElement T, int W>
  static ESP_SIMD_INLINE double square_sum(const T* x, std::int64_t h, const T* y) {
    using V = simd::Native<T, W>;
    std::int64_t done = 0;
    double pairs = 0;
    if constexpr (std::same_as<T, bf16>) {
      V even[2], odd[2];
      for (; done + 4 * W <= h; done += 4 * W) {
        ESP_UNROLL
        for (int i = 0; i < 2; ++i) {
          __builtin_prefetch(y + done + 2 * W * i);
          const auto p = simd::Pair<W>::load_ahead(x + done + 2 * W * i);
          even[i] = fma(p.even, p.even, even[i]);
          odd[i] = fma(p.odd, p.odd, odd[i]);
        }
      }
      pairs = sum((even[0] + even[1]) + (odd[0] + odd[1]));
    }
    return pairs + simd::sum_over<V>(h - done,
                                     [=](std::int64_t c, auto lanes, const V& sum) ESP_SIMD_LAMBDA {
                                       __builtin_prefetch(y + done + c);
                                       const V v = V::load_ahead(x + done + c, lanes);
                                       return fma(v, v, sum);
                                     });
  }

  template <FloatElement T, int W>
  static ESP_SIMD_INLINE void scale_row(const T* x, const acc_t<T>* w, acc_t<T> r, T* y,
                                        std::int64_t h) {
    using V = simd::Native<T, W>;
    const V factor(r);
    cpu::map_row<W>(
        h, [&](const V& a, const V& b) ESP_SIMD_LAMBDA { return a * factor * b; }, y, x, w);
  }

  /// What backward reads of a row.
  template <FloatElement T>
  struct Row {
    const T *x, *dy;
    const acc_t<T>* w;
    double r;
    std::int64_t h;
    T* dx;  // null where it is not wanted
  };

  /// <w dy, x>
  template <int W, FloatElement T>
  static ESP_SIMD_INLINE double scaled_dot(const Row<T>& row) {
    using V = simd::Native<T, W>;
    return simd::sum_over<V>(row.h, [=](std::int64_t c, auto lanes, const V& sum) ESP_SIMD_LAMBDA {
      const V product = V::load_ahead(row.dy + c, lanes) * V::load_ahead(row.x + c, lanes);
      return fma(product, V::load(row.w + c, lanes), sum);
    });
  }
  /// dw += dy x r; returns <w dy, x>.
  template <int W, FloatElement T>
  static ESP_SIMD_INLINE double gain_gradient(const Row<T>& row, acc_t<T>* dw) {
    using V = simd::Native<T, W>;
    const V r(static_cast<acc_t<T>>(row.r));
    return simd::sum_over<V>(row.h, [=](std::int64_t c, auto lanes, const V& sum) ESP_SIMD_LAMBDA {
      const V product = V::load_ahead(row.dy + c, lanes) * V::load_ahead(row.x + c, lanes);
      fma(product, r, V::load(dw + c, lanes)).store(dw + c, lanes);
      return fma(product, V::load(row.w + c, lanes), sum);
    });
  }
  // The two terms cancel where a row's RMS is near sqrt(eps), hence doubles for its reciprocal.
  template <int W, FloatElement T>
  static ESP_SIMD_INLINE void input_gradient(const Row<T>& row, double dot) {
    using V = simd::Native<T, W>;
    const V r(static_cast<acc_t<T>>(row.r));
    const V pull(static_cast<acc_t<T>>(-dot * row.r * row.r / static_cast<double>(row.h)));
    simd::for_each_vector<V>(0, row.h, [=](std::int64_t c, auto lanes) ESP_SIMD_LAMBDA {
      const V wdy = V::load(row.w + c, lanes) * V::load(row.dy + c, lanes);
      (r * fma(pull, V::load(row.x + c, lanes), wdy)).store(row.dx + c, lanes);
    });
  }

  template <std::floating_point A, Device D>
  static Tensor<A, D> sum_of_rows(const Tensor<A, D>& partial) {
    const std::int64_t h = partial.shape(1);
    const Tensor<A, D> sum(Shape{h}, A{0});
    for (std::int64_t b = 0; b < partial.shape(0); ++b) {
      for (std::int64_t c = 0; c < h; ++c) sum.data()[c] += partial.data()[b * h + c];
    }
    return sum;
  }

  template <std::floating_point A>
  static Tensor<A> widened(const AnyTensor& w) {
    return w.dtype() == dtype_of<A>::value ? Tensor<A>(w) : converted<A>(w);
  }
  static void check(const Shape& x, const AnyTensor& w, bool train, DType type) {
    ESP_REQUIRE(x.rank() == 2, ShapeError, kName, ": x is ", x, ", expected [rows, hidden]");
    ESP_REQUIRE(w.shape() == Shape{x[1]}, ShapeError, kName, ": w is ", w.shape(), ", x is ", x,
                "; expected w [", x[1], "]");
    ESP_REQUIRE(!train || w.dtype() == type, DTypeError, kName, ": w is ", name(w.dtype()),
                " and wants a gradient; only ", name(type), " weights can be trained");
  }
};

/// @throws ShapeError when w is not [H]; DTypeError when a stored 2-byte w wants a gradient.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> rms_norm(const Var<T, D>& x, const AnyVar& w, float eps) {
  return apply_list<T, D>(RmsNormOp{eps}, {x, w});
}

}  // namespace espalier
