// SPDX-License-Identifier: Apache-2.0
// Element types: the 2-byte floats of checkpoints, their names, and the run-time tag.
// Conversions to bf16 and f16 round to nearest even; NaN stays NaN.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>

namespace espalier {

struct bf16 {
  std::uint16_t bits;

  bf16() = default;
  explicit bf16(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    bits =
        (u & 0x7fffffffu) > 0x7f800000u
            ? static_cast<std::uint16_t>((u >> 16) | 0x40u)  // quiet, and never rounds to infinity
            : static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
};

struct f16 {
  std::uint16_t bits;

  f16() = default;
  explicit f16(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (u >> 16) & 0x8000u;
    const std::uint32_t magnitude = u & 0x7fffffffu;
    std::uint32_t h;
    if (magnitude > 0x7f800000u) {
      h = 0x7e00u;
    } else if (magnitude >= 0x477ff000u) {  // rounds to at least 65536
      h = 0x7c00u;
    } else if (magnitude >= 0x38800000u) {  // normal
      h = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    } else {  // subnormal: adding 0.5 aligns the mantissa so that the FPU rounds it
      h = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
    }
    bits = static_cast<std::uint16_t>(sign | h);
  }
  explicit operator float() const {
    const std::uint32_t sign = (bits & 0x8000u) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1fu;
    const std::uint32_t mantissa = bits & 0x3ffu;
    if (exponent == 0) {
      const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
      return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
    }
    const std::uint32_t e = exponent == 31 ? 0xffu : exponent + 112u;
    return std::bit_cast<float>(sign | (e << 23) | (mantissa << 13));
  }
};

static_assert(sizeof(bf16) == 2 && sizeof(f16) == 2);

enum class DType : std::uint8_t { f64, f32, bf16, f16, i64, i32, u8 };

namespace detail {
template <DType kType>
struct dtype_constant {
  static constexpr DType value = kType;
};
}  // namespace detail

template <class T>
struct dtype_of;
template <>
struct dtype_of<double> : detail::dtype_constant<DType::f64> {};
template <>
struct dtype_of<float> : detail::dtype_constant<DType::f32> {};
template <>
struct dtype_of<bf16> : detail::dtype_constant<DType::bf16> {};
template <>
struct dtype_of<f16> : detail::dtype_constant<DType::f16> {};
template <>
struct dtype_of<std::int64_t> : detail::dtype_constant<DType::i64> {};
template <>
struct dtype_of<std::int32_t> : detail::dtype_constant<DType::i32> {};
template <>
struct dtype_of<std::uint8_t> : detail::dtype_constant<DType::u8> {};

/// Anything a tensor can hold.
template <class T>
concept Element = requires {
  dtype_of<T>::value;
};
/// Element types of activations: f32, bf16 (arithmetic in f32, rounded once when stored), and
/// double to check gradients.
template <class T>
concept FloatElement = std::floating_point<T> || std::same_as<T, bf16>;

/// The type that T is computed and summed in: double for double, float for everything narrower.
template <class T>
using acc_t = std::conditional_t<std::same_as<T, double>, double, float>;

[[nodiscard]] constexpr std::size_t size_of(DType t) {
  switch (t) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::u8:
      return 1;
  }
  return 0;
}

[[nodiscard]] constexpr std::string_view name(DType t) {
  switch (t) {
    case DType::f64:
      return "f64";
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
    case DType::i64:
      return "i64";
    case DType::i32:
      return "i32";
    case DType::u8:
      return "u8";
  }
  return "?";
}

/// @throws UsageError listing the known names.
[[nodiscard]] inline DType dtype_named(std::string_view wanted) {
  for (int i = 0; i <= static_cast<int>(DType::u8); ++i) {
    if (name(static_cast<DType>(i)) == wanted) return static_cast<DType>(i);
  }
  throw UsageError(detail::concat(
      {"unknown element type '", wanted, "', expected f64, f32, bf16, f16, i64, i32 or u8"}));
}

namespace detail {
[[noreturn]] ESP_INLINE void throw_unsupported(std::string_view op, DType dtype,
                                               std::initializer_list<DType> built_for) {
  std::string list;
  for (const DType d : built_for) list.append(" ").append(name(d));
  throw DTypeError(concat({op, ": unsupported dtype ", name(dtype), "; built for", list}));
}
}  // namespace detail

/// The only dtype switch: calls `f.template operator()<T>()` for the listed type that `dtype`
/// names.
/// @throws DTypeError "rms_norm: unsupported dtype i32; built for f32 bf16"
template <Element... Ts, class F>
decltype(auto) visit_dtype(std::string_view op, DType dtype, F&& f) {
  using Result = std::common_type_t<decltype(f.template operator()<Ts>())...>;
  auto call = [&]<class T, class... Rest>(auto&& self) -> Result {
    if (dtype == dtype_of<T>::value) return f.template operator()<T>();
    if constexpr (sizeof...(Rest) > 0) {
      return self.template operator()<Rest...>(self);
    } else {
      detail::throw_unsupported(op, dtype, {dtype_of<Ts>::value...});
    }
  };
  return call.template operator()<Ts...>(call);
}

}  // namespace espalier
