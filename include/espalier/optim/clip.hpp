// SPDX-License-Identifier: Apache-2.0
// Global gradient norm and the clipping coefficient of torch.nn.utils.clip_grad_norm_:
//   total = sqrt(sum over all parameters of |g|²)    coefficient = min(1, max_norm / (total +
//   1e-6))
// Squares are summed in double over blocks of fixed size, and block sums in order: equal bits for
// any number of threads. A parameter without a gradient counts as zero.
#pragma once

#include <vector>

#include <espalier/core/math.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/nn/parameter.hpp>

namespace espalier::optim {

namespace detail {
inline double sum_of_squares(const Tensor<float>& g) {
  constexpr std::int64_t kBlock = 1 << 14;
  const std::int64_t n = g.numel();
  std::vector<double> partial(static_cast<std::size_t>((n + kBlock - 1) / kBlock));
  const float* p = g.data();
  parallel_for(n, kBlock, [&](std::int64_t begin, std::int64_t end) {
    double sum = 0;
    for (std::int64_t i = begin; i < end; ++i) sum += static_cast<double>(p[i]) * p[i];
    partial[static_cast<std::size_t>(begin / kBlock)] = sum;
  });
  double total = 0;
  for (const double s : partial) total += s;
  return total;
}
}  // namespace detail

/// The 2-norm over all gradients, before clipping.
[[nodiscard]] inline double global_grad_norm(const std::vector<NamedParameter>& parameters) {
  const trace::Scope scope("gradient norm");
  double total = 0;
  for (const NamedParameter& p : parameters) {
    const AnyTensor grad = p.var.grad();
    if (grad) trace::count(0, static_cast<double>(grad.size_bytes()));
    if (!grad) continue;
    total += grad.memory().on_host
                 ? detail::sum_of_squares(Tensor<float>(grad))
                 : grad.memory().sum_of_squares(reinterpret_cast<const float*>(grad.bytes()),
                                                grad.numel());
  }
  return math::sqrt(total);
}

/// The factor for every gradient; `max_norm` <= 0 disables clipping.
[[nodiscard]] inline double clip_coefficient(double total_norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (total_norm + 1e-6)) : 1.0;
}

}  // namespace espalier::optim
