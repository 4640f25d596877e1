// SPDX-License-Identifier: Apache-2.0
// The output head, its loss and its log-probabilities, the load-balancing loss and dropout on the
// device Cuda. Logits are f32, a chunk of rows at a time.
#pragma once

#include <algorithm>
#include <vector>

#include <espalier/cuda/elementwise.hpp>
#include <espalier/cuda/gemm.hpp>
#include <espalier/kernels/cross_entropy.hpp>
#include <espalier/kernels/dropout.hpp>
#include <espalier/kernels/load_balancing_loss.hpp>
#include <espalier/kernels/router_top_k.hpp>
#include <espalier/ops/dropout.hpp>
#include <espalier/ops/linear_cross_entropy.hpp>
#include <espalier/ops/load_balancing_loss.hpp>

namespace espalier::cuda {

namespace detail {
inline Matrix matrix(const AnyTensor& m, bool transposed = false) {
  return {m.bytes(), m.dtype(), m.shape(1), transposed};
}
inline Tensor<float, Cuda> zeros(Shape shape) {
  const Tensor<float, Cuda> t(shape);
  fill_zero(t.bytes(), t.size_bytes());
  return t;
}
}  // namespace detail

template <FloatElement T>
void launch_logits(Cuda, const Tensor<float, Cuda>& z, const Tensor<T, Cuda>& x,
                   const AnyTensor& w) {
  gemm(x.shape(0), w.shape(0), x.shape(1), detail::matrix(x), detail::matrix(w, true), z.data(),
       w.shape(0));
}

template <FloatElement A, FloatElement X>
Tensor<A, Cuda> launch_forward(Cuda, const LinearCrossEntropy<X>& op, Saved& saved,
                               const std::vector<AnyTensor>& in) {
  const Tensor<X, Cuda> x(in[0]);
  const AnyTensor& w = in[1];
  espalier::detail::check_head(op.kName, x.shape(), w.shape(), op.targets);
  const std::int64_t n = x.shape(0), h = x.shape(1), v = w.shape(0);
  const Tensor<std::int32_t, Cuda> targets = to<Cuda>(op.targets);
  const Tensor<float, Cuda> log_prob(Shape{n}), shift(Shape{n}), one(Shape{1}, 1.0f);
  const bool gradient = saved.needs[0] || saved.needs[1];
  // The gradient of the logits has the type of x and w where they agree, for the products after it.
  const bool narrow = gradient && x.dtype() == w.dtype();
  const std::int64_t chunk = espalier::detail::rows_a_chunk(n, v);
  const Tensor<float, Cuda> z(Shape{chunk, v});
  Tensor<X, Cuda> dz;
  if (narrow) dz = Tensor<X, Cuda>(Shape{chunk, v});
  Tensor<float, Cuda> dx, dw;
  if (saved.needs[0]) dx = detail::zeros(x.shape());
  if (saved.needs[1]) dw = detail::zeros(w.shape());
  for (std::int64_t begin = 0; begin < n; begin += chunk) {
    const std::int64_t m = std::min(chunk, n - begin);
    const auto rows = x.rows(begin, begin + m);
    gemm(m, v, h, detail::matrix(rows), detail::matrix(w, true), z.data(), v);
    ESP_CUDA(kernels::cross_entropy_forward(ptr(log_prob) + begin, ptr(shift) + begin,
                                            static_cast<std::int32_t*>(nullptr), ptr(z),
                                            ptr(targets) + begin, m, v, stream()));
    if (!gradient) continue;
    Matrix d = detail::matrix(z);
    if (narrow) {
      ESP_CUDA(kernels::cross_entropy_backward(ptr(dz), ptr(z), ptr(shift) + begin,
                                               ptr(targets) + begin, ptr(one), m, v, stream()));
      d = detail::matrix(dz);
    } else {
      ESP_CUDA(kernels::cross_entropy_backward(ptr(z), ptr(z), ptr(shift) + begin,
                                               ptr(targets) + begin, ptr(one), m, v, stream()));
    }
    if (dx) gemm(m, h, v, d, detail::matrix(w), dx.data() + begin * h, h);
    d.transposed = true;
    if (dw) gemm(v, h, m, d, detail::matrix(rows), dw.data(), h, 1.0f, 1.0f);
  }
  const Tensor<float, Cuda> loss = detail::zeros(Shape{1});
  ESP_CUDA(kernels::add_sum(ptr(loss), ptr(log_prob), -1.0f, n, stream()));
  saved.tensors = {dx, dw};
  return loss;
}

template <FloatElement A, FloatElement X>
std::vector<AnyTensor> launch_backward(Cuda, const LinearCrossEntropy<X>&, const Saved& saved,
                                       const Tensor<A, Cuda>& dy) {
  const double factor = static_cast<double>(to<Cpu>(dy)[0]);
  std::vector<AnyTensor> grads(2);
  if (saved.needs[0]) {
    const auto dx = detail::scaled(saved.get<float, Cuda>(0), factor);
    if constexpr (std::same_as<X, float>) {
      grads[0] = dx;
    } else {
      grads[0] = detail::converted<X>(dx);
    }
  }
  if (saved.needs[1]) grads[1] = detail::scaled(saved.get<float, Cuda>(1), factor);
  return grads;
}

template <FloatElement T>
TokenLogProbs<float> launch_log_probs(Cuda, const Tensor<T, Cuda>& x, const AnyTensor& w,
                                      const Tensor<std::int32_t>& host_targets) {
  const std::int64_t n = x.shape(0), h = x.shape(1), v = w.shape(0);
  const Tensor<std::int32_t, Cuda> targets = to<Cuda>(host_targets), argmax(Shape{n});
  const Tensor<float, Cuda> log_prob(Shape{n}), shift(Shape{n});
  const std::int64_t chunk = espalier::detail::rows_a_chunk(n, v);
  const Tensor<float, Cuda> z(Shape{chunk, v});
  for (std::int64_t begin = 0; begin < n; begin += chunk) {
    const std::int64_t m = std::min(chunk, n - begin);
    gemm(m, v, h, detail::matrix(x.rows(begin, begin + m)), detail::matrix(w, true), z.data(), v);
    ESP_CUDA(kernels::cross_entropy_forward(ptr(log_prob) + begin, ptr(shift) + begin,
                                            ptr(argmax) + begin, ptr(z), ptr(targets) + begin, m, v,
                                            stream()));
  }
  return {to<Cpu>(log_prob), to<Cpu>(argmax)};
}

template <FloatElement A, FloatElement T>
Tensor<A, Cuda> launch_forward(Cuda, const LoadBalancingLoss<T>& op, Saved& saved,
                               const std::vector<AnyTensor>& in) {
  const std::int64_t e = in[0].shape(1);
  const Tensor<double, Cuda> sums(Shape{2 * e}, 0.0);
  std::int64_t rows = 0;
  for (const AnyTensor& layer : in) {
    const Tensor<T, Cuda> logits(layer);
    const std::int64_t n = logits.shape(0);
    rows += n;
    const Tensor<float, Cuda> weights(Shape{n, op.top_k});
    const Tensor<std::int32_t, Cuda> chosen(Shape{n, op.top_k});
    ESP_CUDA(kernels::router_top_k_forward(
        ptr(weights), ptr(chosen), static_cast<std::int32_t*>(nullptr), ptr(logits), nullptr, n,
        int(e), kernels::RouterRule{.top_k = int(op.top_k)}, stream()));
    const Workspace workspace(kernels::load_balancing_workspace_bytes(n, int(e)));
    ESP_CUDA(kernels::load_balancing_add(ptr(sums), ptr(logits), ptr(chosen), workspace.data(), n,
                                         int(e), int(op.top_k), stream()));
  }
  const Tensor<float, Cuda> loss(Shape{1});
  ESP_CUDA(kernels::load_balancing_loss(ptr(loss), ptr(sums), rows, int(e), stream()));
  saved.tensors = in;
  saved.tensors.push_back(sums);
  return loss;
}

template <FloatElement A, FloatElement T>
std::vector<AnyTensor> launch_backward(Cuda, const LoadBalancingLoss<T>&, const Saved& saved,
                                       const Tensor<A, Cuda>& dy) {
  const Tensor<double, Cuda> sums(saved.tensors.back());
  std::int64_t rows = 0;
  for (std::size_t l = 0; l + 1 < saved.tensors.size(); ++l) rows += saved.tensors[l].shape(0);
  std::vector<AnyTensor> grads;
  for (std::size_t l = 0; l + 1 < saved.tensors.size(); ++l) {
    const Tensor<T, Cuda> logits(saved.tensors[l]), d(logits.shape());
    ESP_CUDA(kernels::load_balancing_backward(ptr(d), ptr(logits), ptr(sums), ptr(dy), rows,
                                              logits.shape(0), int(logits.shape(1)), stream()));
    grads.push_back(d);
  }
  return grads;
}

namespace detail {
template <FloatElement T>
Tensor<T, Cuda> dropped(const Dropout& op, const Tensor<T, Cuda>& x) {
  Tensor<T, Cuda> y(x.shape());
  ESP_CUDA(kernels::dropout(ptr(y), ptr(x), op.p, op.seed, op.stream, x.numel(), stream()));
  return y;
}
}  // namespace detail

template <FloatElement T>
Tensor<T, Cuda> launch_forward(Cuda, const Dropout& op, Saved&, const Tensor<T, Cuda>& x) {
  ESP_REQUIRE(op.p >= 0 && op.p < 1, Error, Dropout::kName, ": p is ", op.p,
              ", expected 0 <= p < 1");
  return detail::dropped(op, x);
}
template <FloatElement T>
std::array<AnyTensor, 1> launch_backward(Cuda, const Dropout& op, const Saved&,
                                         const Tensor<T, Cuda>& dy) {
  return {detail::dropped(op, dy)};
}

}  // namespace espalier::cuda
