// SPDX-License-Identifier: Apache-2.0
// What a device other than the CPU runs in the place of an op's own forward and backward. A header
// of the device (for Cuda: espalier/cuda/NAME.hpp) specialises Launch for the op; T is the element
// type of the op's result:
//   template <CudaFloat T>
//   struct Launch<SwiGlu, T, Cuda> {
//     static Tensor<T, Cuda> forward(const SwiGlu& op, Saved& saved, const Tensor<T, Cuda>& gate,
//                                    const Tensor<T, Cuda>& up);
//     static std::array<AnyTensor, 2> backward(const SwiGlu& op, const Saved& saved,
//                                              const Tensor<T, Cuda>& dy);
//   };
// `forward` takes one tensor per input and `backward` returns an array of one gradient per input.
// An op of apply_list() takes a AnyTensors and returns one. Where the specialisation is
// not included, or one of the two is missing or has other types, the op does not compile for the
// device: the message of the op's ESP_CPU_ONLY names the header. What has no gradient has a
// `forward` alone, with parameters of its own.
#pragma once

#include <concepts>
#include <cstddef>
#include <vector>

#include <espalier/tensor/tensor.hpp>

/// In the `forward` of an op's members: what a program on a GPU is told where Launch is missing.
#define ESP_CPU_ONLY(D, name, Op, header)                                             \
  static_assert(!D::is_cuda, #name " on this device: include <espalier/cuda/" #header \
                                   ">, which defines Launch<" #Op ">")

namespace espalier {

/// The inputs of an op of apply_list(), or a gradient for each.
using AnyTensors = std::vector<AnyTensor>;

/// Shape and type without the values: for a backward pass that needs no more.
[[nodiscard]] inline AnyTensor only_shape(const AnyTensor& x) {
  return AnyTensor(nullptr, x.shape(), x.dtype());
}

/// What an op's forward keeps for its backward.
struct Saved {
  AnyTensors tensors;
  // Per input: whether its gradient is wanted. Set before forward and again before backward, which
  // may want fewer.
  std::vector<bool> needs;
  template <Element T, Device D = Cpu>
  Tensor<T, D> get(std::size_t i) const {
    return Tensor<T, D>(tensors.at(i));
  }
};

/// The specialisation point. Not defined for the CPU, which runs the op's members.
template <class Op, class T, class D>
struct Launch;

/// D runs `Op` on inputs of the types X by Launch, and computes `Gradients` of them.
template <class Op, class T, class D, class Gradients, class... X>
concept Launched = D::is_cuda &&
    requires(const Op& op, Saved& saved, const Saved& kept, const Tensor<T, D>& dy, const X&... x) {
  { Launch<Op, T, D>::forward(op, saved, x...) } -> std::same_as<Tensor<T, D>>;
  { Launch<Op, T, D>::backward(op, kept, dy) } -> std::same_as<Gradients>;
};

/// D runs `Op`, which has no gradient, on arguments of the types X by Launch.
template <class Op, class T, class D, class... X>
concept LaunchedForward = D::is_cuda && requires(const X&... x) {
  Launch<Op, T, D>::forward(x...);
};

namespace detail {

/// Refuses an op that D cannot launch, unless the op's members run anywhere (`kAnyDevice`): a host
/// loop would follow pointers of the device.
template <class Op, class T, class D, class Gradients, class... X>
void require_launch() {
  if constexpr (!requires { Op::kAnyDevice; }) {
    static_assert(Launched<Op, T, D, Gradients, X...>,
                  "no Launch<Op, T, D> with a forward and a backward of these types "
                  "(autograd/launch.hpp): include the op's header of espalier/cuda/, which is for "
                  "float and bf16");
  }
}

}  // namespace detail

}  // namespace espalier
