// SPDX-License-Identifier: Apache-2.0
// Seeded values for tests, and the way between tensors and the vectors of references.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <espalier/core/random.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier::test {

/// Standard normal values, rounded to float so that a float and a double path see the same numbers.
inline std::vector<double> normal(std::int64_t n, std::uint64_t seed, double scale = 1.0) {
  const Philox philox(seed);
  std::vector<double> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<double>(static_cast<float>(scale * philox.normal(i)));
  }
  return values;
}

template <Element T>
Tensor<T> make_tensor(Shape shape, const std::vector<double>& values) {
  Tensor<T> t(shape);
  ESP_REQUIRE(static_cast<std::int64_t>(values.size()) == t.numel(), ShapeError,
              "make_tensor: ", values.size(), " values for ", shape);
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    if constexpr (sizeof(T) == 2) {
      t[i] = T(static_cast<float>(values[i]));
    } else {
      t[i] = static_cast<T>(values[i]);
    }
  }
  return t;
}

/// Standard normal values that a T holds exactly, so that T and double see the same numbers.
template <FloatElement T>
std::vector<double> normal_of(std::int64_t n, std::uint64_t seed, double scale = 1.0) {
  std::vector<double> values = normal(n, seed, scale);
  if constexpr (sizeof(T) == 2) {
    for (double& v : values) v = static_cast<float>(T(static_cast<float>(v)));
  }
  return values;
}

/// The values of a floating tensor of any type.
inline std::vector<double> to_vector(const AnyTensor& t) {
  const Tensor<double> wide = converted<double>(t);
  return {wide.data(), wide.data() + wide.numel()};
}

/// NaN-proof: equal in every bit, type and shape.
inline bool same_bits(const AnyTensor& a, const AnyTensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.bytes(), b.bytes(), a.size_bytes()) == 0;
}

}  // namespace espalier::test
