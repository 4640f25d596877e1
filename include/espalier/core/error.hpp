// SPDX-License-Identifier: Apache-2.0
// Errors of the host code. A message names the operation, the argument, and both values:
//   "swiglu: gate is [4, 8], up is [4, 9]; expected equal shapes"
#pragma once

#include <concepts>
#include <cstdio>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <espalier/core/inline.hpp>

namespace espalier {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// The caller passed sizes that do not fit together.
struct ShapeError : Error {
  using Error::Error;
};
/// An element type that the operation was not built for.
struct DTypeError : Error {
  using Error::Error;
};
/// A device that is not there, or a tensor on the wrong one.
struct DeviceError : Error {
  using Error::Error;
};
/// A file's content is not what its format demands. The message names file, tensor or byte.
struct FormatError : Error {
  using Error::Error;
};
/// Well-formed input that is not implemented. Work that needs no computation can continue.
struct UnsupportedError : FormatError {
  using FormatError::FormatError;
};
/// The operating system refused: missing file, full disk, no permission. The message names the
/// path.
struct IoError : Error {
  using Error::Error;
};
/// The request is invalid (a program exits with code 2).
struct UsageError : Error {
  using Error::Error;
};

namespace detail {
/// A part of a message, converted to text. No streams, whose header every user would pay for; no
/// template over the parts, which would instantiate a function per message.
struct MessagePart {
  MessagePart(const char* s) : text(s) {}
  MessagePart(std::string_view s) : text(s) {}
  MessagePart(std::string s) : text(std::move(s)) {}
  MessagePart(char c) : text(1, c) {}
  MessagePart(std::integral auto n) : text(std::to_string(n)) {}
  MessagePart(double x) {
    char digits[32];
    text.assign(digits, static_cast<std::size_t>(std::snprintf(digits, sizeof digits, "%g", x)));
  }

  std::string text;
};

[[nodiscard]] ESP_INLINE std::string concat(std::initializer_list<MessagePart> parts) {
  std::string message;
  for (const MessagePart& part : parts) message += part.text;
  // what() is a C string: a NUL in a name from a file would end it.
  for (std::size_t at; (at = message.find('\0')) != message.npos;) message.replace(at, 1, "\\x00");
  return message;
}
template <class E>
[[noreturn]] void throw_error(std::initializer_list<MessagePart> parts) {
  throw E(concat(parts));
}
}  // namespace detail

}  // namespace espalier

/// Throws `E` with the concatenated parts, which are evaluated only on failure.
#define ESP_REQUIRE(cond, E, ...)                        \
  do {                                                   \
    if (!(cond)) [[unlikely]]                            \
      ::espalier::detail::throw_error<E>({__VA_ARGS__}); \
  } while (false)
