// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/routing.cuh>

namespace espalier::kernels {

template cudaError_t count_routes(std::int32_t*, const std::int32_t*, std::int64_t, int, int,
                                  cudaStream_t);
template cudaError_t make_routing(std::int32_t*, std::int32_t*, std::int32_t*, const std::int32_t*,
                                  const std::int32_t*, std::int64_t, int, int, cudaStream_t);

}  // namespace espalier::kernels
