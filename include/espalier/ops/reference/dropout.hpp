// SPDX-License-Identifier: Apache-2.0
// dropout by a plain loop, for tests: y_i = x_i / (1 - p) where draw i of the stream is at least p,
// else 0. The gradient is the same function of dy.
// Srivastava et al. 2014, JMLR 15, in the form that scales while training.
#pragma once

#include <cstdint>
#include <vector>

#include <espalier/core/random.hpp>

namespace espalier::reference {

template <class S>
std::vector<S> dropout(const std::vector<S>& x, float p, std::uint64_t seed, std::uint64_t stream) {
  const Philox philox(seed, stream);
  std::vector<S> y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    y[i] = philox.uniform(i) < p ? S(0) : x[i] / S(1 - static_cast<double>(p));
  }
  return y;
}

}  // namespace espalier::reference
