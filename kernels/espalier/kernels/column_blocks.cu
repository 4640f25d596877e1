// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/column_blocks.cuh>
#include <espalier/kernels/instances.hpp>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                        \
  template cudaError_t place_columns(T*, Columns, const T*, Columns, std::int64_t, std::int64_t,  \
                                     cudaStream_t);                                               \
  template cudaError_t concat_heads(T*, const T*, const T*, std::int64_t, std::int64_t,           \
                                    std::int64_t, std::int64_t, std::int64_t, cudaStream_t);      \
  template cudaError_t sum_heads(T*, const T*, Columns, std::int64_t, std::int64_t, std::int64_t, \
                                 cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
