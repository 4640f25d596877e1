// SPDX-License-Identifier: Apache-2.0
// Attention on the device Cuda, of packed segments and of continuations of caches, with sinks or
// without.
#pragma once

#include <vector>

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/attention.hpp>
#include <espalier/kernels/attention_sinks.hpp>
#include <espalier/kernels/elementwise.hpp>
#include <espalier/ops/attention.hpp>

namespace espalier::cuda::detail {

/// The segments in device memory.
template <FloatElement T>
class DeviceSegments {
 public:
  using Segment = kernels::AttentionSegment<kernel_t<T>>;

  void add(const T* k, const T* v, std::int64_t q_begin, std::int64_t q_rows,
           std::int64_t kv_rows) {
    const auto pointer = [](const T* p) { return reinterpret_cast<const kernel_t<T>*>(p); };
    host_.push_back({pointer(k), pointer(v), q_begin, q_rows, kv_rows});
  }
  const Segment* upload() {
    device_ = allocate(host_.size() * sizeof(Segment));
    cuda::upload(device_.get(), reinterpret_cast<const std::byte*>(host_.data()),
                 host_.size() * sizeof(Segment));
    return reinterpret_cast<const Segment*>(device_.get());
  }
  int size() const { return static_cast<int>(host_.size()); }

 private:
  std::vector<Segment> host_;
  std::shared_ptr<std::byte> device_;
};

template <FloatElement T>
DeviceSegments<T> packed_segments(const CausalAttention& op, const Tensor<T, Cuda>& k,
                                  const Tensor<T, Cuda>& v) {
  DeviceSegments<T> segments;
  const std::int64_t width = k.shape(1) * k.shape(2);
  for (std::size_t s = 0; s + 1 < op.segments.size(); ++s) {
    const std::int64_t at = op.segments[s], rows = op.segments[s + 1] - at;
    segments.add(k.data() + at * width, v.data() + at * width, at, rows, rows);
  }
  return segments;
}

inline kernels::AttentionSizes attention_sizes(const Shape& q, const Shape& k, int segments,
                                               std::int64_t window) {
  return {q[0], segments, int(q[1]), int(k[1]), int(q[2]), window};
}

struct AttentionGradients {
  AnyTensor dq, dk, dv;
  Tensor<float, Cuda> dot;  // [N, A], <dy, y> of each row and head
};

template <FloatElement T>
AttentionGradients attention_gradients(const CausalAttention& op, const Saved& saved,
                                       const Tensor<T, Cuda>& dy) {
  const auto q = saved.get<T, Cuda>(0), k = saved.get<T, Cuda>(1), v = saved.get<T, Cuda>(2),
             y = saved.get<T, Cuda>(3);
  const auto log_sum = saved.get<float, Cuda>(4);
  auto segments = packed_segments(op, k, v);
  const Tensor<T, Cuda> dq(q.shape()), dk(k.shape()), dv(v.shape());
  const Tensor<float, Cuda> dot(log_sum.shape());
  ESP_CUDA(kernels::attention_backward(
      {ptr(dq), ptr(dk), ptr(dv), ptr(dot), ptr(dy), ptr(y), ptr(log_sum), ptr(q)},
      segments.upload(), attention_sizes(q.shape(), k.shape(), segments.size(), op.window),
      stream()));
  return {dq, dk, dv, dot};
}

/// The sinks of `heads` query heads in f32.
inline Tensor<float, Cuda> widened_sinks(const AnyTensor& sinks, std::int64_t heads) {
  ESP_REQUIRE(sinks.shape() == Shape{heads}, ShapeError, CausalAttention::kName, ": sinks is ",
              sinks.shape(), ", expected [", heads, "], one for each query head");
  if (sinks.dtype() == DType::f32) return Tensor<float, Cuda>(sinks);
  const Tensor<float, Cuda> wide(sinks.shape());
  visit_dtype<bf16, f16>(CausalAttention::kName, sinks.dtype(), [&]<class S>() {
    ESP_CUDA(kernels::cast(ptr(wide), ptr(Tensor<S, Cuda>(sinks)), heads, stream()));
  });
  return wide;
}

}  // namespace espalier::cuda::detail

namespace espalier {

template <CudaFloat T>
struct Launch<CausalAttention, T, Cuda> {
  static Tensor<T, Cuda> forward(const CausalAttention& op, Saved& saved, const Tensor<T, Cuda>& q,
                                 const Tensor<T, Cuda>& k, const Tensor<T, Cuda>& v) {
    op.check(q.shape(), k.shape(), v.shape());
    auto segments = cuda::detail::packed_segments(op, k, v);
    Tensor<T, Cuda> y(q.shape());
    const Tensor<float, Cuda> log_sum(Shape{q.shape(0), q.shape(1)});
    ESP_CUDA(kernels::attention_forward(
        ptr(y), ptr(log_sum), ptr(q), segments.upload(),
        cuda::detail::attention_sizes(q.shape(), k.shape(), segments.size(), op.window),
        cuda::stream()));
    saved.tensors = {q, k, v, y, log_sum};
    return y;
  }
  static std::array<AnyTensor, 3> backward(const CausalAttention& op, const Saved& saved,
                                           const Tensor<T, Cuda>& dy) {
    auto grads = cuda::detail::attention_gradients(op, saved, dy);
    return {std::move(grads.dq), std::move(grads.dk), std::move(grads.dv)};
  }
};

template <CudaFloat T>
struct Launch<AttentionWithSinks, T, Cuda> {
  static Tensor<T, Cuda> forward(const AttentionWithSinks& op, Saved& saved, const AnyTensors& in) {
    const Tensor<T, Cuda> q(in[0]), k(in[1]), v(in[2]);
    op.causal.check(q.shape(), k.shape(), v.shape());
    const auto sinks = cuda::detail::widened_sinks(in[3], q.shape(1));
    Tensor<T, Cuda> y = Launch<CausalAttention, T, Cuda>::forward(op.causal, saved, q, k, v);
    ESP_CUDA(kernels::attention_sinks(ptr(y), ptr(saved.get<float, Cuda>(4)), ptr(sinks),
                                      {q.shape(0), q.shape(1), q.shape(2)}, cuda::stream()));
    saved.tensors.push_back(in[3]);
    return y;
  }
  static AnyTensors backward(const AttentionWithSinks& op, const Saved& saved,
                             const Tensor<T, Cuda>& dy) {
    auto grads = cuda::detail::attention_gradients(op.causal, saved, dy);
    AnyTensors all = {grads.dq, grads.dk, grads.dv, AnyTensor()};
    if (!saved.needs[3]) return all;
    const AnyTensor& stored = saved.tensors[5];
    const auto sinks = cuda::detail::widened_sinks(stored, grads.dot.shape(1));
    visit_dtype<float, bf16, f16>(AttentionWithSinks::kName, stored.dtype(), [&]<class S>() {
      const Tensor<S, Cuda> d(stored.shape());
      ESP_CUDA(kernels::attention_sinks_backward(
          ptr(d), ptr(grads.dot), ptr(saved.get<float, Cuda>(4)), ptr(sinks), grads.dot.shape(0),
          grads.dot.shape(1), cuda::stream()));
      all[3] = d;
    });
    return all;
  }
};

template <CudaFloat T>
struct Launch<CachedAttention, T, Cuda> {
  /// The queries and the results of all segments lie one after another. `sinks`: empty, or [A] on
  /// the device, of f32, bf16 or f16.
  static void forward(const std::vector<cpu::AttentionSegment<T>>& work,
                      const cpu::AttentionHeads& heads, const AnyTensor& sinks) {
    if (work.empty()) return;
    cuda::detail::DeviceSegments<T> segments;
    std::int64_t rows = 0;
    for (const auto& s : work) {
      segments.add(s.k, s.v, rows, s.q_rows, s.kv_rows);
      rows += s.q_rows;
    }
    auto* const y = reinterpret_cast<cuda::kernel_t<T>*>(work[0].y);
    Tensor<float, Cuda> log_sum;
    if (sinks) log_sum = Tensor<float, Cuda>(Shape{rows, heads.heads});
    ESP_CUDA(kernels::attention_forward(y, sinks ? ptr(log_sum) : nullptr,
                                        reinterpret_cast<const cuda::kernel_t<T>*>(work[0].q),
                                        segments.upload(),
                                        {rows, segments.size(), int(heads.heads),
                                         int(heads.kv_heads), int(heads.head_dim), heads.window},
                                        cuda::stream()));
    if (!sinks) return;
    const auto wide = cuda::detail::widened_sinks(sinks, heads.heads);
    ESP_CUDA(kernels::attention_sinks(y, ptr(log_sum), ptr(wide),
                                      {rows, heads.heads, heads.head_dim}, cuda::stream()));
  }
};

}  // namespace espalier
