// SPDX-License-Identifier: Apache-2.0
// The device `Cuda`: Tensor<T, Cuda> lies in GPU memory, and ops on it launch the kernels.
//   const Tensor<float, Cuda> x = to<Cuda>(on_the_host);   ...   to<Cpu>(y)
// An op reaches its CUDA path by argument-dependent lookup: its forward and backward call
// cuda_forward(*this, ...) and cuda_backward(*this, ...), which cuda/NAME.hpp defines. So the
// headers of ops/ know nothing of CUDA, and a program that uses the device includes
// espalier/cuda.hpp.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <espalier/cuda/runtime.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier {

struct Cuda {
  static constexpr const char* kName = "cuda";
  static constexpr bool is_cuda = true;
};

namespace cuda {
inline constexpr Memory kMemory = {"cuda", false, allocate, copy, upload, download};
}

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
/// T as kernels know it.
template <class T>
using kernel_t = typename detail::kernel_type<T>::type;

/// The elements of a tensor as a kernel takes them.
template <Element T>
[[nodiscard]] kernel_t<T>* ptr(const Tensor<T, Cuda>& x) {
  return reinterpret_cast<kernel_t<T>*>(x.bytes());
}

/// Device memory for the length of a call; the stream keeps it until the kernels before its end
/// ran.
class Workspace {
 public:
  explicit Workspace(std::size_t bytes) : memory_(bytes > 0 ? allocate(bytes) : nullptr) {}
  void* data() const { return memory_.get(); }

 private:
  std::shared_ptr<std::byte> memory_;
};

}  // namespace cuda
}  // namespace espalier
