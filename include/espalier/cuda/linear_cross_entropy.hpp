// SPDX-License-Identifier: Apache-2.0
// The output head, its loss and its log-probabilities on the device Cuda. Logits are f32, a chunk
// of rows at a time.
#pragma once

#include <algorithm>
#include <vector>

#include <espalier/cuda/elementwise.hpp>
#include <espalier/cuda/gemm.hpp>
#include <espalier/kernels/cross_entropy.hpp>
#include <espalier/ops/linear_cross_entropy.hpp>

namespace espalier::cuda::detail {

inline Matrix matrix(const AnyTensor& m, bool transposed = false) {
  return {m.bytes(), m.dtype(), m.shape(1), transposed};
}
inline Tensor<float, Cuda> zeros(Shape shape) {
  const Tensor<float, Cuda> t(shape);
  fill_zero(t.bytes(), t.size_bytes());
  return t;
}

}  // namespace espalier::cuda::detail

namespace espalier {

template <CudaFloat X>
struct Launch<LinearCrossEntropy<X>, float, Cuda> {
  static Tensor<float, Cuda> forward(const LinearCrossEntropy<X>& op, Saved& saved,
                                     const AnyTensors& in) {
    const Tensor<X, Cuda> x(in[0]);
    const AnyTensor& w = in[1];
    detail::check_head(op.kName, x.shape(), w.shape(), op.targets);
    const std::int64_t n = x.shape(0), h = x.shape(1), v = w.shape(0);
    const Tensor<std::int32_t, Cuda> targets = to<Cuda>(op.targets);
    const Tensor<float, Cuda> log_prob(Shape{n}), shift(Shape{n}), one(Shape{1}, 1.0f);
    const bool gradient = saved.needs[0] || saved.needs[1];
    // The gradient of the logits has the type of x and w where they agree, for the products after
    // it.
    const bool narrow = gradient && x.dtype() == w.dtype();
    const std::int64_t chunk = detail::rows_a_chunk(n, v);
    const Tensor<float, Cuda> z(Shape{chunk, v});
    Tensor<X, Cuda> dz;
    if (narrow) dz = Tensor<X, Cuda>(Shape{chunk, v});
    Tensor<float, Cuda> dx, dw;
    if (saved.needs[0]) dx = cuda::detail::zeros(x.shape());
    if (saved.needs[1]) dw = cuda::detail::zeros(w.shape());
    for (std::int64_t begin = 0; begin < n; begin += chunk) {
      const std::int64_t m = std::min(chunk, n - begin);
      const auto rows = x.rows(begin, begin + m);
      cuda::gemm(m, v, h, cuda::detail::matrix(rows), cuda::detail::matrix(w, true), z.data(), v);
      ESP_CUDA(kernels::cross_entropy_forward(ptr(log_prob) + begin, ptr(shift) + begin,
                                              static_cast<std::int32_t*>(nullptr), ptr(z),
                                              ptr(targets) + begin, m, v, cuda::stream()));
      if (!gradient) continue;
      cuda::Matrix d = cuda::detail::matrix(z);
      if (narrow) {
        ESP_CUDA(kernels::cross_entropy_backward(ptr(dz), ptr(z), ptr(shift) + begin,
                                                 ptr(targets) + begin, ptr(one), m, v,
                                                 cuda::stream()));
        d = cuda::detail::matrix(dz);
      } else {
        ESP_CUDA(kernels::cross_entropy_backward(ptr(z), ptr(z), ptr(shift) + begin,
                                                 ptr(targets) + begin, ptr(one), m, v,
                                                 cuda::stream()));
      }
      if (dx) cuda::gemm(m, h, v, d, cuda::detail::matrix(w), dx.data() + begin * h, h);
      d.transposed = true;
      if (dw) cuda::gemm(v, h, m, d, cuda::detail::matrix(rows), dw.data(), h, 1.0f, 1.0f);
    }
    const Tensor<float, Cuda> loss = cuda::detail::zeros(Shape{1});
    ESP_CUDA(kernels::add_sum(ptr(loss), ptr(log_prob), -1.0f, n, cuda::stream()));
    saved.tensors = {dx, dw};
    return loss;
  }
  static AnyTensors backward(const LinearCrossEntropy<X>&, const Saved& saved,
                             const Tensor<float, Cuda>& dy) {
    const double factor = static_cast<double>(to<Cpu>(dy)[0]);
    AnyTensors grads(2);
    if (saved.needs[0]) {
      const auto dx = cuda::detail::scaled(saved.get<float, Cuda>(0), factor);
      if constexpr (std::same_as<X, float>) {
        grads[0] = dx;
      } else {
        grads[0] = cuda::detail::converted<X>(dx);
      }
    }
    if (saved.needs[1]) grads[1] = cuda::detail::scaled(saved.get<float, Cuda>(1), factor);
    return grads;
  }
};

template <CudaFloat T>
struct Launch<LinearLogits, T, Cuda> {
  static void forward(const Tensor<float, Cuda>& z, const Tensor<T, Cuda>& x, const AnyTensor& w) {
    cuda::gemm(x.shape(0), w.shape(0), x.shape(1), cuda::detail::matrix(x),
               cuda::detail::matrix(w, true), z.data(), w.shape(0));
  }
};

template <CudaFloat T>
struct Launch<LinearLogProbs, T, Cuda> {
  static TokenLogProbs<float> forward(const Tensor<T, Cuda>& x, const AnyTensor& w,
                                      const Tensor<std::int32_t>& host_targets) {
    const std::int64_t n = x.shape(0), h = x.shape(1), v = w.shape(0);
    const Tensor<std::int32_t, Cuda> targets = to<Cuda>(host_targets), argmax(Shape{n});
    const Tensor<float, Cuda> log_prob(Shape{n}), shift(Shape{n});
    const std::int64_t chunk = detail::rows_a_chunk(n, v);
    const Tensor<float, Cuda> z(Shape{chunk, v});
    for (std::int64_t begin = 0; begin < n; begin += chunk) {
      const std::int64_t m = std::min(chunk, n - begin);
      cuda::gemm(m, v, h, cuda::detail::matrix(x.rows(begin, begin + m)),
                 cuda::detail::matrix(w, true), z.data(), v);
      ESP_CUDA(kernels::cross_entropy_forward(ptr(log_prob) + begin, ptr(shift) + begin,
                                              ptr(argmax) + begin, ptr(z), ptr(targets) + begin, m,
                                              v, cuda::stream()));
    }
    return {to<Cpu>(log_prob), to<Cpu>(argmax)};
  }
};

}  // namespace espalier
