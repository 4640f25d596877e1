// SPDX-License-Identifier: Apache-2.0
// The text of one JSON document and the memory of its values. A value keeps its place in the text
// instead of its path, and a number or plain string nothing else: a value costs 16 bytes. The path
// is found again when a message needs it, by a walk that goes on from the one before.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/json_document.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <espalier/core/inline.hpp>

namespace espalier::io::detail {

class JsonDocument {
 public:
  static constexpr std::size_t kPaddingBytes = 64;  // the parser reads beyond the end

  ESP_INLINE JsonDocument(std::string_view text, std::string source)
      : source_(std::move(source)),
        size_(text.size()),
        text_(new char[text.size() + kPaddingBytes]),
        chunk_bytes_(std::clamp<std::size_t>(text.size() / 8 * 8, 256, 1 << 14)) {
    if (!text.empty()) std::memcpy(text_.get(), text.data(), text.size());
    std::memset(text_.get() + size_, 0, kPaddingBytes);
  }
  JsonDocument(const JsonDocument&) = delete;
  JsonDocument& operator=(const JsonDocument&) = delete;

  std::string_view text() const { return {text_.get(), size_}; }
  const std::string& source() const { return source_; }

  void share() const { owners_.fetch_add(1, std::memory_order_relaxed); }
  void release() const {
    if (owners_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  /// Memory that lives as long as the document, aligned for a value, and its distance from the
  /// block before it, in units of 8 bytes.
  struct Place {
    void* memory;
    std::uint32_t distance;
  };
  ESP_INLINE Place allocate(std::size_t bytes);

  /// The string whose opening quote is at byte `place`, and which has no escapes.
  std::string_view plain_string(std::uint32_t place) const {
    const char* begin = text_.get() + place + 1;
    const void* end = std::memchr(begin, '"', size_ - place - 1);
    return {begin, static_cast<std::size_t>(static_cast<const char*>(end) - begin)};
  }

  /// "config.json: at "rope_parameters"."rope_theta"", for the value at byte `place`.
  ESP_INLINE std::string where(std::uint32_t place) const {
    const std::lock_guard lock(mutex_);
    if (place < walk_.at) walk_ = {};
    walk_to(place);
    std::string path;
    for (const Level& level : walk_.levels) {
      if (level.is_array) {
        path += "[" + std::to_string(level.index) + "]";
      } else {
        const std::size_t end = string_end(level.key);
        path.append(path.empty() ? "" : ".");
        path.append(text_.get() + level.key, end - level.key);
      }
    }
    return path.empty() ? source_ : source_ + ": at " + path;
  }

 private:
  struct Level {
    bool is_array;
    bool expects_key;
    std::uint32_t index;  // of the element
    std::uint32_t key;    // place of the member's key
  };
  struct Walk {
    std::size_t at = 0;
    std::vector<Level> levels;  // the containers around `at`
  };

  /// The byte behind the string whose opening quote is at byte `i`.
  std::size_t string_end(std::size_t i) const {
    for (++i; i < size_ && text_[i] != '"'; ++i) i += text_[i] == '\\' ? 1 : 0;
    return i + 1;
  }

  /// The text is known to be valid: it has been parsed.
  void walk_to(std::size_t place) const {
    while (walk_.at < place) {
      const char c = text_[walk_.at];
      if (c == '"') {
        if (!walk_.levels.empty() && walk_.levels.back().expects_key) {
          walk_.levels.back().key = static_cast<std::uint32_t>(walk_.at);
          walk_.levels.back().expects_key = false;
        }
        walk_.at = string_end(walk_.at);
        continue;
      }
      if (c == '{' || c == '[') {
        walk_.levels.push_back({c == '[', c == '{', 0, 0});
      } else if (c == '}' || c == ']') {
        walk_.levels.pop_back();
      } else if (c == ',') {
        Level& level = walk_.levels.back();
        level.expects_key = !level.is_array;
        ++level.index;
      }
      ++walk_.at;
    }
  }

  std::string source_;
  std::size_t size_;
  std::unique_ptr<char[]> text_;
  std::size_t chunk_bytes_;
  std::vector<std::unique_ptr<char[]>> chunks_;
  char* chunk_ = nullptr;
  std::size_t left_ = 0;  // bytes of chunk_ not used yet
  mutable std::atomic<std::size_t> owners_{1};
  mutable std::mutex mutex_;
  mutable Walk walk_;
};

/// Stands before the nodes of a piece of memory: many of a document's, or one that can grow.
struct JsonBlock {
  const JsonDocument* document;  // null for values that were not parsed
  std::size_t capacity;          // items of the one node; 0: the memory is the document's
};

ESP_INLINE JsonDocument::Place JsonDocument::allocate(std::size_t bytes) {
  bytes = (bytes + 7) / 8 * 8;
  const auto new_chunk = [&](std::size_t room) {
    chunks_.emplace_back(new char[sizeof(JsonBlock) + room]);
    new (chunks_.back().get()) JsonBlock{this, 0};
    return chunks_.back().get();
  };
  constexpr auto kFirst = static_cast<std::uint32_t>(sizeof(JsonBlock) / 8);
  if (bytes > chunk_bytes_ / 4) return {new_chunk(bytes) + sizeof(JsonBlock), kFirst};
  if (bytes > left_) {
    chunk_ = new_chunk(chunk_bytes_);
    left_ = chunk_bytes_;
  }
  const std::size_t at = sizeof(JsonBlock) + chunk_bytes_ - left_;
  left_ -= bytes;
  return {chunk_ + at, static_cast<std::uint32_t>(at / 8)};
}

struct JsonNoKeys {};
using JsonKeys = std::unique_ptr<std::vector<std::uint32_t>>;  // members in the order of their keys

/// Elements of an array, members of an object, bytes of a string: 8 bytes (and the keys), and the
/// items behind them. Each node shares the document.
template <class T, class Keys = JsonNoKeys>
struct JsonNode {
  std::uint32_t size;
  std::uint32_t distance;  // to the block before it, in units of 8 bytes
  [[no_unique_address]] Keys keys;

  T* items() { return reinterpret_cast<T*>(this + 1); }
  const T* items() const { return reinterpret_cast<const T*>(this + 1); }
  const JsonBlock& block() const {
    return *reinterpret_cast<const JsonBlock*>(reinterpret_cast<const char*>(this) -
                                               8 * std::size_t{distance});
  }

  static JsonNode* create(std::size_t capacity, const JsonDocument* document) {
    static_assert(sizeof(JsonBlock) % 8 == 0 && alignof(JsonNode) <= 8);
    void* memory = ::operator new(sizeof(JsonBlock) + sizeof(JsonNode) + capacity * sizeof(T));
    auto* block = new (memory) JsonBlock{document, capacity};
    if (document != nullptr) document->share();
    return new (block + 1) JsonNode{0, sizeof(JsonBlock) / 8, {}};
  }
  /// In the document's memory; the caller adds exactly as many items as it says.
  static JsonNode* create_within(JsonDocument& document, std::size_t items) {
    const JsonDocument::Place place = document.allocate(sizeof(JsonNode) + items * sizeof(T));
    document.share();
    return new (place.memory) JsonNode{0, place.distance, {}};
  }
  static JsonNode* copy(const JsonNode* from) {
    if (from == nullptr) return nullptr;
    JsonNode* node = create(std::max(from->size, 1u), from->block().document);
    node->append(from->items(), from->size);
    if constexpr (!std::is_same_v<Keys, JsonNoKeys>) {
      if (from->keys) node->keys = std::make_unique<std::vector<std::uint32_t>>(*from->keys);
    }
    return node;
  }
  static void destroy(JsonNode* node) {
    if (node == nullptr) return;
    std::destroy_n(node->items(), node->size);
    const JsonBlock& block = node->block();
    const JsonDocument* document = block.document;
    std::destroy_at(node);
    if (block.capacity > 0) ::operator delete(const_cast<JsonBlock*>(&block));
    if (document != nullptr) document->release();
  }

  /// Adds behind the others; there must be room.
  void add(T item) { new (items() + size++) T(std::move(item)); }
  void append(const T* from, std::size_t count) {
    std::uninitialized_copy_n(from, count, items() + size);
    size += static_cast<std::uint32_t>(count);
  }
  /// `node`, or one that its items have moved to, with room for one more.
  static JsonNode* with_room(JsonNode* node) {
    if (node == nullptr) return create(4, nullptr);
    if (node->size < node->block().capacity) return node;
    JsonNode* larger = create(2 * std::max<std::size_t>(node->size, 2), node->block().document);
    for (std::uint32_t i = 0; i < node->size; ++i) larger->add(std::move(node->items()[i]));
    larger->keys = std::move(node->keys);
    destroy(node);
    return larger;
  }
  void erase(std::size_t at) {
    std::move(items() + at + 1, items() + size, items() + at);
    std::destroy_at(items() + --size);
  }
};

}  // namespace espalier::io::detail
