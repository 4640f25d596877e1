// SPDX-License-Identifier: Apache-2.0
// The models whose shapes the CUDA benches sweep, and how their tokens spread over the experts:
//   uniform   every expert alike
//   zipf      expert e is chosen in proportion to 1 / (e + 1)
//   one-hot   all tokens choose experts 0 to K - 1, the others have none
#pragma once

#include <cmath>
#include <numeric>

#include <espalier/kernels/router_top_k.hpp>
#include <espalier/ops/router_top_k.hpp>

#include "suite.hpp"

namespace espalier::bench {

struct ModelShape {
  std::string name;
  std::int64_t hidden, ffn;
  int experts, top_k;
  bool renormalize;
  int heads, kv_heads, head_dim;
  std::int64_t vocab;

  kernels::RouterRule rule() const { return {.top_k = top_k, .renormalize = renormalize}; }
};

inline std::vector<ModelShape> models(const DeviceOptions& o) {
  if (o.tiny) return {{"tiny", 64, 96, 4, 2, true, 4, 2, 16, 100}};
  return {{"Mixtral", 4096, 14336, 8, 2, true, 32, 8, 128, 32000},
          {"Qwen3-30B-A3B", 2048, 768, 128, 8, true, 32, 4, 128, 151936},
          {"OLMoE", 2048, 1024, 64, 8, false, 16, 16, 128, 50304}};
}
inline std::int64_t tokens(const DeviceOptions& o) {
  return o.tiny ? 40 : 4096;
}

/// Logits [N, E] and what follows from them, on the host and on the device.
struct RoutedTokens {
  std::string name;
  Tensor<float> logits;
  Routing routing;
  DeviceArray<std::int32_t> chosen, row_of_slot, offsets;

  static std::vector<std::int32_t> list(const Tensor<std::int32_t>& t) {
    return {t.data(), t.data() + t.numel()};
  }
  RoutedTokens(std::string how, Tensor<float> z, const Tensor<std::int32_t>& experts)
      : name(std::move(how)),
        logits(std::move(z)),
        routing(make_routing(experts, logits.shape(1))),
        chosen(list(experts)),
        row_of_slot(list(routing.row_of_slot)),
        offsets({routing.offsets.begin(), routing.offsets.end()}) {}
  std::int64_t rows() const { return routing.rows(); }
};

/// The K largest logits of each row, best first, ties to the lower expert.
inline Tensor<std::int32_t> best_experts(const Tensor<float>& logits, int k) {
  const std::int64_t n = logits.shape(0), e = logits.shape(1);
  Tensor<std::int32_t> chosen(Shape{n, k});
  std::vector<std::int32_t> order(static_cast<std::size_t>(e));
  for (std::int64_t i = 0; i < n; ++i) {
    const float* z = logits.data() + i * e;
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + k, order.end(),
                      [&](auto a, auto b) { return z[a] > z[b] || (z[a] == z[b] && a < b); });
    std::copy_n(order.begin(), k, chosen.data() + i * k);
  }
  return chosen;
}

/// Logarithms of the experts' shares plus Gumbel noise: the K largest are K draws without
/// replacement.
inline std::vector<RoutedTokens> routed_tokens(const ModelShape& m, std::int64_t n) {
  std::vector<RoutedTokens> all;
  for (const std::string how : {"uniform", "zipf", "one-hot"}) {
    Tensor<float> logits(Shape{n, m.experts});
    const Philox philox(7);
    for (std::int64_t i = 0; i < logits.numel(); ++i) {
      const auto e = static_cast<double>(i % m.experts);
      const double u = philox.uniform(static_cast<std::uint64_t>(i)) + 0x1p-25;
      double z = -std::log(-std::log(u));
      if (how == "zipf") z -= std::log(e + 1);
      if (how == "one-hot" && e < m.top_k) z += 100;
      logits[i] = static_cast<float>(z);
    }
    const auto chosen = best_experts(logits, m.top_k);
    all.emplace_back(how, std::move(logits), chosen);
  }
  return all;
}

/// Rows to look at: the first, some between, the last.
inline std::vector<std::int64_t> sample_rows(std::int64_t n) {
  if (n < 5) return n == 0 ? std::vector<std::int64_t>{} : std::vector<std::int64_t>{0, n - 1};
  return {0, n / 4, n / 2, n / 4 * 3, n - 1};
}

}  // namespace espalier::bench
