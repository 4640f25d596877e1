// SPDX-License-Identifier: Apache-2.0
// The description of a tensor in a file: name, element type by its safetensors name, shape, bytes.
// Types without arithmetic here (F8_E4M3, BOOL, ...) can be listed and copied.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/tensor_spec.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/dtype.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/core/shape.hpp>

namespace espalier::io {

struct TensorSpec {
  std::string name;
  std::string type;  // "BF16"
  std::vector<std::int64_t> shape;
  std::size_t bytes = 0;
};

/// Bits of one element; 0 for a type that safetensors does not define.
[[nodiscard]] inline unsigned bits_of_type(std::string_view type) {
  struct Row {
    std::string_view name;
    unsigned bits;
  };
  static constexpr Row kTypes[] = {{"BF16", 16}, {"F32", 32},    {"F16", 16},    {"F64", 64},
                                   {"I64", 64},  {"I32", 32},    {"U8", 8},      {"BOOL", 8},
                                   {"I8", 8},    {"I16", 16},    {"U16", 16},    {"U32", 32},
                                   {"U64", 64},  {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F4", 4},
                                   {"C64", 64},  {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}};
  for (const Row& row : kTypes) {
    if (row.name == type) return row.bits;
  }
  return 0;
}

/// The framework's element type; none for types that can only be copied.
[[nodiscard]] inline std::optional<DType> dtype_of_type(std::string_view type) {
  if (type == "F32") return DType::f32;
  if (type == "BF16") return DType::bf16;
  if (type == "F16") return DType::f16;
  if (type == "F64") return DType::f64;
  if (type == "I64") return DType::i64;
  if (type == "I32") return DType::i32;
  if (type == "U8") return DType::u8;
  return std::nullopt;
}

[[nodiscard]] inline std::string type_of_dtype(DType dtype) {
  std::string type(espalier::name(dtype));
  for (char& c : type) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return type;
}

/// "[32000, 4096]"
[[nodiscard]] ESP_INLINE std::string shape_text(const TensorSpec& t) {
  std::string text = "[";
  for (const std::int64_t n : t.shape) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(n);
  }
  return text + "]";
}

/// Bytes that shape and type need. @throws FormatError for an unknown type or an overflow
[[nodiscard]] ESP_INLINE std::size_t checked_bytes(const TensorSpec& t, const std::string& file) {
  const unsigned bits = bits_of_type(t.type);
  ESP_REQUIRE(bits > 0, FormatError, file, ": tensor \"", t.name, "\": unknown dtype \"", t.type,
              "\"");
  std::uint64_t total = 1;
  bool overflow = false;
  for (const std::int64_t n : t.shape) {
    overflow =
        overflow || n < 0 || __builtin_mul_overflow(total, static_cast<std::uint64_t>(n), &total);
  }
  overflow = overflow || __builtin_mul_overflow(total, std::uint64_t{bits}, &total) ||
             total / 8 > std::uint64_t{1} << 62;
  ESP_REQUIRE(!overflow, FormatError, file, ": tensor \"", t.name, "\": the shape ", shape_text(t),
              " overflows");
  ESP_REQUIRE(total % 8 == 0, FormatError, file, ": tensor \"", t.name, "\": ", t.type, " ",
              shape_text(t), " does not fill whole bytes");
  return static_cast<std::size_t>(total / 8);
}

/// @throws DTypeError naming file, tensor and the types that can be computed with
[[nodiscard]] inline DType supported_dtype(const TensorSpec& t, const std::string& file) {
  const std::optional<DType> dtype = dtype_of_type(t.type);
  ESP_REQUIRE(dtype.has_value(), DTypeError, file, ": tensor \"", t.name, "\" has dtype ", t.type,
              ", supported are F64 F32 BF16 F16 I64 I32 U8; convert the checkpoint first");
  return *dtype;
}

[[nodiscard]] inline Shape shape_of(const TensorSpec& t, const std::string& file) {
  ESP_REQUIRE(t.shape.size() <= Shape::kMaxRank, FormatError, file, ": tensor \"", t.name,
              "\" has ", t.shape.size(), " axes, at most ", Shape::kMaxRank, " are supported");
  Shape shape;
  for (const std::int64_t n : t.shape) shape.append(n);
  return shape;
}

[[nodiscard]] inline TensorSpec make_spec(std::string name, DType dtype, const Shape& shape) {
  TensorSpec t{std::move(name), type_of_dtype(dtype), {shape.begin(), shape.end()}, 0};
  t.bytes = checked_bytes(t, "tensor to write");
  return t;
}

/// Sorts by decreasing element size: then every tensor of a file is aligned for its type.
ESP_INLINE void sort_for_alignment(std::vector<TensorSpec>& tensors) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return bits_of_type(a.type) > bits_of_type(b.type);
  });
}

}  // namespace espalier::io
