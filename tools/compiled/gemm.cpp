// SPDX-License-Identifier: Apache-2.0
// Matrix products, compiled once for all programs and tests of this repository.
#include <espalier/ops/cpu/gemm.hpp>

namespace espalier::cpu {
template void gemm_batch<float>(std::span<const GemmProblem<float>>);
template void gemm_batch<bf16>(std::span<const GemmProblem<bf16>>);
template void gemm_batch<double>(std::span<const GemmProblem<double>>);
}  // namespace espalier::cpu
