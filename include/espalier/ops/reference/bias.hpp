// SPDX-License-Identifier: Apache-2.0
// add_bias by plain loops, for tests: row r of group g gets biases[g].     x [R, out]   b [G, out]
#pragma once

#include <cstdint>
#include <vector>

namespace espalier::reference {

template <class S>
std::vector<S> add_bias(std::vector<S> x, const std::vector<S>& biases,
                        const std::vector<std::int64_t>& offsets, std::int64_t out) {
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g) {
    for (std::int64_t r = offsets[g]; r < offsets[g + 1]; ++r) {
      for (std::int64_t c = 0; c < out; ++c) {
        x[r * out + c] += biases[static_cast<std::int64_t>(g) * out + c];
      }
    }
  }
  return x;
}

/// Gradients of the biases [G, out]; that of x is dy.
template <class S>
std::vector<S> add_bias_backward(const std::vector<S>& dy, const std::vector<std::int64_t>& offsets,
                                 std::int64_t out) {
  std::vector<S> d((offsets.size() - 1) * static_cast<std::size_t>(out), S(0));
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g) {
    for (std::int64_t r = offsets[g]; r < offsets[g + 1]; ++r) {
      for (std::int64_t c = 0; c < out; ++c) {
        d[static_cast<std::int64_t>(g) * out + c] += dy[r * out + c];
      }
    }
  }
  return d;
}

}  // namespace espalier::reference
