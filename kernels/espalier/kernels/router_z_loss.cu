// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/instances.hpp>
#include <espalier/kernels/router_z_loss.cuh>

namespace espalier::kernels {

template cudaError_t router_z_loss(float*, const float*, std::int64_t, void*, cudaStream_t);

#define ESP_INSTANTIATE(T)                                                              \
  template cudaError_t log_sum_exp(float*, const T*, std::int64_t, int, cudaStream_t);  \
  template cudaError_t router_z_loss_backward(T*, const T*, const float*, std::int64_t, \
                                              std::int64_t, int, cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
