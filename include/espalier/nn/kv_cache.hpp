// SPDX-License-Identifier: Apache-2.0
// The KV cache of one sequence, for all layers: a continuation computes only its own tokens.
// On the CPU it is a list of pages of 96 tokens. Copies share the pages until one of them writes
// (copy on write), so sequences with a common prefix hold it once. Memory: layers * 2 * G * P
// elements per token, in whole pages. On a device, whose kernels read contiguous keys, a cache has
// memory of its own: layers * 2 * capacity * G * P elements, which grows by doubling.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include <espalier/core/algorithm.hpp>
#include <espalier/ops/cpu/key_pages.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier {

/// Contiguous: of a device.
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
  /// None: `keys` and `values` hold all rows.
  std::span<const cpu::KeyPage<T>> pages(std::int64_t) const { return {}; }

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

/// In pages, which copies share.
template <FloatElement T>
class KvCache<T, Cpu> {
 public:
  KvCache() = default;
  /// `width` = G * P elements per token and layer. Pages come as they are needed.
  KvCache(std::int64_t layers, std::int64_t width, std::int64_t /*capacity*/)
      : layers_(layers), width_(width), tables_(static_cast<std::size_t>(layers)) {}

  std::int64_t length() const { return length_; }
  std::int64_t width() const { return width_; }
  /// Null: `pages` holds the rows.
  const T* keys(std::int64_t) const { return nullptr; }
  const T* values(std::int64_t) const { return nullptr; }
  /// The rows of a layer, with those that were appended and not yet advanced over.
  std::span<const cpu::KeyPage<T>> pages(std::int64_t layer) const { return tables_[layer]; }
  /// Elements of a page: keys and values of all layers.
  std::int64_t page_elements() const { return layers_ * 2 * cpu::kPageKeys * width_; }

  /// Appends rows [count, width] of a layer; `advance` adds them to the length.
  void append(std::int64_t layer, const T* k, const T* v, std::int64_t count) {
    make_room(count);
    for (std::int64_t done = 0; done < count;) {
      const std::int64_t token = length_ + done, row = token % cpu::kPageKeys;
      const std::int64_t rows = std::min(count - done, cpu::kPageKeys - row);
      T* const page = pages_[token / cpu::kPageKeys]->data();
      copy(k + done * width_, rows, page + offset(layer, 0) + row * width_);
      copy(v + done * width_, rows, page + offset(layer, 1) + row * width_);
      done += rows;
    }
  }
  /// Adds `count` to the length, after all layers have appended.
  void advance(std::int64_t count) { length_ += count; }
  /// Truncates the cache to the first `length` tokens.
  void truncate(std::int64_t length) {
    ESP_REQUIRE(length >= 0 && length <= length_, ShapeError, "KvCache: truncate to ", length,
                ", it holds ", length_);
    length_ = length;
    drop_pages_behind(length);
  }
  /// The first `length` tokens, sharing their pages.
  KvCache clone(std::int64_t length, std::int64_t /*capacity*/) const {
    ESP_REQUIRE(length >= 0 && length <= length_, ShapeError, "KvCache: clone of ", length,
                " tokens, it holds ", length_);
    KvCache clone(*this);
    clone.truncate(length);
    return clone;
  }

 private:
  static std::int64_t pages_of(std::int64_t tokens) {
    return (tokens + cpu::kPageKeys - 1) / cpu::kPageKeys;
  }
  std::int64_t offset(std::int64_t layer, std::int64_t side) const {
    return (layer * 2 + side) * cpu::kPageKeys * width_;
  }
  void copy(const T* from, std::int64_t rows, T* to) const {
    std::copy(from, from + rows * width_, to);
  }

  /// Gives the next `count` tokens pages that no other cache reads.
  void make_room(std::int64_t count) {
    const std::int64_t first = length_ / cpu::kPageKeys;
    for (std::int64_t p = first; p < pages_of(length_ + count); ++p) {
      if (p < std::ssize(pages_) && pages_[p].use_count() == 1) continue;
      auto page = std::make_shared<Tensor<T>>(Shape{layers_, 2, cpu::kPageKeys, width_});
      if (p < std::ssize(pages_)) {
        copy_rows(*pages_[p], std::max<std::int64_t>(0, length_ - p * cpu::kPageKeys), *page);
        pages_[p] = std::move(page);
      } else {
        pages_.push_back(std::move(page));
      }
      for (std::int64_t l = 0; l < layers_; ++l) {
        auto& table = tables_[l];
        table.resize(pages_.size());
        table[p] = {pages_[p]->data() + offset(l, 0), pages_[p]->data() + offset(l, 1)};
      }
    }
  }
  /// The first `rows` of a page, of all layers.
  void copy_rows(const Tensor<T>& from, std::int64_t rows, const Tensor<T>& to) const {
    for (std::int64_t l = 0; l < layers_; ++l) {
      for (std::int64_t side = 0; side < 2; ++side) {
        copy(from.data() + offset(l, side), rows, to.data() + offset(l, side));
      }
    }
  }
  void drop_pages_behind(std::int64_t tokens) {
    const auto count = std::min(static_cast<std::size_t>(pages_of(tokens)), pages_.size());
    pages_.resize(count);
    for (auto& table : tables_) table.resize(count);
  }

  std::int64_t layers_ = 0, width_ = 0, length_ = 0;
  std::vector<std::shared_ptr<Tensor<T>>> pages_;     // [layers, keys and values, kPageKeys, G * P]
  std::vector<std::vector<cpu::KeyPage<T>>> tables_;  // per layer, the places in pages_
};

}  // namespace espalier
