// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/instances.hpp>
#include <espalier/kernels/sigmoid_gate.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                       \
  template cudaError_t sigmoid_gate_forward(T*, const T*, const T*, std::int64_t, std::int64_t,  \
                                            cudaStream_t);                                       \
  template cudaError_t sigmoid_gate_backward(T*, T*, const T*, const T*, const T*, std::int64_t, \
                                             std::int64_t, cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
