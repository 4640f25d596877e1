// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/instances.hpp>
#include <espalier/kernels/router_top_k.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                        \
  template cudaError_t router_top_k_forward(float*, std::int32_t*, std::int32_t*, const T*,       \
                                            const float*, std::int64_t, int, const RouterRule&,   \
                                            cudaStream_t);                                        \
  template cudaError_t router_top_k_backward(T*, const float*, const float*, const std::int32_t*, \
                                             const T*, std::int64_t, int, const RouterRule&,      \
                                             cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
