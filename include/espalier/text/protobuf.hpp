// SPDX-License-Identifier: Apache-2.0
// Reads protobuf's wire format field by field, with no schema compiler. Bytes are not trusted:
// every length is checked against what is left, and errors name file and byte.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/protobuf.hpp is host-only; include it from a .cpp"
#endif

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <espalier/core/error.hpp>

namespace espalier::text::detail {

/// Walks the fields of one protobuf message; every length is checked against what is left.
class ProtobufReader {
 public:
  ProtobufReader(std::string_view bytes, std::string_view file, std::size_t base = 0)
      : bytes_(bytes), file_(file), base_(base) {}

  /// Moves to the next field; false at the end of the message.
  bool next() {
    if (pos_ == bytes_.size()) return false;
    start_ = pos_;
    const std::uint64_t key = varint();
    field_ = static_cast<std::uint32_t>(key >> 3);
    wire_ = static_cast<int>(key & 7);
    number_ = 0;
    body_ = {};
    switch (wire_) {
      case 0:
        number_ = varint();
        break;
      case 1:
        body_ = take(8);
        break;
      case 2:
        body_ = take(varint());
        break;
      case 5:
        body_ = take(4);
        break;
      default:
        fail("a field of wire type ", wire_, ", expected 0, 1, 2 or 5");
    }
    return true;
  }

  std::uint32_t field() const { return field_; }
  std::uint64_t number() const {
    if (wire_ != 0) fail("field ", field_, " is not an integer");
    return number_;
  }
  std::string_view body() const {
    if (wire_ != 2) fail("field ", field_, " is not a string or message");
    return body_;
  }
  float real() const {
    if (wire_ != 5) fail("field ", field_, " is not a float");
    std::uint32_t bits = 0;
    for (int i = 3; i >= 0; --i) bits = bits << 8 | static_cast<std::uint8_t>(body_[i]);
    return std::bit_cast<float>(bits);
  }
  ProtobufReader message() const { return {body(), file_, base_ + (pos_ - body_.size())}; }

  template <class... Args>
  [[noreturn]] void fail(const Args&... what) const {
    throw FormatError(espalier::detail::concat({file_, ": byte ", base_ + start_, ": ", what...,
                                                "; not a SentencePiece model, or cut off"}));
  }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (pos_ == bytes_.size()) fail("an integer runs past the end");
      const auto b = static_cast<std::uint8_t>(bytes_[pos_++]);
      value |= std::uint64_t{b & 0x7Fu} << shift;
      if (b < 0x80) return value;
    }
    fail("an integer of more than 64 bits");
  }
  std::string_view take(std::uint64_t n) {
    if (n > bytes_.size() - pos_) fail("a field of ", n, " bytes, ", bytes_.size() - pos_, " left");
    const std::string_view out = bytes_.substr(pos_, static_cast<std::size_t>(n));
    pos_ += static_cast<std::size_t>(n);
    return out;
  }

  std::string_view bytes_;
  std::string_view file_;
  std::size_t base_, pos_ = 0, start_ = 0;
  std::uint32_t field_ = 0;
  int wire_ = 0;
  std::uint64_t number_ = 0;
  std::string_view body_;
};

}  // namespace espalier::text::detail
