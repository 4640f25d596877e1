// SPDX-License-Identifier: Apache-2.0
// Reverse-mode differentiation: values with a place in a graph, operations on them, and backward.
// Typed code is only in an op's forward and backward. An op is a struct with
//   static constexpr const char* kName;
//   Tensor<T, D> forward(Saved& saved, const Input&... values) const;
//   std::array<AnyTensor, n> backward(const Saved& saved, const Tensor<T, D>& dy) const;
// `forward` puts what backward needs into `saved.tensors`; all other values are freed. `backward`
// returns one gradient per input and never accumulates, which the engine does; a gradient that
// `saved.needs` does not ask for may be empty.
//
// On a device other than the CPU, Launch<Op, T, D> runs in the place of the op's members
// (autograd/launch.hpp).
//
// What an op saves is shared, not copied: a value that is written in place between forward and
// backward gives a wrong gradient. Debug with a CheckSaved (autograd/saved_check.hpp), which finds
// it.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <espalier/autograd/backward_pass.hpp>
#include <espalier/autograd/launch.hpp>
#include <espalier/autograd/saved_check.hpp>
#include <espalier/core/inline.hpp>

namespace espalier {

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
  bool requires_grad() const { return node_ && node_->mode != GradMode::ignore; }
  /// Gradient of a leaf; an empty tensor before the first backward.
  AnyTensor grad() const { return node_ ? node_->grad : AnyTensor(); }
  void zero_grad() const {
    if (node_) node_->grad = AnyTensor();
  }
  /// Overrides the backward pass's GradMode for this parameter; empty: does not. While the mode is
  /// `ignore`, the parameter is frozen: operations treat it as a constant.
  /// @throws Error when the value is no parameter.
  void set_grad_mode(std::optional<GradMode> mode) const {
    ESP_REQUIRE(node_ && node_->is_leaf(), Error, "set_grad_mode: the value is no parameter");
    node_->mode = mode;
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

namespace detail {

ESP_ON_DEMAND inline double bytes_of(const AnyTensors& tensors) {
  double bytes = 0;
  for (const AnyTensor& t : tensors) bytes += t ? static_cast<double>(t.size_bytes()) : 0;
  return bytes;
}
/// Bytes read plus bytes written; 0 where all outputs are views of inputs.
ESP_ON_DEMAND inline double moved_bytes(const AnyTensors& read, const AnyTensors& written) {
  double bytes = 0;
  for (const AnyTensor& w : written) {
    bool view = false;
    for (const AnyTensor& r : read) view = view || (w && r.bytes() == w.bytes());
    if (w && !view) bytes += static_cast<double>(w.size_bytes());
  }
  return bytes > 0 ? bytes + bytes_of(read) : 0;
}

/// The place of an op's output in the graph: none when no input needs a gradient.
struct Recorded {
  std::vector<std::shared_ptr<Node>> edges;
  AnyTensors inputs_like;
  bool graph = false;

  ESP_ON_DEMAND Recorded(const char* op, const std::vector<AnyVar>& inputs) {
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      ESP_REQUIRE(inputs[i], Error, op, ": input ", i, " is empty");
    }
    if (detail::graph.recording == Recording::off) return;
    for (const AnyVar& v : inputs) {
      edges.push_back(v.requires_grad() ? v.node() : nullptr);
      graph = graph || edges.back();
    }
    if (graph && detail::graph.recording == Recording::full) inputs_like = like(inputs);
  }
  /// The inputs without their values, for the check of what backward returns.
  ESP_ON_DEMAND static AnyTensors like(const std::vector<AnyVar>& inputs) {
    AnyTensors like;
    like.reserve(inputs.size());
    for (const AnyVar& v : inputs) {
      like.emplace_back(nullptr, v.shape(), v.any().dtype(), v.any().memory());
    }
    return like;
  }
  bool saves() const { return graph && detail::graph.recording == Recording::full; }
  std::vector<bool> needs(std::size_t inputs) const {
    std::vector<bool> wanted(inputs, false);
    for (std::size_t i = 0; saves() && i < inputs; ++i) wanted[i] = edges[i] != nullptr;
    return wanted;
  }
};

/// The output `y` of an op, with its node. `launched`: Launch has the op's backward.
template <bool launched, class Op, Element T, Device D>
Var<T, D> recorded(const Op& op, Recorded place, Saved saved, Tensor<T, D> y) {
  if (!place.graph) return Var<T, D>(std::move(y));
  const bool saves = place.saves();
  auto node = new_node(Op::kName, std::move(place.edges));
  node->like = std::move(place.inputs_like);
  if (saves) {
    node->backward = [op, sums = checksums(saved.tensors), saved = std::move(saved)](
                         const AnyTensor& dy, const std::vector<bool>& needs) mutable {
      check_unchanged(Op::kName, saved.tensors, sums);
      saved.needs = needs;
      auto grads = [&] {
        if constexpr (launched) {
          return Launch<Op, T, D>::backward(op, saved, Tensor<T, D>(dy));
        } else {
          return op.backward(saved, Tensor<T, D>(dy));
        }
      }();
      AnyTensors list(std::make_move_iterator(grads.begin()), std::make_move_iterator(grads.end()));
      if (trace::enabled()) {
        AnyTensors read = saved.tensors;
        read.push_back(dy);
        trace::estimate_bytes(moved_bytes(read, list));
      }
      return list;
    };
  } else {
    node->backward = [](const AnyTensor&, const std::vector<bool>&) -> AnyTensors {
      throw_error<Error>({"backward: '", Op::kName,
                          "' was computed inside recompute(); return its value from the function "
                          "to use it outside"});
    };
  }
  return Var<T, D>(AnyVar(std::move(y), std::move(node)));
}

}  // namespace detail

/// Runs `op` on a list of inputs of any element types; forward and backward see the whole list:
///   Tensor<T, D> forward(Saved&, const AnyTensors&) const;
///   AnyTensors backward(const Saved&, const Tensor<T, D>& dy) const;
template <Element T, Device D, class Op>
[[nodiscard]] Var<T, D> apply_list(const Op& op, const std::vector<AnyVar>& inputs) {
  using List = AnyTensors;
  constexpr bool launched = Launched<Op, T, D, List, List>;
  detail::Recorded place(Op::kName, inputs);
  Saved saved{{}, place.needs(inputs.size())};
  List values;
  for (const AnyVar& v : inputs) values.push_back(v.any());
  const trace::Scope scope(Op::kName);
  Tensor<T, D> y = [&] {
    if constexpr (launched) {
      return Launch<Op, T, D>::forward(op, saved, values);
    } else {
      return op.template forward<T, D>(saved, values);
    }
  }();
  if constexpr (D::is_cuda) detail::require_launch<Op, T, D, List, List>();
  if (trace::enabled()) trace::estimate_bytes(detail::moved_bytes(values, List{y}));
  return detail::recorded<launched>(op, std::move(place), std::move(saved), std::move(y));
}

/// Runs `op` on inputs of one element type.
template <class Op, Element T, Device D, std::same_as<Var<T, D>>... Rest>
[[nodiscard]] Var<T, D> apply(const Op& op, const Var<T, D>& first, const Rest&... rest) {
  using Gradients = std::array<AnyTensor, 1 + sizeof...(Rest)>;
  constexpr bool launched = Launched<Op, T, D, Gradients, Tensor<T, D>, decltype(rest.value())...>;
  const std::vector<AnyVar> inputs = {first, rest...};
  detail::Recorded place(Op::kName, inputs);
  Saved saved{{}, place.needs(inputs.size())};
  const trace::Scope scope(Op::kName);
  Tensor<T, D> y = [&] {
    if constexpr (launched) {
      return Launch<Op, T, D>::forward(op, saved, first.value(), rest.value()...);
    } else {
      static_assert(std::tuple_size_v<decltype(op.backward(saved, first.value()))> ==
                        std::tuple_size_v<Gradients>,
                    "Op::backward must return one gradient per input");
      return op.forward(saved, first.value(), rest.value()...);
    }
  }();
  if constexpr (D::is_cuda) {
    detail::require_launch<Op, T, D, Gradients, Tensor<T, D>, decltype(rest.value())...>();
  }
  if (trace::enabled()) {
    trace::estimate_bytes(detail::moved_bytes({first.any(), rest.any()...}, AnyTensors{y}));
  }
  return detail::recorded<launched>(op, std::move(place), std::move(saved), std::move(y));
}

struct BackwardOptions {
  GradMode mode = GradMode::accumulate;  // for leaves without a mode of their own
  AnyTensor seed = {};                   // gradient of the root; empty: ones
};

/// Backward from `root` to the leaves. Saved tensors are freed on the way, so a graph can be used
/// once.
ESP_ON_DEMAND ESP_INLINE void backward(const AnyVar& root, const BackwardOptions& options) {
  ESP_REQUIRE(root.node() != nullptr, Error,
              "backward: the value does not depend on any parameter");
  AnyTensor seed = options.seed;
  if (!seed) {
    visit_dtype<float, bf16, double>("backward", root.any().dtype(), [&]<class T>() {
      seed = Tensor<T>(root.shape(), static_cast<T>(1.0f)).on(root.any().memory());
    });
  }
  ESP_REQUIRE(seed.shape() == root.shape(), ShapeError, "backward: the value is ", root.shape(),
              ", its gradient ", seed.shape());
  ESP_REQUIRE(seed.dtype() == root.any().dtype(), DTypeError, "backward: the value is ",
              name(root.any().dtype()), ", its gradient ", name(seed.dtype()));
  detail::BackwardPass(options.mode).run(root.node(), std::move(seed));
}
/// The same, adding to what the leaves hold.
ESP_ON_DEMAND inline void backward(const AnyVar& root, AnyTensor seed = {}) {
  backward(root, BackwardOptions{GradMode::accumulate, std::move(seed)});
}

}  // namespace espalier
