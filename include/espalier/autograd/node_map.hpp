// SPDX-License-Identifier: Apache-2.0
// A hash table from nodes to values, with open addressing (Knuth, TAOCP 6.4, algorithm L). Lighter
// to compile than <map> or <unordered_map>, which took a sixteenth of the time of the umbrella
// header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace espalier {

struct Node;

namespace detail {

template <class Value>
class NodeMap {
 public:
  /// A new node gets Value{}. The reference is valid until the next new node.
  Value& operator[](const Node* node) {
    if (slots_.empty()) grow();
    std::size_t i = place_of(node);
    if (slots_[i].node == nullptr) {
      if (2 * ++count_ > slots_.size()) {
        grow();
        i = place_of(node);
      }
      slots_[i].node = node;
    }
    return slots_[i].value;
  }

 private:
  struct Slot {
    const Node* node = nullptr;
    Value value{};
  };

  /// The slot of `node`, or the one for it. The number of slots is a power of two.
  std::size_t place_of(const Node* node) const {
    const std::size_t last = slots_.size() - 1;
    const std::uint64_t hash = reinterpret_cast<std::uintptr_t>(node) * 0x9E3779B97F4A7C15u;
    std::size_t i = (hash >> 32) & last;
    while (slots_[i].node != nullptr && slots_[i].node != node) i = (i + 1) & last;
    return i;
  }
  void grow() {
    std::vector<Slot> old(slots_.empty() ? 64 : 2 * slots_.size());
    old.swap(slots_);
    for (Slot& slot : old) {
      if (slot.node != nullptr) slots_[place_of(slot.node)] = std::move(slot);
    }
  }

  std::vector<Slot> slots_;
  std::size_t count_ = 0;
};

}  // namespace detail

}  // namespace espalier
