// SPDX-License-Identifier: Apache-2.0
// Errors of the host code. A message names the operation, the argument, and both values:
//   "swiglu: gate is [4, 8], up is [4, 9]; expected equal shapes"
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

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
/// The operating system refused: missing file, full disk, no permission. The message names the
/// path.
struct IoError : Error {
  using Error::Error;
};
/// The request itself makes no sense (a program ends with exit code 2).
struct UsageError : Error {
  using Error::Error;
};

namespace detail {
template <class... Parts>
[[nodiscard]] std::string concat(const Parts&... parts) {
  std::ostringstream os;
  (os << ... << parts);
  return os.str();
}
}  // namespace detail

}  // namespace espalier

/// Throws `E` with the concatenated parts, which are evaluated only on failure.
#define ESP_REQUIRE(cond, E, ...)                       \
  do {                                                  \
    if (!(cond)) [[unlikely]]                           \
      throw E(::espalier::detail::concat(__VA_ARGS__)); \
  } while (false)
