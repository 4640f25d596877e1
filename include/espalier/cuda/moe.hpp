// SPDX-License-Identifier: Apache-2.0
// Routing, dispatch and combine on the device Cuda. From logits to permuted rows three launches,
// and the host learns no size: row maps and offsets stay on the device.
#pragma once

#include <vector>

#include <espalier/cuda/device.hpp>
#include <espalier/cuda/router_rule.hpp>
#include <espalier/kernels/combine.hpp>
#include <espalier/kernels/dispatch.hpp>
#include <espalier/kernels/router_top_k.hpp>
#include <espalier/kernels/routing.hpp>
#include <espalier/ops/combine.hpp>
#include <espalier/ops/dispatch.hpp>
#include <espalier/ops/router_top_k.hpp>

namespace espalier::cuda {

/// The weights of a routing, which come with the choice in one launch; here only their gradient is
/// left to do.
template <FloatElement T>
struct RoutedWeights {
  static constexpr const char* kName = "router_top_k";
  static constexpr bool kAnyDevice = true;  // written for this one
  Tensor<float, Cuda> weights;
  Tensor<std::int32_t, Cuda> chosen;
  kernels::RouterRule rule;

  template <FloatElement A, Device D>
  Tensor<A, D> forward(Saved& saved, const std::vector<AnyTensor>& in) const {
    saved.tensors = in;
    return weights;
  }
  template <FloatElement A, Device D>
  std::vector<AnyTensor> backward(const Saved& saved, const Tensor<A, D>& dweights) const {
    const auto logits = saved.get<T, Cuda>(0);
    const Tensor<T, Cuda> d(logits.shape());
    ESP_CUDA(kernels::router_top_k_backward(ptr(d), ptr(dweights), ptr(weights), ptr(chosen),
                                            ptr(logits), logits.shape(0), int(logits.shape(1)),
                                            rule, stream()));
    return {d};
  }
};

template <FloatElement T>
RouterOutput<T, Cuda> launch_router_top_k(Cuda, const Var<T, Cuda>& logits, const RouterRule& rule,
                                          const AnyTensor& selection_bias) {
  const std::int64_t n = logits.shape(0), e = logits.shape(1), top_k = rule.top_k;
  ESP_REQUIRE(e <= kernels::kMaxExperts && top_k <= kernels::kMaxTopK, ShapeError,
              "router_top_k: ", e, " experts and top ", top_k, ", on cuda at most ",
              kernels::kMaxExperts, " and ", kernels::kMaxTopK);
  const Tensor<float, Cuda> weights(Shape{n, top_k});
  BasicRouting<Cuda> r;
  r.tokens = n;
  r.experts = e;
  r.top_k = top_k;
  r.chosen = Tensor<std::int32_t, Cuda>(Shape{n, top_k});
  r.offsets = Tensor<std::int32_t, Cuda>(Shape{e + 1});
  r.row_of_slot = Tensor<std::int32_t, Cuda>(Shape{r.rows()});
  r.slot_of_row = Tensor<std::int32_t, Cuda>(Shape{r.rows()});
  const Workspace workspace(kernels::route_counts_workspace_bytes(n, int(e)));
  auto* counts = static_cast<std::int32_t*>(workspace.data());
  const kernels::RouterRule of_kernel = kernel_rule(rule);
  // Copied on every call unless it is f32 and on the device, as nn's Router has it.
  AnyTensor bias = selection_bias;
  if (bias && bias.dtype() != DType::f32) bias = converted<float>(bias.on_host());
  if (bias) bias = bias.on(memory_of<Cuda>());
  ESP_CUDA(kernels::router_top_k_forward(
      ptr(weights), ptr(r.chosen), counts, ptr(logits.value()),
      bias ? ptr(Tensor<float, Cuda>(bias)) : static_cast<const float*>(nullptr), n, int(e),
      of_kernel, stream()));
  ESP_CUDA(kernels::make_routing(ptr(r.offsets), ptr(r.row_of_slot), ptr(r.slot_of_row),
                                 ptr(r.chosen), counts, n, int(e), int(top_k), stream()));
  return {apply_list<float, Cuda>(RoutedWeights<T>{weights, r.chosen, of_kernel}, {logits}), r};
}

/// The routing where the host can read it.
[[nodiscard]] inline Routing on_host(const BasicRouting<Cuda>& r) {
  Routing h;
  h.tokens = r.tokens;
  h.experts = r.experts;
  h.top_k = r.top_k;
  h.chosen = to<Cpu>(r.chosen);
  for (const std::int32_t offset : to<Cpu>(r.offsets).span()) h.offsets.push_back(offset);
  h.row_of_slot = to<Cpu>(r.row_of_slot);
  h.slot_of_row = to<Cpu>(r.slot_of_row);
  return h;
}

template <FloatElement T>
Tensor<T, Cuda> launch_forward(Cuda, const Dispatch<Cuda>& op, Saved&, const Tensor<T, Cuda>& x) {
  const auto& r = op.routing;
  ESP_REQUIRE(x.shape().rank() == 2 && x.shape(0) == r.tokens, ShapeError, "dispatch: x is ",
              x.shape(), ", the routing has ", r.tokens, " tokens");
  Tensor<T, Cuda> rows(Shape{r.rows(), x.shape(1)});
  ESP_CUDA(kernels::dispatch_forward(ptr(rows), ptr(x), ptr(r.row_of_slot), r.tokens, int(r.top_k),
                                     x.shape(1), stream()));
  return rows;
}
template <FloatElement T>
std::array<AnyTensor, 1> launch_backward(Cuda, const Dispatch<Cuda>& op, const Saved&,
                                         const Tensor<T, Cuda>& dy) {
  const auto& r = op.routing;
  const Tensor<T, Cuda> dx(Shape{r.tokens, dy.shape(1)});
  ESP_CUDA(kernels::dispatch_backward(ptr(dx), ptr(dy), ptr(r.row_of_slot), r.tokens, int(r.top_k),
                                      dy.shape(1), stream()));
  return {dx};
}

template <FloatElement T>
Tensor<T, Cuda> launch_forward(Cuda, const Combine<Cuda>& op, Saved& saved,
                               const std::vector<AnyTensor>& in) {
  const auto& r = op.routing;
  const Tensor<T, Cuda> rows(in[0]);
  const Tensor<float, Cuda> weights(in[1]);
  const Shape expected{r.tokens, r.top_k};
  ESP_REQUIRE(rows.shape().rank() == 2 && rows.shape(0) == r.rows() && weights.shape() == expected,
              ShapeError, "combine: rows are ", rows.shape(), ", weights are ", weights.shape(),
              ", the routing has ", r.rows(), " rows of ", r.tokens, " tokens");
  Tensor<T, Cuda> y(Shape{r.tokens, rows.shape(1)});
  ESP_CUDA(kernels::combine_forward(ptr(y), ptr(rows), ptr(weights), ptr(r.row_of_slot), r.tokens,
                                    int(r.top_k), rows.shape(1), stream()));
  saved.tensors = {rows, weights};
  return y;
}
template <FloatElement T>
std::vector<AnyTensor> launch_backward(Cuda, const Combine<Cuda>& op, const Saved& saved,
                                       const Tensor<T, Cuda>& dy) {
  const auto& r = op.routing;
  const auto rows = saved.get<T, Cuda>(0);
  const auto weights = saved.get<float, Cuda>(1);
  const Tensor<T, Cuda> drows(rows.shape());
  const Tensor<float, Cuda> dweights(weights.shape());
  ESP_CUDA(kernels::combine_backward(ptr(drows), ptr(dweights), ptr(dy), ptr(rows), ptr(weights),
                                     ptr(r.row_of_slot), r.tokens, int(r.top_k), rows.shape(1),
                                     stream()));
  return {drows, dweights};
}

}  // namespace espalier::cuda
