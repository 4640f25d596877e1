// SPDX-License-Identifier: Apache-2.0
// Recomputation (Chen et al. 2016, arXiv:1604.06174, who call it gradient checkpointing): a part of
// a graph keeps only its inputs and outputs; the backward pass computes the values between again.
//   const auto [h2, logits] = recompute([layer](const Var<float>& h) {
//     ...; return std::pair{h2, logits}; }, h);
// Gradients of inputs and of everything the function captures (parameters, other values) are the
// same bits as without: the backward pass visits the recomputed nodes in the place of the original
// ones. Random ops are functions of counters, so they draw the same again. Calls may be nested.
#pragma once

#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <espalier/autograd/node_map.hpp>
#include <espalier/autograd/var.hpp>
#include <espalier/core/function.hpp>
#include <espalier/core/inline.hpp>

namespace espalier {

namespace detail {

using RecomputeFunction = Function<std::vector<AnyVar>()>;

/// The nodes up to time `last` that `outputs` depend on.
ESP_ON_DEMAND ESP_INLINE std::vector<std::shared_ptr<Node>> earlier_nodes(
    const std::vector<AnyVar>& outputs, std::uint64_t last) {
  std::vector<std::shared_ptr<Node>> earlier, stack;
  NodeMap<bool> seen;
  for (const AnyVar& v : outputs) stack.push_back(v.node());
  while (!stack.empty()) {
    const std::shared_ptr<Node> node = std::move(stack.back());
    stack.pop_back();
    if (!node || std::exchange(seen[node.get()], true)) continue;
    if (node->order <= last) {
      earlier.push_back(node);
    } else {
      for (const auto& input : node->inputs) stack.push_back(input);
    }
  }
  return earlier;
}

/// Runs `f` again from time `first` of the clock, with everything recorded.
ESP_ON_DEMAND inline std::vector<AnyVar> run_again(const RecomputeFunction& f,
                                                   std::uint64_t first) {
  struct Rewind {
    std::uint64_t before;
    explicit Rewind(std::uint64_t to) : before(std::exchange(graph.clock, to)) {}
    ~Rewind() { graph.clock = before; }
  };
  const Rewind rewind(first);
  const RecordingScope full(Recording::full);
  return f();
}

/// One node "recompute" behind the inputs computes all gradients at once. Each output has a node
/// in front of it that stores its gradient here.
struct RecomputeGradients {
  std::vector<AnyTensor> of_outputs;
  std::vector<Shape> shapes;
};

ESP_ON_DEMAND ESP_INLINE std::vector<Node::Root> recomputed_roots(const RecomputeFunction& f,
                                                                  std::uint64_t first,
                                                                  RecomputeGradients& gradients) {
  const std::vector<AnyVar> outputs = run_again(f, first);
  ESP_REQUIRE(outputs.size() == gradients.shapes.size(), Error, "recompute: the function gave ",
              gradients.shapes.size(), " values, and ", outputs.size(), " when run again");
  std::vector<Node::Root> roots;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (!gradients.of_outputs[i]) continue;
    ESP_REQUIRE(outputs[i].shape() == gradients.shapes[i], Error, "recompute: value ", i,
                " of the function was ", gradients.shapes[i], ", and ", outputs[i].shape(),
                " when run again; it must compute the same each time");
    if (!outputs[i].requires_grad()) continue;  // its parameters were frozen in between
    roots.push_back({outputs[i].node(), std::exchange(gradients.of_outputs[i], AnyTensor())});
  }
  return roots;
}

ESP_ON_DEMAND ESP_INLINE std::vector<AnyVar> recomputed(RecomputeFunction f) {
  const std::uint64_t first = graph.clock;
  std::vector<AnyVar> outputs;
  {
    const RecordingScope edges(Recording::edges);
    outputs = f();
  }
  auto inputs = earlier_nodes(outputs, first);
  const bool saves = graph.recording == Recording::full;
  const auto hub = new_node("recompute", std::move(inputs));
  const auto gradients = std::make_shared<RecomputeGradients>();
  gradients->of_outputs.resize(outputs.size());
  for (const AnyVar& v : outputs) gradients->shapes.push_back(v ? v.shape() : Shape{});
  if (saves) {
    hub->recompute = [f = std::move(f), first, gradients] {
      return recomputed_roots(f, first, *gradients);
    };
  }
  std::vector<AnyVar> fronts;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const std::shared_ptr<Node> inner = outputs[i].node();
    const bool inside = inner && inner->order > first;  // not a constant, nor a value from outside
    fronts.push_back(outputs[i]);
    if (!inside) continue;
    std::shared_ptr<Node> front;  // a value that comes twice has one
    for (std::size_t j = 0; j < i; ++j) {
      if (outputs[j].node() == inner) front = fronts[j].node();
    }
    if (!front) {
      front = new_node("recompute", {hub});
      front->backward = [gradients, i](const AnyTensor& dy, const std::vector<bool>&) {
        gradients->of_outputs[i] = dy;
        // No values: the hub only needs some gradient to be visited.
        return std::vector<AnyTensor>{AnyTensor(Shape{0}, DType::f32)};
      };
    }
    fronts[i] = AnyVar(outputs[i].any(), front);
  }
  return fronts;
}

template <class T>
inline constexpr bool is_var = std::is_base_of_v<AnyVar, T>;

}  // namespace detail

/// f(inputs...), which returns a Var or a tuple, pair or array of them. Backward calls `f` once
/// more: it must compute the same, and what it captures by reference must live that long.
template <class F, class... Inputs>
[[nodiscard]] auto recompute(F f, const Inputs&... inputs) {
  using Result = std::remove_cvref_t<std::invoke_result_t<const F&, const Inputs&...>>;
  if (detail::graph.recording == detail::Recording::off) return Result(std::as_const(f)(inputs...));
  auto list = detail::recomputed([f = std::move(f), inputs...] {
    if constexpr (detail::is_var<Result>) {
      return std::vector<AnyVar>{f(inputs...)};
    } else {
      return std::apply([](const auto&... vars) { return std::vector<AnyVar>{vars...}; },
                        f(inputs...));
    }
  });
  if constexpr (detail::is_var<Result>) {
    return Result(std::move(list[0]));
  } else {
    return [&]<std::size_t... i>(std::index_sequence<i...>) {
      return Result{std::tuple_element_t<i, Result>(std::move(list[i]))...};
    }
    (std::make_index_sequence<std::tuple_size_v<Result>>{});
  }
}

}  // namespace espalier
