// SPDX-License-Identifier: Apache-2.0
// The device of a tensor, as a compile-time tag.
#pragma once

#include <concepts>

namespace espalier {

struct Cpu {
  static constexpr const char* kName = "cpu";
  static constexpr bool is_cuda = false;
};

template <class D>
concept Device = requires {
  { D::is_cuda } -> std::convertible_to<bool>;
};

}  // namespace espalier
