// SPDX-License-Identifier: Apache-2.0
// y = x / sqrt(mean(x²) + eps) · w, per row.        x, y [N, H]   w [H] in any float type
// Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4. Sums in T over vector lanes, in one order for
// each width. Saves x, w and the factor of each row. dw sums fixed blocks of 64 rows.
#pragma once

#include <cmath>

#include <espalier/autograd/var.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/simd.hpp>

namespace espalier {

struct RmsNormOp {
  static constexpr const char* kName = "rms_norm";
  static constexpr std::int64_t kRows = 16;
  float eps = 1e-5f;

  template <FloatElement T, Device D = Cpu>
  Tensor<T, D> forward(Saved& saved, const std::vector<AnyTensor>& in) const {
    static_assert(!D::is_cuda, "rms_norm: no CUDA path");
    const Tensor<T, D> x(in[0]);
    check(x.shape(), in[1], saved.needs[1], dtype_of<T>::value);
    const Tensor<T, D> w = widened<T>(in[1]);
    const std::int64_t h = x.shape(1);
    Tensor<T, D> y(x.shape());
    const Tensor<double, D> factor(Shape{x.shape(0)});
    parallel_for(x.shape(0), kRows, [&](std::int64_t begin, std::int64_t end) {
      simd::dispatch([&]<int W>() {
        for (std::int64_t n = begin; n < end; ++n) {
          const T* row = x.data() + n * h;
          const double mean = dot<T, W>(row, row, h) / static_cast<double>(h);
          factor[n] = 1 / std::sqrt(mean + static_cast<double>(eps));
          scale_row<T, W>(row, w.data(), static_cast<T>(factor[n]), y.data() + n * h, h);
        }
      });
    });
    saved.tensors = {x, w, factor};
    return y;
  }

  // dx = r (w dy - x r² / H · <w dy, x>);  dw = sum over rows of dy x r.
  template <FloatElement T, Device D = Cpu>
  std::vector<AnyTensor> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const auto x = saved.get<T, D>(0), w = saved.get<T, D>(1);
    const auto factor = saved.get<double, D>(2);
    const std::int64_t n_rows = x.shape(0), h = x.shape(1);
    std::vector<AnyTensor> grads(2);
    const Tensor<T, D> dx(x.shape());
    grads[0] = dx;
    parallel_for(n_rows, kRows, [&](std::int64_t begin, std::int64_t end) {
      simd::dispatch([&]<int W>() {
        using V = simd::Native<T, W>;
        for (std::int64_t n = begin; n < end; ++n) {
          const T *px = x.data() + n * h, *pd = dy.data() + n * h;
          T* out = dx.data() + n * h;
          scale_row<T, W>(pd, w.data(), T{1}, out, h);  // w dy
          // The two terms cancel where a row is near the square root of eps, hence doubles.
          const double r = factor[n];
          const double pull = -dot<T, W>(out, px, h) * r * r / static_cast<double>(h);
          const V vr(static_cast<T>(r)), vpull(static_cast<T>(pull));
          std::int64_t c = 0;
          for (; c + V::kLanes <= h; c += V::kLanes) {
            (vr * fma(vpull, V::load(px + c), V::load(out + c))).store(out + c);
          }
          for (; c < h; ++c) {
            out[c] = static_cast<T>(
                r * (static_cast<double>(out[c]) + pull * static_cast<double>(px[c])));
          }
        }
      });
    });
    if (saved.needs[1]) grads[1] = gain_gradient(x, factor, dy);
    return grads;
  }

 private:
  template <FloatElement T, int W>
  static ESP_SIMD_INLINE double dot(const T* a, const T* b, std::int64_t h) {
    using V = simd::Native<T, W>;
    V even(T{0}), odd(T{0});
    std::int64_t c = 0;
    for (; c + 2 * V::kLanes <= h; c += 2 * V::kLanes) {
      even = fma(V::load(a + c), V::load(b + c), even);
      odd = fma(V::load(a + c + V::kLanes), V::load(b + c + V::kLanes), odd);
    }
    double total = simd::sum(even + odd);
    for (; c < h; ++c) total += static_cast<double>(a[c]) * static_cast<double>(b[c]);
    return total;
  }
  template <FloatElement T, int W>
  static ESP_SIMD_INLINE void scale_row(const T* x, const T* w, T r, T* y, std::int64_t h) {
    using V = simd::Native<T, W>;
    std::int64_t c = 0;
    for (; c + V::kLanes <= h; c += V::kLanes) {
      (V::load(x + c) * V(r) * V::load(w + c)).store(y + c);
    }
    for (; c < h; ++c) y[c] = x[c] * r * w[c];
  }

  /// sum += a b r
  template <FloatElement T, int W>
  static ESP_SIMD_INLINE void add_product(const T* a, const T* b, T r, T* sum, std::int64_t h) {
    using V = simd::Native<T, W>;
    std::int64_t c = 0;
    for (; c + V::kLanes <= h; c += V::kLanes) {
      fma(V::load(a + c) * V(r), V::load(b + c), V::load(sum + c)).store(sum + c);
    }
    for (; c < h; ++c) sum[c] += a[c] * r * b[c];
  }

  template <FloatElement T, Device D>
  static Tensor<T, D> gain_gradient(const Tensor<T, D>& x, const Tensor<double, D>& factor,
                                    const Tensor<T, D>& dy) {
    constexpr std::int64_t kBlock = 64;
    const std::int64_t rows = x.shape(0), h = x.shape(1);
    const std::int64_t blocks = (rows + kBlock - 1) / kBlock;
    const Tensor<T, D> partial(Shape{blocks, h}, T{0});
    parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      simd::dispatch([&]<int W>() {
        for (std::int64_t b = begin; b < end; ++b) {
          const std::int64_t last = rows < (b + 1) * kBlock ? rows : (b + 1) * kBlock;
          for (std::int64_t n = b * kBlock; n < last; ++n) {
            add_product<T, W>(dy.data() + n * h, x.data() + n * h, static_cast<T>(factor[n]),
                              partial.data() + b * h, h);
          }
        }
      });
    });
    const Tensor<T, D> dw(Shape{h}, T{0});
    for (std::int64_t b = 0; b < blocks; ++b) {
      for (std::int64_t c = 0; c < h; ++c) dw[c] += partial[b * h + c];
    }
    return dw;
  }

  template <FloatElement T>
  static Tensor<T> widened(const AnyTensor& w) {
    return w.dtype() == dtype_of<T>::value ? Tensor<T>(w) : converted<T>(w);
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
