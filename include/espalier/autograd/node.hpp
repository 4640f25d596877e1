// SPDX-License-Identifier: Apache-2.0
// The type-erased graph: a `Node` is not a template and its edges carry `AnyTensor`, so bf16
// activations, f32 adapters and a double check live in one graph. Nodes carry the order of their
// creation, and the backward pass visits them in the reverse order: two programs that compute the
// same values in the same order add up their gradients in the same order, to the last bit.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <espalier/core/function.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier {

/// What the backward pass does with the gradient of a leaf: compute none, replace the leaf's
/// gradient by it, or add it to the leaf's gradient.
enum class GradMode : std::uint8_t { ignore, overwrite, accumulate };

struct Node {
  struct Root {
    std::shared_ptr<Node> node;
    AnyTensor grad;
  };

  const char* op = "leaf";
  std::uint64_t order = 0;                    // greater than that of any input; 0 for leaves
  std::vector<std::shared_ptr<Node>> inputs;  // null where an input needs no gradient
  std::vector<AnyTensor> like;                // shape, type and device of each input, no values
  /// One gradient per input; those that `needs` does not ask for may be empty.
  Function<std::vector<AnyTensor>(const AnyTensor& dy, const std::vector<bool>& needs)> backward;
  /// Instead of `backward`: recomputes a graph to continue with (autograd/recompute.hpp).
  Function<std::vector<Root>()> recompute;

  // Leaves only.
  AnyTensor grad;                // empty until the first backward pass
  std::optional<GradMode> mode;  // overrides the mode of the backward pass

  Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  // Not by recursion: a graph may be longer than the stack.
  ESP_INLINE ~Node() {
    std::vector<std::shared_ptr<Node>> orphans = std::move(inputs);
    while (!orphans.empty()) {
      const std::shared_ptr<Node> node = std::move(orphans.back());
      orphans.pop_back();
      if (!node || node.use_count() > 1) continue;
      for (auto& input : node->inputs) orphans.push_back(std::move(input));
      node->inputs.clear();
    }
  }

  bool is_leaf() const { return order == 0; }
  bool used() const { return !is_leaf() && !backward && !recompute; }
};

namespace detail {

/// What operations of a thread record: nothing, edges alone (to learn what a value depends on), or
/// everything that the backward pass needs.
enum class Recording : std::uint8_t { off, edges, full };

struct GraphState {
  Recording recording = Recording::full;
  std::uint64_t clock = 0;  // order of the newest node
};
inline thread_local GraphState graph;

/// A node behind `inputs`, later than each of them even where another thread made one.
inline std::shared_ptr<Node> new_node(const char* op, std::vector<std::shared_ptr<Node>> inputs) {
  auto node = std::make_shared<Node>();
  for (const auto& input : inputs) {
    if (input) graph.clock = std::max(graph.clock, input->order);
  }
  node->op = op;
  node->order = ++graph.clock;
  node->inputs = std::move(inputs);
  return node;
}

class RecordingScope {
 public:
  explicit RecordingScope(Recording recording)
      : before_(std::exchange(graph.recording, recording)) {}
  ~RecordingScope() { graph.recording = before_; }
  RecordingScope(const RecordingScope&) = delete;
  RecordingScope& operator=(const RecordingScope&) = delete;

 private:
  Recording before_;
};

}  // namespace detail

/// During its lifetime, operations of this thread build no graph.
class NoGrad {
 public:
  NoGrad() = default;

 private:
  detail::RecordingScope off_{detail::Recording::off};
};

}  // namespace espalier
