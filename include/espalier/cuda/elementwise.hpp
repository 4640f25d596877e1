// SPDX-License-Identifier: Apache-2.0
// add, mul, scale, clamp, cast and mask_columns on the device Cuda.
#pragma once

#include <array>
#include <limits>
#include <vector>

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/elementwise.hpp>
#include <espalier/ops/add.hpp>
#include <espalier/ops/cast.hpp>
#include <espalier/ops/clamp.hpp>
#include <espalier/ops/mask_columns.hpp>
#include <espalier/ops/mul.hpp>
#include <espalier/ops/scale.hpp>

namespace espalier::cuda::detail {

/// A gradient summed in f32 as elements of its parameter's type.
inline AnyTensor in_type(const AnyTensor& sum, DType type) {
  if (type == DType::f32) return sum;
  const AnyTensor rounded(sum.shape(), type, sum.memory());
  visit_dtype<bf16, f16>("gradient", type, [&]<class P>() {
    ESP_CUDA(kernels::cast(ptr(Tensor<P, Cuda>(rounded)), ptr(Tensor<float, Cuda>(sum)),
                           sum.numel(), stream()));
  });
  return rounded;
}
template <FloatElement T>
Tensor<T, Cuda> product(const Tensor<T, Cuda>& a, const Tensor<T, Cuda>& b) {
  Tensor<T, Cuda> y(a.shape());
  ESP_CUDA(kernels::multiply(ptr(y), ptr(a), ptr(b), y.numel(), stream()));
  return y;
}
template <FloatElement T>
Tensor<T, Cuda> scaled(const Tensor<T, Cuda>& x, double factor) {
  Tensor<T, Cuda> y(x.shape());
  ESP_CUDA(kernels::scale(ptr(y), ptr(x), static_cast<float>(factor), y.numel(), stream()));
  return y;
}
template <FloatElement To, FloatElement From>
Tensor<To, Cuda> converted(const Tensor<From, Cuda>& x) {
  Tensor<To, Cuda> y(x.shape());
  ESP_CUDA(kernels::cast(ptr(y), ptr(x), y.numel(), stream()));
  return y;
}
template <FloatElement T>
Tensor<T, Cuda> masked(const Tensor<T, Cuda>& x, const std::vector<bool>& keep, float dropped) {
  const Tensor<std::uint8_t, Cuda> mask(Shape{static_cast<std::int64_t>(keep.size())},
                                        std::vector<std::uint8_t>(keep.begin(), keep.end()));
  Tensor<T, Cuda> y(x.shape());
  ESP_CUDA(
      kernels::mask_columns(ptr(y), ptr(x), ptr(mask), dropped, x.shape(0), x.shape(1), stream()));
  return y;
}

}  // namespace espalier::cuda::detail

namespace espalier {

template <CudaFloat T>
struct Launch<Add, T, Cuda> {
  static Tensor<T, Cuda> forward(const Add&, Saved&, const Tensor<T, Cuda>& a,
                                 const Tensor<T, Cuda>& b) {
    ESP_REQUIRE(a.shape() == b.shape(), ShapeError, Add::kName, ": a is ", a.shape(), ", b is ",
                b.shape());
    Tensor<T, Cuda> y(a.shape());
    ESP_CUDA(kernels::add(ptr(y), ptr(a), ptr(b), y.numel(), cuda::stream()));
    return y;
  }
  static std::array<AnyTensor, 2> backward(const Add&, const Saved&, const Tensor<T, Cuda>& dy) {
    return {dy, dy};
  }
};

template <CudaFloat T>
struct Launch<Mul, T, Cuda> {
  static Tensor<T, Cuda> forward(const Mul&, Saved& saved, const Tensor<T, Cuda>& a,
                                 const Tensor<T, Cuda>& b) {
    ESP_REQUIRE(a.shape() == b.shape(), ShapeError, Mul::kName, ": a is ", a.shape(), ", b is ",
                b.shape());
    saved.tensors = {a, b};
    return cuda::detail::product(a, b);
  }
  static std::array<AnyTensor, 2> backward(const Mul&, const Saved& saved,
                                           const Tensor<T, Cuda>& dy) {
    return {cuda::detail::product(dy, saved.get<T, Cuda>(1)),
            cuda::detail::product(dy, saved.get<T, Cuda>(0))};
  }
};

template <CudaFloat T>
struct Launch<Scale, T, Cuda> {
  static Tensor<T, Cuda> forward(const Scale& op, Saved&, const Tensor<T, Cuda>& x) {
    return cuda::detail::scaled(x, op.factor);
  }
  static std::array<AnyTensor, 1> backward(const Scale& op, const Saved&,
                                           const Tensor<T, Cuda>& dy) {
    return {cuda::detail::scaled(dy, op.factor)};
  }
};

template <CudaFloat T>
struct Launch<Clamp, T, Cuda> {
  static Tensor<T, Cuda> forward(const Clamp& op, Saved& saved, const Tensor<T, Cuda>& x) {
    Tensor<T, Cuda> y(x.shape());
    ESP_CUDA(kernels::clamp(ptr(y), ptr(x), cpu::bound_of<T>(op.low), cpu::bound_of<T>(op.high),
                            y.numel(), cuda::stream()));
    saved.tensors = {x};
    return y;
  }
  static std::array<AnyTensor, 1> backward(const Clamp& op, const Saved& saved,
                                           const Tensor<T, Cuda>& dy) {
    const auto x = saved.get<T, Cuda>(0);
    const Tensor<T, Cuda> dx(x.shape());
    ESP_CUDA(kernels::clamp_backward(ptr(dx), ptr(dy), ptr(x), cpu::bound_of<T>(op.low),
                                     cpu::bound_of<T>(op.high), dx.numel(), cuda::stream()));
    return {dx};
  }
};

template <CudaFloat To, CudaFloat From>
struct Launch<Cast<From>, To, Cuda> {
  static Tensor<To, Cuda> forward(const Cast<From>&, Saved&, const AnyTensors& in) {
    return cuda::detail::converted<To>(Tensor<From, Cuda>(in[0]));
  }
  static AnyTensors backward(const Cast<From>&, const Saved&, const Tensor<To, Cuda>& dy) {
    return {cuda::detail::converted<From>(dy)};
  }
};

template <CudaFloat T>
struct Launch<MaskColumns, T, Cuda> {
  static Tensor<T, Cuda> forward(const MaskColumns& op, Saved&, const Tensor<T, Cuda>& x) {
    ESP_REQUIRE(x.shape().rank() == 2 && x.shape(1) == static_cast<std::int64_t>(op.keep.size()),
                ShapeError, MaskColumns::kName, ": x is ", x.shape(), ", the mask has ",
                op.keep.size(), " columns");
    return cuda::detail::masked(x, op.keep, -std::numeric_limits<float>::infinity());
  }
  static std::array<AnyTensor, 1> backward(const MaskColumns& op, const Saved&,
                                           const Tensor<T, Cuda>& dy) {
    return {cuda::detail::masked(dy, op.keep, 0.0f)};
  }
};

}  // namespace espalier
