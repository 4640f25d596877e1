// SPDX-License-Identifier: Apache-2.0
// The backward pass: visits the nodes in the reverse order of their creation, adds up the gradients
// that reach each, and gives a leaf its gradient as soon as the last term has arrived. Branches
// without a wanted leaf are not computed. A node's saved tensors are freed when its gradients are
// computed.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include <espalier/autograd/accumulate.hpp>
#include <espalier/autograd/node.hpp>
#include <espalier/autograd/node_map.hpp>
#include <espalier/core/algorithm.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/core/trace.hpp>

namespace espalier::detail {

class BackwardPass {
 public:
  explicit BackwardPass(GradMode mode) : mode_(mode) {}

  /// @throws Error, before any gradient is touched, where an earlier pass used a part of the graph.
  ESP_ON_DEMAND ESP_INLINE void run(const std::shared_ptr<Node>& root, AnyTensor seed) {
    discover(root.get());
    accept(root.get(), std::move(seed));
    if (root->is_leaf()) deliver(root.get());
    while (!heap_.empty()) {
      Node* node = algo::pop_heap(heap_, earlier);
      if (node->recompute) {
        expand(node);
      } else {
        differentiate(node);
      }
      for (const auto& input : node->inputs) {
        if (input && --states_[input.get()].consumers == 0 && input->is_leaf()) {
          deliver(input.get());
        }
      }
    }
  }

 private:
  struct State {
    AnyTensor grad;
    int consumers = 0;   // wanted nodes that are not visited yet
    bool known = false;  // discovered
    bool wanted = false;
  };

  static bool earlier(const Node* a, const Node* b) { return a->order < b->order; }
  GradMode mode_of(const Node* leaf) const { return leaf->mode.value_or(mode_); }

  /// Adds the nodes behind `root` that are not known yet. No recursion: a graph is as deep as a
  /// model.
  ESP_ON_DEMAND ESP_INLINE void discover(Node* root) {
    std::vector<Node*> found, stack = {root};
    while (!stack.empty()) {
      Node* node = stack.back();
      stack.pop_back();
      if (std::exchange(states_[node].known, true)) continue;
      found.push_back(node);
      for (const auto& input : node->inputs) {
        if (input) stack.push_back(input.get());
      }
    }
    algo::stable_sort(found, earlier);  // inputs first
    for (Node* node : found) {
      State& state = states_[node];
      if (node->is_leaf()) {
        state.wanted = mode_of(node) != GradMode::ignore;
        continue;
      }
      for (const auto& input : node->inputs) {
        state.wanted = state.wanted || (input && states_[input.get()].wanted);
      }
    }
    for (std::size_t i = found.size(); i > 0; --i) {
      Node* node = found[i - 1];
      if (node->is_leaf() || !states_[node].wanted) continue;
      ESP_REQUIRE(!node->used(), Error, "backward: the graph through '", node->op,
                  "' was already used; run the forward again");
      for (const auto& input : node->inputs) {
        if (input) ++states_[input.get()].consumers;
      }
      algo::push_heap(heap_, node, earlier);
    }
  }

  ESP_ON_DEMAND ESP_INLINE void accept(Node* node, AnyTensor grad) {
    State& state = states_[node];
    if (state.wanted && grad) accumulate(state.grad, std::move(grad));
  }

  ESP_ON_DEMAND ESP_INLINE void differentiate(Node* node) {
    const AnyTensor dy = std::exchange(states_[node].grad, AnyTensor());
    const auto backward = std::exchange(node->backward, nullptr);
    if (!dy) return;  // no gradient reached it, which means zero
    std::vector<bool> needs;
    for (const auto& input : node->inputs) {
      needs.push_back(input && states_[input.get()].wanted);
    }
    std::vector<AnyTensor> grads;
    {
      const trace::Scope scope(node->op, " backward");
      grads = backward(dy, needs);
    }
    check_gradients(*node, grads, needs);
    for (std::size_t i = 0; i < needs.size(); ++i) {
      if (needs[i]) accept(node->inputs[i].get(), std::move(grads[i]));
    }
  }

  /// Checks number, shapes, types and devices of the gradients that an op's backward returned.
  ESP_ON_DEMAND ESP_INLINE static void check_gradients(const Node& node,
                                                       const std::vector<AnyTensor>& grads,
                                                       const std::vector<bool>& needs) {
    if (node.like.empty()) return;  // not made by an op
    ESP_REQUIRE(grads.size() == needs.size(), Error, node.op, " backward: returned ", grads.size(),
                " gradients for ", needs.size(), " inputs");
    for (std::size_t i = 0; i < node.like.size(); ++i) {
      const AnyTensor &got = grads[i], &want = node.like[i];
      if (!needs[i] || !got) continue;  // empty means zero
      ESP_REQUIRE(got.shape() == want.shape(), ShapeError, node.op,
                  " backward: the gradient of input ", i, " is ", got.shape(), ", the input is ",
                  want.shape());
      ESP_REQUIRE(got.dtype() == want.dtype(), DTypeError, node.op,
                  " backward: the gradient of input ", i, " is ", name(got.dtype()),
                  ", the input is ", name(want.dtype()));
      ESP_REQUIRE(&got.memory() == &want.memory(), DeviceError, node.op,
                  " backward: the gradient of input ", i, " is on ", got.memory().device,
                  ", the input on ", want.memory().device);
    }
  }

  ESP_ON_DEMAND ESP_INLINE void expand(Node* node) {
    const AnyTensor reached = std::exchange(states_[node].grad, AnyTensor());
    const auto recompute = std::exchange(node->recompute, nullptr);
    if (!reached) return;
    for (Node::Root& root : recompute()) {
      discover(root.node.get());
      accept(root.node.get(), std::move(root.grad));
      kept_.push_back(std::move(root.node));
    }
  }

  ESP_ON_DEMAND ESP_INLINE void deliver(Node* leaf) {
    AnyTensor grad = std::exchange(states_[leaf].grad, AnyTensor());
    switch (mode_of(leaf)) {
      case GradMode::ignore:
        return;
      case GradMode::overwrite:
        leaf->grad = std::move(grad);
        return;
      case GradMode::accumulate:
        if (grad) accumulate(leaf->grad, std::move(grad));
        return;
    }
  }

  GradMode mode_;
  NodeMap<State> states_;
  std::vector<Node*> heap_;                  // of wanted nodes, the latest first
  std::vector<std::shared_ptr<Node>> kept_;  // recomputed nodes, until the pass ends
};

}  // namespace espalier::detail
