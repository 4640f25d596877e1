// SPDX-License-Identifier: Apache-2.0
// Where the rows of each group (the tokens of each expert) begin: group g has the rows
// [offsets[g], offsets[g + 1]). On the CPU numbers of the host, [G + 1]; a device keeps them in its
// own memory, so that the host waits for nothing.
#pragma once

#include <cstdint>
#include <vector>

#include <espalier/tensor/tensor.hpp>

namespace espalier {

namespace detail {
template <Device D>
struct group_offsets {
  using type = Tensor<std::int32_t, D>;
};
template <>
struct group_offsets<Cpu> {
  using type = std::vector<std::int64_t>;
};
}  // namespace detail
template <Device D>
using GroupOffsets = typename detail::group_offsets<D>::type;

/// One group of all rows; on a device an empty tensor.
template <Device D>
[[nodiscard]] GroupOffsets<D> one_group([[maybe_unused]] std::int64_t rows) {
  if constexpr (D::is_cuda) {
    return {};
  } else {
    return {0, rows};
  }
}

}  // namespace espalier
