// SPDX-License-Identifier: Apache-2.0
// Reverse-mode differentiation. The graph is erased: a `Node` is not a template and its edges carry
// `AnyTensor`, so bf16 weights, f32 activations and a double check live in one graph. Typed code is
// only in an op's forward and backward.
//
// An op is a struct with
//   static constexpr const char* kName;
//   Tensor<T, D> forward(Saved& saved, const Input&... values) const;
//   std::array<AnyTensor, n> backward(const Saved& saved, const Tensor<T, D>& dy) const;
// `forward` puts what backward needs into `saved.tensors`: only that lives on. `backward` returns
// one gradient per input and never accumulates; it may leave those empty that `saved.needs` does
// not ask for. The engine accumulates.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <espalier/core/trace.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier {

struct Node {
  const char* op = "leaf";
  std::vector<std::shared_ptr<Node>> inputs;  // null where an input needs no gradient
  std::function<std::vector<AnyTensor>(const AnyTensor& dy)> backward;
  AnyTensor grad;  // leaves only; empty until the first backward
};

namespace detail {
inline thread_local bool grad_enabled = true;
/// `sum += term`, elementwise in the type of `sum`.
inline void add_in_place(AnyTensor& sum, const AnyTensor& term);
}  // namespace detail

/// While one of these lives, operations of this thread build no graph.
class NoGrad {
 public:
  NoGrad() : before_(std::exchange(detail::grad_enabled, false)) {}
  ~NoGrad() { detail::grad_enabled = before_; }
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

/// A value and its place in the graph. A handle: copies share both.
class AnyVar {
 public:
  AnyVar() = default;
  /// A constant.
  explicit AnyVar(AnyTensor value) : value_(std::move(value)) {}
  AnyVar(AnyTensor value, std::shared_ptr<Node> node)
      : value_(std::move(value)), node_(std::move(node)) {}

  explicit operator bool() const { return static_cast<bool>(value_); }
  const AnyTensor& any() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  std::int64_t shape(int axis) const { return value_.shape(axis); }
  const std::shared_ptr<Node>& node() const { return node_; }
  bool requires_grad() const { return node_ != nullptr; }
  /// Gradient of a leaf; an empty tensor before the first backward.
  AnyTensor grad() const { return node_ ? node_->grad : AnyTensor(); }
  void zero_grad() const {
    if (node_) node_->grad = AnyTensor();
  }

 protected:
  AnyTensor value_;
  std::shared_ptr<Node> node_;
};

template <Element T, Device D = Cpu>
class Var : public AnyVar {
 public:
  Var() = default;
  explicit Var(Tensor<T, D> value) : AnyVar(std::move(value)) {}
  explicit Var(AnyVar var) : AnyVar(std::move(var)) { (void)value(); }
  Tensor<T, D> value() const { return Tensor<T, D>(value_); }
};

/// A leaf that collects a gradient.
template <Element T, Device D>
[[nodiscard]] Var<T, D> parameter(Tensor<T, D> value) {
  return Var<T, D>(AnyVar(std::move(value), std::make_shared<Node>()));
}

struct Saved {
  std::vector<AnyTensor> tensors;
  std::vector<bool> needs;  // per input: is its gradient wanted? set before forward
  template <Element T, Device D = Cpu>
  Tensor<T, D> get(std::size_t i) const {
    return Tensor<T, D>(tensors.at(i));
  }
};

namespace detail {
inline bool wants_graph(const std::vector<AnyVar>& inputs) {
  if (!grad_enabled) return false;
  for (const AnyVar& v : inputs) {
    if (v.requires_grad()) return true;
  }
  return false;
}
}  // namespace detail

/// Runs `op` on a list of inputs of any element types; forward and backward see the whole list:
///   Tensor<T, D> forward(Saved&, const std::vector<AnyTensor>&) const;
///   std::vector<AnyTensor> backward(const Saved&, const Tensor<T, D>& dy) const;
template <Element T, Device D, class Op>
[[nodiscard]] Var<T, D> apply_list(const Op& op, const std::vector<AnyVar>& inputs) {
  Saved saved;
  std::vector<AnyTensor> values;
  const bool graph = detail::wants_graph(inputs);
  for (const AnyVar& v : inputs) {
    values.push_back(v.any());
    saved.needs.push_back(graph && v.requires_grad());
  }
  Tensor<T, D> y = [&] {
    const trace::Scope scope(Op::kName);
    return op.template forward<T, D>(saved, values);
  }();
  if (!graph) return Var<T, D>(std::move(y));
  auto node = std::make_shared<Node>();
  node->op = Op::kName;
  for (const AnyVar& v : inputs) node->inputs.push_back(v.node());
  node->backward = [op, saved = std::move(saved)](const AnyTensor& dy) {
    return op.backward(saved, Tensor<T, D>(dy));
  };
  return Var<T, D>(AnyVar(std::move(y), std::move(node)));
}

/// Runs `op` on inputs of one element type.
template <class Op, Element T, Device D, std::same_as<Var<T, D>>... Rest>
[[nodiscard]] Var<T, D> apply(const Op& op, const Var<T, D>& first, const Rest&... rest) {
  Saved saved;
  const std::vector<AnyVar> inputs = {first, rest...};
  const bool graph = detail::wants_graph(inputs);
  for (const AnyVar& v : inputs) saved.needs.push_back(graph && v.requires_grad());
  Tensor<T, D> y = [&] {
    const trace::Scope scope(Op::kName);
    return op.forward(saved, first.value(), rest.value()...);
  }();
  if (!graph) return Var<T, D>(std::move(y));
  using Grads = decltype(op.backward(saved, y));
  static_assert(std::tuple_size_v<Grads> == 1 + sizeof...(Rest),
                "Op::backward must return one gradient per input");
  auto node = std::make_shared<Node>();
  node->op = Op::kName;
  for (const AnyVar& v : inputs) node->inputs.push_back(v.node());
  node->backward = [op, saved = std::move(saved)](const AnyTensor& dy) {
    Grads grads = op.backward(saved, Tensor<T, D>(dy));
    return std::vector<AnyTensor>(grads.begin(), grads.end());
  };
  return Var<T, D>(AnyVar(std::move(y), std::move(node)));
}

/// Backward from `root`, whose gradient is `seed` (empty: ones). Gradients of leaves are added to
/// what they hold. Saved tensors are freed as the sweep passes, so a graph can be swept once.
inline void backward(const AnyVar& root, AnyTensor seed = {}) {
  ESP_REQUIRE(root.requires_grad(), Error, "backward: the value does not depend on any parameter");
  if (!seed) {
    visit_dtype<float, double>("backward", root.any().dtype(),
                               [&]<class T>() { seed = Tensor<T>(root.shape(), T{1}); });
  }
  ESP_REQUIRE(seed.shape() == root.shape(), ShapeError, "backward: the value is ", root.shape(),
              ", its gradient ", seed.shape());

  // Reverse topological order without recursion: a graph is as deep as a model.
  std::vector<Node*> order;
  std::unordered_set<Node*> seen = {root.node().get()};
  std::vector<std::pair<Node*, std::size_t>> stack = {{root.node().get(), 0}};
  while (!stack.empty()) {
    auto& [node, next] = stack.back();
    if (next == node->inputs.size()) {
      order.push_back(node);
      stack.pop_back();
      continue;
    }
    Node* child = node->inputs[next++].get();
    if (child && seen.insert(child).second) stack.emplace_back(child, 0);
  }

  std::unordered_map<Node*, AnyTensor> grads;
  grads[root.node().get()] = std::move(seed);
  auto accumulate = [](AnyTensor& sum, AnyTensor term) {
    if (!sum) {
      sum = std::move(term);
    } else {
      if (sum.use_count() > 1) sum = sum.clone();  // another edge may hold the same memory
      detail::add_in_place(sum, term);
    }
  };
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    Node* node = *it;
    const auto found = grads.find(node);
    if (found == grads.end()) continue;
    AnyTensor dy = std::move(found->second);
    grads.erase(found);
    if (!node->backward) {
      if (node->inputs.empty() && node->op == std::string_view("leaf")) {
        accumulate(node->grad, std::move(dy));
        continue;
      }
      throw Error(detail::concat("backward: the graph through '", node->op,
                                 "' was already swept; run the forward again"));
    }
    std::vector<AnyTensor> input_grads;
    {
      const trace::Scope scope(node->op, " backward");
      input_grads = node->backward(dy);
    }
    node->backward = nullptr;
    dy = AnyTensor();
    for (std::size_t i = 0; i < node->inputs.size(); ++i) {
      if (!node->inputs[i] || !input_grads[i]) continue;
      accumulate(grads[node->inputs[i].get()], std::move(input_grads[i]));
    }
  }
}

namespace detail {
inline void add_in_place(AnyTensor& sum, const AnyTensor& term) {
  ESP_REQUIRE(sum.shape() == term.shape() && sum.dtype() == term.dtype(), ShapeError,
              "backward: gradients of one value are ", name(sum.dtype()), sum.shape(), " and ",
              name(term.dtype()), term.shape());
  visit_dtype<float, double>("backward", sum.dtype(), [&]<class T>() {
    T* a = reinterpret_cast<T*>(sum.bytes());
    const T* b = reinterpret_cast<const T*>(term.bytes());
    const std::int64_t n = sum.numel();
    for (std::int64_t i = 0; i < n; ++i) a[i] += b[i];
  });
}
}  // namespace detail

}  // namespace espalier
