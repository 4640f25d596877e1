// SPDX-License-Identifier: Apache-2.0
// Launch-bound work. A warp per row; backward computes the row's logarithm again.
#pragma once

#include <espalier/kernels/norms.cuh>
#include <espalier/kernels/router_z_loss.hpp>
#include <espalier/kernels/row_softmax.cuh>

namespace espalier::kernels {

inline constexpr int kZLossWarps = 8;

template <class T>
__global__ void __launch_bounds__(kZLossWarps* kWarp)
    log_sum_exp_kernel(float* log_sums, const T* logits, std::int64_t n, int e) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kZLossWarps + threadIdx.x / kWarp;
  if (row >= n) return;
  const float log_sum = softmax_of_row<WarpRow>(logits + row * e, e).log_sum_exp();
  if (WarpRow::lane() == 0) log_sums[row] = log_sum;
}

template <class T>
__global__ void __launch_bounds__(kZLossWarps* kWarp)
    router_z_loss_backward_kernel(T* dlogits, const T* logits, const float* dloss, double rows,
                                  std::int64_t n, int e) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kZLossWarps + threadIdx.x / kWarp;
  if (row >= n) return;
  logits += row * e;
  dlogits += row * e;
  const RowSoftmax probability = softmax_of_row<WarpRow>(logits, e);
  const float factor = static_cast<float>(double(*dloss) * 2 / rows * probability.log_sum_exp());
  for (int c = WarpRow::lane(); c < e; c += kWarp) {
    dlogits[c] = from_float<T>(factor * probability(to_float(logits[c])));
  }
}

inline unsigned z_loss_blocks(std::int64_t n) {
  return static_cast<unsigned>(ceil_div<std::int64_t>(n, kZLossWarps));
}

template <class T>
cudaError_t log_sum_exp(float* log_sums, const T* logits, std::int64_t n, int e,
                        cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return ESP_LAUNCH(log_sum_exp_kernel<T>, z_loss_blocks(n), kZLossWarps * kWarp, 0, stream,
                    log_sums, logits, n, e);
}

template <class T>
cudaError_t router_z_loss(T* loss, const float* log_sums, std::int64_t rows, void* workspace,
                          cudaStream_t stream) {
  return sum_of_terms(loss, Square<float>{log_sums}, rows, 1.0 / double(rows), workspace, stream);
}

template <class T>
cudaError_t router_z_loss_backward(T* dlogits, const T* logits, const float* dloss,
                                   std::int64_t rows, std::int64_t n, int e, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return ESP_LAUNCH(router_z_loss_backward_kernel<T>, z_loss_blocks(n), kZLossWarps * kWarp, 0,
                    stream, dlogits, logits, dloss, double(rows), n, e);
}

}  // namespace espalier::kernels
