// SPDX-License-Identifier: Apache-2.0
// Keeps router logits small: the mean over tokens of (log sum_e exp z_e)², over the rows of all
// layers together (Zoph et al. 2022, ST-MoE, arXiv:2202.08906, eq. 5).
// Logits of any type; softmax in acc_t, the logarithm and sums over rows in double by blocks of
// 256. Saves the logits and a log-sum per token.
#pragma once

#include <espalier/ops/router_top_k.hpp>

namespace espalier {

template <FloatElement T>
struct RouterZLoss {
  static constexpr const char* kName = "router_z_loss";

  template <std::floating_point A, Device D = Cpu>
  Tensor<A, D> forward(Saved& saved, const AnyTensors& in) const {
    ESP_CPU_ONLY(D, router_z_loss, RouterZLoss, router_z_loss.hpp);
    double total = 0;
    saved.tensors = in;
    for (const AnyTensor& layer : in) {
      const Tensor<T, D> logits(layer);
      const Tensor<double> log_sums = log_sum_exp(logits);
      total += sum_of_squares(log_sums);
      saved.tensors.push_back(log_sums);
    }
    return Tensor<A, D>(Shape{1},
                        static_cast<A>(total / static_cast<double>(detail::total_rows(in))));
  }

  // dz_e = dloss · 2 / rows · log-sum · p_e
  template <std::floating_point A, Device D = Cpu>
  AnyTensors backward(const Saved& saved, const Tensor<A, D>& dy) const {
    const std::size_t layers = saved.tensors.size() / 2;
    const std::int64_t rows = detail::total_rows({saved.tensors.data(), layers});
    const double factor = static_cast<double>(dy[0]) * 2 / static_cast<double>(rows);
    AnyTensors grads;
    for (std::size_t l = 0; l < layers; ++l) {
      const auto logits = saved.get<T, D>(l);
      const auto log_sums = saved.get<double>(layers + l);
      const Tensor<T, D> d(logits.shape());
      detail::each_router_row(
          logits, [=]<int W>(std::int64_t n, const T* z, std::int64_t e, A* p) ESP_SIMD_LAMBDA {
            using V = simd::Native<T, W>;
            cpu::softmax_row<W>(z, e, p);
            const V scale(static_cast<A>(factor * log_sums.data()[n]));
            cpu::map_row<W>(
                e, [=](const V& v) ESP_SIMD_LAMBDA { return v * scale; }, d.data() + n * e, p);
          });
      grads.push_back(d);
    }
    return grads;
  }

 private:
  template <Device D>
  static Tensor<double> log_sum_exp(const Tensor<T, D>& logits) {
    const Tensor<double> y(Shape{logits.shape(0)});
    detail::each_router_row(
        logits, [=]<int W>(std::int64_t n, const T* z, std::int64_t e, acc_t<T>* p)
                    ESP_SIMD_LAMBDA { y.data()[n] = cpu::softmax_row<W>(z, e, p).log(); });
    return y;
  }
  static double sum_of_squares(const Tensor<double>& x) {
    double total = 0;
    for (const double v : x.span()) total += v * v;
    return total;
  }
};

/// `router_logits`: [N, E] of each layer. Returns shape [1], before any coefficient.
/// @throws ShapeError when the layers differ in their number of experts or have no rows.
template <FloatElement T, Device D>
[[nodiscard]] Var<acc_t<T>, D> router_z_loss(const std::vector<Var<T, D>>& router_logits) {
  detail::check_router_logits(RouterZLoss<T>::kName, router_logits);
  return apply_list<acc_t<T>, D>(RouterZLoss<T>{},
                                 std::vector<AnyVar>(router_logits.begin(), router_logits.end()));
}

}  // namespace espalier
