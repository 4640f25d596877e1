// SPDX-License-Identifier: Apache-2.0
// Tensors against values of a reference.
#pragma once

#include <vector>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/make_tensor.hpp"

namespace espalier::test {

inline void require_close(const AnyTensor& got, const std::vector<double>& want, double atol,
                          double rtol) {
  const Mismatch m = compare(to_vector(got), want, atol, rtol);
  INFO(m);
  REQUIRE(m.count == 0);
}

inline std::vector<int> ints(const Tensor<std::int32_t>& t) {
  return {t.data(), t.data() + t.numel()};
}

}  // namespace espalier::test
