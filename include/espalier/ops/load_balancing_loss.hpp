// SPDX-License-Identifier: Apache-2.0
// The auxiliary loss of Mixtral as Hugging Face defines it (Fedus et al. 2021, arXiv:2101.03961,
// eq. 4-6, over the rows of all layers together and with top-k counts):
//   P = softmax(logits)  M = one-hot of the chosen experts  f[k,e] = mean M  p[e] = mean P
//   loss = E · sum over k, e of f[k,e] p[e]          balanced: K, collapsed: E
// f is a constant for the gradient. Rows are real tokens only: packed batches have no padding.
#pragma once

#include <espalier/ops/router_top_k.hpp>

namespace espalier {

struct LoadBalancingLoss {
  static constexpr const char* kName = "load_balancing_loss";
  std::int64_t top_k;

  template <FloatElement T, Device D = Cpu>
  Tensor<T, D> forward(Saved& saved, const std::vector<AnyTensor>& in) const {
    static_assert(!D::is_cuda, "load_balancing_loss: no CUDA path");
    ESP_REQUIRE(!in.empty(), ShapeError, kName, ": no router logits");
    const std::int64_t e = in[0].shape(1);
    Tensor<double> share(Shape{e}, 0.0);  // sum over k of f[k, e]
    std::vector<double> mean(e, 0.0);
    std::int64_t rows = 0;
    for (const AnyTensor& layer : in) {
      ESP_REQUIRE(layer.shape().rank() == 2 && layer.shape(1) == e, ShapeError, kName,
                  ": router logits are ", layer.shape(), ", expected [tokens, ", e, "]");
      const Tensor<T, D> logits(layer);
      for (const std::int32_t c : select_top_k(logits, top_k).span()) share[c] += 1;
      std::vector<double> p(e);
      for (std::int64_t n = 0; n < logits.shape(0); ++n) {
        softmax(logits.data() + n * e, p);
        for (std::int64_t c = 0; c < e; ++c) mean[c] += p[c];
      }
      rows += logits.shape(0);
    }
    double loss = 0;
    for (std::int64_t c = 0; c < e; ++c) {
      share[c] /= static_cast<double>(rows);
      loss += share[c] * mean[c] / static_cast<double>(rows);
    }
    saved.tensors = in;
    saved.tensors.push_back(share);
    return Tensor<T, D>(Shape{1}, static_cast<T>(loss * static_cast<double>(e)));
  }

  template <FloatElement T, Device D = Cpu>
  std::vector<AnyTensor> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const Tensor<double> share(saved.tensors.back());
    const std::int64_t e = share.numel();
    std::int64_t rows = 0;
    for (std::size_t l = 0; l + 1 < saved.tensors.size(); ++l) rows += saved.tensors[l].shape(0);
    const double factor = dy[0] * static_cast<double>(e) / static_cast<double>(rows);
    std::vector<AnyTensor> grads;
    std::vector<double> p(e);
    for (std::size_t l = 0; l + 1 < saved.tensors.size(); ++l) {
      const auto logits = saved.get<T, D>(l);
      const Tensor<T, D> d(logits.shape());
      for (std::int64_t n = 0; n < logits.shape(0); ++n) {
        softmax(logits.data() + n * e, p);
        double dot = 0;
        for (std::int64_t c = 0; c < e; ++c) dot += p[c] * share[c];
        for (std::int64_t c = 0; c < e; ++c) {
          d[n * e + c] = static_cast<T>(factor * p[c] * (share[c] - dot));
        }
      }
      grads.push_back(d);
    }
    return grads;
  }

 private:
  template <FloatElement T>
  static void softmax(const T* row, std::vector<double>& p) {
    double top = row[0], total = 0;
    for (std::size_t c = 1; c < p.size(); ++c) top = row[c] > top ? row[c] : top;
    for (std::size_t c = 0; c < p.size(); ++c) total += p[c] = std::exp(row[c] - top);
    for (double& v : p) v /= total;
  }
};

/// `router_logits`: [N, E] of each layer. Returns shape [1], before any coefficient.
/// @throws ShapeError when the layers differ in their number of experts.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> load_balancing_loss(const std::vector<Var<T, D>>& router_logits,
                                            std::int64_t top_k) {
  return apply_list<T, D>(LoadBalancingLoss{top_k},
                          std::vector<AnyVar>(router_logits.begin(), router_logits.end()));
}

}  // namespace espalier
