// SPDX-License-Identifier: Apache-2.0
// Weights to begin with. A value depends on the seed, the weight's name and the position alone: not
// on the order in which modules are made, nor on the number of threads.
#pragma once

#include <espalier/core/random.hpp>
#include <espalier/nn/parameter.hpp>

namespace espalier {

/// Normal values of the given standard deviation.
template <FloatElement T>
[[nodiscard]] Tensor<T> normal_weight(std::string_view name, Shape shape, float deviation,
                                      std::uint64_t seed) {
  const Tensor<T> w(shape);
  const Philox random(seed, stream_of(name));
  for (std::int64_t i = 0; i < w.numel(); ++i) {
    w[i] = static_cast<T>(deviation * random.normal(static_cast<std::uint64_t>(i)));
  }
  return w;
}

}  // namespace espalier
