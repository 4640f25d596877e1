// SPDX-License-Identifier: Apache-2.0
// Keeps router logits small: the mean over the rows of all layers of (log Σ_e exp z_e)² (Zoph et
// al. 2022, ST-MoE, arXiv:2202.08906, eq. 5). A call per layer writes the logarithms of its rows;
// one over all of them makes the loss. Rows in f32, their squares summed in f64 in a fixed order.
//   logits, dlogits [N, E] of a layer   log_sums [N]
#pragma once

#include <espalier/kernels/sum.hpp>

namespace espalier::kernels {

constexpr double router_z_loss_bytes(std::int64_t n, int e, int element_bytes) {
  return double(n) * (double(e) * element_bytes + 4.0);
}

/// log_sums_n = log Σ_e exp(logits_ne).
template <class T>
cudaError_t log_sum_exp(float* log_sums, const T* logits, std::int64_t n, int e,
                        cudaStream_t stream);

/// loss [1] = Σ log_sums² / rows. The workspace has sum_workspace_bytes(rows).
template <class T>
cudaError_t router_z_loss(T* loss, const float* log_sums, std::int64_t rows, void* workspace,
                          cudaStream_t stream);

/// dlogits of one layer = dloss[0] · 2 / rows · log-sum · p_e; `rows` of all layers.
template <class T>
cudaError_t router_z_loss_backward(T* dlogits, const T* logits, const float* dloss,
                                   std::int64_t rows, std::int64_t n, int e, cudaStream_t stream);

}  // namespace espalier::kernels
