// SPDX-License-Identifier: Apache-2.0
// Run-time shapes of at most six axes, without heap memory. One letter, one meaning, everywhere:
//   B batch   L sequence length   N = B*L tokens   H hidden   F expert FFN width   E experts
//   K experts per token   R = N*K routed rows   V vocabulary   A heads   G kv heads   P head dim
//   r LoRA rank   S segments (packed sequences)
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <string>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>

namespace espalier {

class Shape;
/// "[4, 8]"
[[nodiscard]] ESP_INLINE std::string to_string(const Shape& s);

class Shape {
 public:
  static constexpr int kMaxRank = 6;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents) {
    ESP_REQUIRE(extents.size() <= kMaxRank, ShapeError, "Shape: ", extents.size(),
                " axes, expected at most ", kMaxRank);
    for (const std::int64_t n : extents) append(n);
  }

  void append(std::int64_t extent) {
    ESP_REQUIRE(rank_ < kMaxRank, ShapeError, "Shape: more than ", kMaxRank, " axes");
    ESP_REQUIRE(extent >= 0, ShapeError, "Shape: axis ", rank_, " has extent ", extent,
                ", expected at least 0");
    extents_[rank_++] = extent;
  }

  int rank() const { return rank_; }
  /// Extent of axis `i`; negative counts from the last.
  std::int64_t operator[](int i) const {
    const int axis = i < 0 ? i + rank_ : i;
    ESP_REQUIRE(axis >= 0 && axis < rank_, ShapeError, "Shape: axis ", i, " of rank ", rank_);
    return extents_[axis];
  }
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= extents_[i];
    return n;
  }
  const std::int64_t* begin() const { return extents_.data(); }
  const std::int64_t* end() const { return extents_.data() + rank_; }

  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i) {
      if (a.extents_[i] != b.extents_[i]) return false;
    }
    return true;
  }
  friend std::string to_string(const Shape& s) {
    std::string text = "[";
    for (int i = 0; i < s.rank_; ++i) text += (i ? ", " : "") + std::to_string(s.extents_[i]);
    return text += ']';
  }
  operator detail::MessagePart() const { return to_string(*this); }
  template <class Traits>
  friend std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& os,
                                                      const Shape& s) {
    return os << to_string(s);
  }

 private:
  std::array<std::int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

}  // namespace espalier
