// SPDX-License-Identifier: Apache-2.0
// The auxiliary loss of Mixtral (Fedus et al. 2021, arXiv:2101.03961, eq. 4-6) over the rows of all
// layers:  loss = E · Σ_e share_e · p_e,  share = slots per row that chose e, p = mean softmax.
// A call per layer adds to f64 sums; a last one makes the loss.
//   logits [N, E] of a layer   chosen [N, K]   sums [2 E]: of the probabilities, of the slots
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

constexpr double load_balancing_bytes(std::int64_t n, int e, int k, int element_bytes) {
  return double(n) * (double(e) * element_bytes + 4.0 * k);
}
/// Partial sums of a layer: [chunks, 2 E] in f64.
constexpr std::int64_t load_balancing_chunks(std::int64_t n) {
  return n < 256 * 128 ? (n + 255) / 256 : 128;
}
constexpr std::size_t load_balancing_workspace_bytes(std::int64_t n, int e) {
  return static_cast<std::size_t>(load_balancing_chunks(n)) * 2 * static_cast<std::size_t>(e) * 8;
}

/// sums [2 E] += of one layer, in a fixed order.
template <class T, class Index>
cudaError_t load_balancing_add(double* sums, const T* logits, const Index* chosen, void* workspace,
                               std::int64_t n, int e, int k, cudaStream_t stream);

/// loss [1] from the sums over `rows` rows.
template <class T>
cudaError_t load_balancing_loss(T* loss, const double* sums, std::int64_t rows, int e,
                                cudaStream_t stream);

/// dlogits of one layer = dloss[0] · E / rows · p_e (share_e - <p, share>).
template <class T>
cudaError_t load_balancing_backward(T* dlogits, const T* logits, const double* sums,
                                    const float* dloss, std::int64_t rows, std::int64_t n, int e,
                                    cudaStream_t stream);

}  // namespace espalier::kernels
