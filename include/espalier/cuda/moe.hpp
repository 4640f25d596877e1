// SPDX-License-Identifier: Apache-2.0
// Routing, dispatch and combine on the device Cuda. Three launches from logits to permuted rows,
// without a synchronisation: row maps and offsets stay on the device.
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

/// The weights of a routing, which were computed with the choice: only their gradient is left.
template <CudaFloat T>
struct RoutedWeights {
  static constexpr const char* kName = "router_top_k";
  Tensor<float, Cuda> weights;
  Tensor<std::int32_t, Cuda> chosen;
  kernels::RouterRule rule;
};

/// The routing in host memory.
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

}  // namespace espalier::cuda

namespace espalier {

template <CudaFloat T>
struct Launch<cuda::RoutedWeights<T>, float, Cuda> {
  using Op = cuda::RoutedWeights<T>;

  static Tensor<float, Cuda> forward(const Op& op, Saved& saved, const AnyTensors& in) {
    saved.tensors = in;
    return op.weights;
  }
  static AnyTensors backward(const Op& op, const Saved& saved,
                             const Tensor<float, Cuda>& dweights) {
    const auto logits = saved.get<T, Cuda>(0);
    const Tensor<T, Cuda> d(logits.shape());
    ESP_CUDA(kernels::router_top_k_backward(ptr(d), ptr(dweights), ptr(op.weights), ptr(op.chosen),
                                            ptr(logits), logits.shape(0), int(logits.shape(1)),
                                            op.rule, cuda::stream()));
    return {d};
  }
};

template <CudaFloat T>
struct Launch<RouterTopK, T, Cuda> {
  static RouterOutput<T, Cuda> forward(const Var<T, Cuda>& logits, const RouterRule& rule,
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
    const cuda::Workspace workspace(kernels::route_counts_workspace_bytes(n, int(e)));
    auto* counts = static_cast<std::int32_t*>(workspace.data());
    const kernels::RouterRule of_kernel = cuda::kernel_rule(rule);
    // nn's Router keeps it in f32 on the device; another one is copied on every call.
    AnyTensor bias = selection_bias;
    if (bias && bias.dtype() != DType::f32) bias = converted<float>(bias.on_host());
    if (bias) bias = bias.on(memory_of<Cuda>());
    ESP_CUDA(kernels::router_top_k_forward(
        ptr(weights), ptr(r.chosen), counts, ptr(logits.value()),
        bias ? ptr(Tensor<float, Cuda>(bias)) : static_cast<const float*>(nullptr), n, int(e),
        of_kernel, cuda::stream()));
    ESP_CUDA(kernels::make_routing(ptr(r.offsets), ptr(r.row_of_slot), ptr(r.slot_of_row),
                                   ptr(r.chosen), counts, n, int(e), int(top_k), cuda::stream()));
    const cuda::RoutedWeights<T> op{weights, r.chosen, of_kernel};
    return {apply_list<float, Cuda>(op, {logits}), r};
  }
};

template <CudaFloat T>
struct Launch<Dispatch<Cuda>, T, Cuda> {
  static Tensor<T, Cuda> forward(const Dispatch<Cuda>& op, Saved&, const Tensor<T, Cuda>& x) {
    const auto& r = op.routing;
    ESP_REQUIRE(x.shape().rank() == 2 && x.shape(0) == r.tokens, ShapeError, "dispatch: x is ",
                x.shape(), ", the routing has ", r.tokens, " tokens");
    Tensor<T, Cuda> rows(Shape{r.rows(), x.shape(1)});
    ESP_CUDA(kernels::dispatch_forward(ptr(rows), ptr(x), ptr(r.row_of_slot), r.tokens,
                                       int(r.top_k), x.shape(1), cuda::stream()));
    return rows;
  }
  static std::array<AnyTensor, 1> backward(const Dispatch<Cuda>& op, const Saved&,
                                           const Tensor<T, Cuda>& dy) {
    const auto& r = op.routing;
    const Tensor<T, Cuda> dx(Shape{r.tokens, dy.shape(1)});
    ESP_CUDA(kernels::dispatch_backward(ptr(dx), ptr(dy), ptr(r.row_of_slot), r.tokens,
                                        int(r.top_k), dy.shape(1), cuda::stream()));
    return {dx};
  }
};

template <CudaFloat T>
struct Launch<Combine<Cuda>, T, Cuda> {
  static Tensor<T, Cuda> forward(const Combine<Cuda>& op, Saved& saved, const AnyTensors& in) {
    const auto& r = op.routing;
    const Tensor<T, Cuda> rows(in[0]);
    const Tensor<float, Cuda> weights(in[1]);
    const Shape expected{r.tokens, r.top_k};
    ESP_REQUIRE(
        rows.shape().rank() == 2 && rows.shape(0) == r.rows() && weights.shape() == expected,
        ShapeError, "combine: rows are ", rows.shape(), ", weights are ", weights.shape(),
        ", the routing has ", r.rows(), " rows of ", r.tokens, " tokens");
    Tensor<T, Cuda> y(Shape{r.tokens, rows.shape(1)});
    ESP_CUDA(kernels::combine_forward(ptr(y), ptr(rows), ptr(weights), ptr(r.row_of_slot), r.tokens,
                                      int(r.top_k), rows.shape(1), cuda::stream()));
    saved.tensors = {rows, weights};
    return y;
  }
  static AnyTensors backward(const Combine<Cuda>& op, const Saved& saved,
                             const Tensor<T, Cuda>& dy) {
    const auto& r = op.routing;
    const auto rows = saved.get<T, Cuda>(0);
    const auto weights = saved.get<float, Cuda>(1);
    const Tensor<T, Cuda> drows(rows.shape());
    const Tensor<float, Cuda> dweights(weights.shape());
    ESP_CUDA(kernels::combine_backward(ptr(drows), ptr(dweights), ptr(dy), ptr(rows), ptr(weights),
                                       ptr(r.row_of_slot), r.tokens, int(r.top_k), rows.shape(1),
                                       cuda::stream()));
    return {drows, dweights};
  }
};

}  // namespace espalier
