// SPDX-License-Identifier: Apache-2.0
// The KV cache of one sequence, for all layers: a continuation computes only its own tokens.
// Memory: layers · 2 · capacity · G · P elements; grows by doubling.
#pragma once

#include <vector>

#include <espalier/tensor/tensor.hpp>

namespace espalier {

template <FloatElement T, Device D = Cpu>
class KvCache {
 public:
  KvCache() = default;
  /// `width` = G * P elements per token and layer.
  KvCache(std::int64_t layers, std::int64_t width, std::int64_t capacity)
      : width_(width), keys_(layers), values_(layers) {
    grow(std::max<std::int64_t>(capacity, 1));
  }

  std::int64_t length() const { return length_; }
  std::int64_t width() const { return width_; }
  const T* keys(std::int64_t layer) const { return keys_[layer].data(); }
  const T* values(std::int64_t layer) const { return values_[layer].data(); }

  /// Appends rows [count, width] of a layer; `advance` adds them to the length.
  void append(std::int64_t layer, const T* k, const T* v, std::int64_t count) {
    if (length_ + count > capacity_) grow(std::max(2 * capacity_, length_ + count));
    copy(k, count * width_, keys_[layer].data() + length_ * width_);
    copy(v, count * width_, values_[layer].data() + length_ * width_);
  }
  /// Adds `count` to the length, after all layers have appended.
  void advance(std::int64_t count) { length_ += count; }
  /// Truncates the cache to the first `length` tokens.
  void truncate(std::int64_t length) {
    ESP_REQUIRE(length >= 0 && length <= length_, ShapeError, "KvCache: truncate to ", length,
                ", it holds ", length_);
    length_ = length;
  }
  /// A deep copy of the first `length` tokens, with room for `capacity`.
  KvCache clone(std::int64_t length, std::int64_t capacity) const {
    ESP_REQUIRE(length >= 0 && length <= length_, ShapeError, "KvCache: clone of ", length,
                " tokens, it holds ", length_);
    KvCache clone(static_cast<std::int64_t>(keys_.size()), width_, std::max(capacity, length));
    for (std::size_t l = 0; l < keys_.size(); ++l) {
      copy(keys_[l].data(), length * width_, clone.keys_[l].data());
      copy(values_[l].data(), length * width_, clone.values_[l].data());
    }
    clone.length_ = length;
    return clone;
  }

 private:
  static void copy(const T* from, std::int64_t count, T* to) {
    memory_of<D>().copy(reinterpret_cast<std::byte*>(to), reinterpret_cast<const std::byte*>(from),
                        static_cast<std::size_t>(count) * sizeof(T));
  }
  void grow(std::int64_t capacity) {
    for (auto* side : {&keys_, &values_}) {
      for (Tensor<T, D>& t : *side) {
        Tensor<T, D> larger(Shape{capacity, width_});
        if (t) copy(t.data(), std::min(t.numel(), larger.numel()), larger.data());
        t = larger;
      }
    }
    capacity_ = capacity;
  }

  std::int64_t width_ = 0, capacity_ = 0, length_ = 0;
  std::vector<Tensor<T, D>> keys_, values_;  // per layer [capacity, G * P]
};

}  // namespace espalier
