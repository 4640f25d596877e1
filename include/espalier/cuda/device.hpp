// SPDX-License-Identifier: Apache-2.0
// The device `Cuda`: Tensor<T, Cuda> lies in GPU memory, and ops on it launch the kernels.
//   const Tensor<float, Cuda> x = to<Cuda>(on_the_host);   ...   to<Cpu>(y)
// cuda/NAME.hpp specialises Launch (autograd/launch.hpp) for an op, so the headers of ops/ know
// nothing of CUDA. A program that uses the device includes espalier/cuda.hpp.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <espalier/autograd/launch.hpp>
#include <espalier/cuda/runtime.hpp>
#include <espalier/kernels/adamw.hpp>
#include <espalier/kernels/elementwise.hpp>
#include <espalier/kernels/norms.hpp>
#include <espalier/ops/adamw_step.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier {

namespace cuda {

struct Cuda {
  static constexpr const char* kName = "cuda";
  static constexpr bool is_cuda = true;
};

namespace detail {
template <class T>
struct kernel_type {
  using type = T;
};
template <>
struct kernel_type<bf16> {
  using type = __nv_bfloat16;
};
template <>
struct kernel_type<f16> {
  using type = __half;
};
static_assert(sizeof(__nv_bfloat16) == sizeof(bf16) && sizeof(__half) == sizeof(f16));
}  // namespace detail
/// The CUDA type of the elements T.
template <class T>
using kernel_t = typename detail::kernel_type<T>::type;

/// Device memory for the scope of a call. It is freed in stream order, so after the kernels that
/// use it.
class Workspace {
 public:
  explicit Workspace(std::size_t bytes) : memory_(bytes > 0 ? allocate(bytes) : nullptr) {}
  void* data() const { return memory_.get(); }

 private:
  std::shared_ptr<std::byte> memory_;
};

namespace detail {

inline void add(DType dtype, std::byte* to, const std::byte* a, const std::byte* b,
                std::int64_t n) {
  visit_dtype<float, bf16>("add on cuda", dtype, [&]<class T>() {
    using K = kernel_t<T>;
    ESP_CUDA(kernels::add(reinterpret_cast<K*>(to), reinterpret_cast<const K*>(a),
                          reinterpret_cast<const K*>(b), n, stream()));
  });
}

inline double sum_of_squares(const float* x, std::int64_t n) {
  const Workspace workspace(kernels::sum_of_squares_workspace_bytes(n)), sum(sizeof(double));
  ESP_CUDA(
      kernels::sum_of_squares(static_cast<double*>(sum.data()), x, n, workspace.data(), stream()));
  double result = 0;
  download(reinterpret_cast<std::byte*>(&result), static_cast<const std::byte*>(sum.data()),
           sizeof result);
  return result;
}

inline void adamw(float* p, float* m, float* v, const float* grad, std::int64_t n,
                  const AdamWStep& s) {
  const kernels::AdamWConstants constants{
      s.keep, s.one_minus_beta1, s.beta2, s.one_minus_beta2, s.root_correction2,
      s.eps,  s.step_size,       s.scale};
  ESP_CUDA(kernels::adamw(p, m, v, grad, n, constants, stream()));
}

}  // namespace detail

inline constexpr Memory kMemory = {"cuda",       false,    allocate,    copy,
                                   upload,       download, detail::add, detail::sum_of_squares,
                                   detail::adamw};

}  // namespace cuda

using cuda::Cuda;

/// Element types that ops on Cuda compute in.
template <class T>
concept CudaFloat = std::same_as<T, float> || std::same_as<T, bf16>;

template <>
inline const Memory& memory_of<Cuda>() {
  return cuda::kMemory;
}

/// The tensor in the memory of D; shares it where it is there already.
template <Device D, Element T, Device From>
[[nodiscard]] Tensor<T, D> to(const Tensor<T, From>& x) {
  return Tensor<T, D>(x.on(memory_of<D>()));
}

namespace cuda {

/// The pointer of a tensor for a kernel.
template <Element T>
[[nodiscard]] kernel_t<T>* ptr(const Tensor<T, Cuda>& x) {
  return reinterpret_cast<kernel_t<T>*>(x.bytes());
}

namespace detail {
/// Calls f with the type of the parameter `w` where a kernel on activations T exists for it: T,
/// f32, and for T = f32 all.
template <FloatElement T, class F>
void visit_weight(const char* op, DType w, F&& f) {
  if constexpr (std::same_as<T, float>) {
    visit_dtype<float, bf16, f16>(op, w, f);
  } else {
    visit_dtype<T, float>(op, w, f);
  }
}
}  // namespace detail

}  // namespace cuda
}  // namespace espalier
