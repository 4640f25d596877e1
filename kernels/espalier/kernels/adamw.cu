// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/adamw.cuh>

namespace espalier::kernels {

template cudaError_t adamw(float*, float*, float*, const float*, std::int64_t,
                           const AdamWConstants&, cudaStream_t);

}  // namespace espalier::kernels
