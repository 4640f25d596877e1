// SPDX-License-Identifier: Apache-2.0
// The auxiliary loss of Mixtral as Hugging Face defines it (Fedus et al. 2021, arXiv:2101.03961,
// eq. 4-6, over the rows of all layers together and with top-k counts):
//   P = softmax(logits)  M = one-hot of the chosen experts  f[k,e] = mean M  p[e] = mean P
//   loss = E · sum over k, e of f[k,e] p[e]          balanced: K, collapsed: E
// f is a constant for the gradient. Rows are real tokens only: packed batches have no padding.
// Logits of any type; softmax and loss in acc_t, sums over rows in double by blocks of 256.
#pragma once

#include <espalier/ops/router_top_k.hpp>

namespace espalier {

template <FloatElement T>
struct LoadBalancingLoss {
  static constexpr const char* kName = "load_balancing_loss";
  std::int64_t top_k;

  template <std::floating_point A, Device D = Cpu>
  Tensor<A, D> forward(Saved& saved, const AnyTensors& in) const {
    ESP_CPU_ONLY(D, load_balancing_loss, LoadBalancingLoss, load_balancing_loss.hpp);
    const std::int64_t e = in[0].shape(1), rows = detail::total_rows(in);
    Tensor<double> share(Shape{e}, 0.0);  // sum over k of f[k, e]
    std::vector<double> mean(e, 0.0);
    for (const AnyTensor& layer : in) {
      const Tensor<T, D> logits(layer);
      for (const std::int32_t c : select_top_k(logits, top_k).span()) share[c] += 1;
      add_probabilities(logits, mean);
    }
    double loss = 0;
    for (std::int64_t c = 0; c < e; ++c) {
      share[c] /= static_cast<double>(rows);
      loss += share[c] * mean[c] / static_cast<double>(rows);
    }
    saved.tensors = in;
    saved.tensors.push_back(share);
    return Tensor<A, D>(Shape{1}, static_cast<A>(loss * static_cast<double>(e)));
  }

  // dz_e = dloss · E / rows · p_e (s_e - <p, s>) with s the shares. Subtracting their mean first
  // changes nothing but the rounding: near balance the shares are almost equal.
  template <std::floating_point A, Device D = Cpu>
  AnyTensors backward(const Saved& saved, const Tensor<A, D>& dy) const {
    const AnyTensors layers(saved.tensors.begin(), saved.tensors.end() - 1);
    const Tensor<double> share(saved.tensors.back());
    const std::int64_t e = share.numel();
    const A factor = static_cast<A>(static_cast<double>(dy[0]) * static_cast<double>(e) /
                                    static_cast<double>(detail::total_rows(layers)));
    double mean = 0;
    for (const double s : share.span()) mean += s / static_cast<double>(e);
    Tensor<A> centred(share.shape());
    for (std::int64_t c = 0; c < e; ++c) centred[c] = static_cast<A>(share[c] - mean);
    AnyTensors grads;
    for (const AnyTensor& layer : layers) {
      const Tensor<T, D> logits(layer), d(logits.shape());
      const A* s = centred.data();
      detail::each_router_row(logits, [=]<int W>(std::int64_t n, const T* z, std::int64_t,
                                                 A* p) ESP_SIMD_LAMBDA {
        using V = simd::Native<T, W>;
        cpu::softmax_row<W>(z, e, p);
        const V dot(cpu::dot_row<W>(p, s, e)), scale(factor);
        cpu::map_row<W>(
            e, [=](const V& pv, const V& sv) ESP_SIMD_LAMBDA { return scale * pv * (sv - dot); },
            d.data() + n * e, p, s);
      });
      grads.push_back(d);
    }
    return grads;
  }

 private:
  /// sum[e] += sum over rows of softmax(logits)[e].
  template <Device D>
  static void add_probabilities(const Tensor<T, D>& logits, std::vector<double>& sum) {
    constexpr std::int64_t kBlock = detail::kRouterLossBlock;
    const std::int64_t e = logits.shape(1), blocks = (logits.shape(0) + kBlock - 1) / kBlock;
    const Tensor<double> parts(Shape{blocks, e}, 0.0);
    detail::each_router_row(
        logits, [=]<int W>(std::int64_t n, const T* z, std::int64_t, acc_t<T>* p) ESP_SIMD_LAMBDA {
          cpu::softmax_row<W>(z, e, p);
          double* part = parts.data() + n / kBlock * e;
          for (std::int64_t c = 0; c < e; ++c) part[c] += static_cast<double>(p[c]);
        });
    for (std::int64_t b = 0; b < blocks; ++b) {
      for (std::int64_t c = 0; c < e; ++c) sum[c] += parts.data()[b * e + c];
    }
  }
};

/// `router_logits`: [N, E] of each layer. Returns shape [1], before any coefficient.
/// @throws ShapeError when the layers differ in their number of experts or have no rows.
template <FloatElement T, Device D>
[[nodiscard]] Var<acc_t<T>, D> load_balancing_loss(const std::vector<Var<T, D>>& router_logits,
                                                   std::int64_t top_k) {
  detail::check_router_logits(LoadBalancingLoss<T>::kName, router_logits);
  return apply_list<acc_t<T>, D>(LoadBalancingLoss<T>{top_k},
                                 std::vector<AnyVar>(router_logits.begin(), router_logits.end()));
}

}  // namespace espalier
