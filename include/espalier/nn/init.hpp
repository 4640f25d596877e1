// SPDX-License-Identifier: Apache-2.0
// Initial weights. A value depends on the seed, the weight's name and the position only, not on the
// order in which modules are made or the number of threads.
#pragma once

#include <espalier/core/random.hpp>
#include <espalier/nn/parameter.hpp>

namespace espalier {

/// Normal values with mean 0 and the given standard deviation.
template <FloatElement T>
[[nodiscard]] Tensor<T> normal_weight(std::string_view name, Shape shape, float deviation,
                                      std::uint64_t seed) {
  const Tensor<T> w(shape);
  const Philox random(seed, stream_of(name));
  T* values = w.data();
  for (std::int64_t i = 0; i < w.numel(); ++i) {
    values[i] = static_cast<T>(deviation * random.normal(static_cast<std::uint64_t>(i)));
  }
  return w;
}

}  // namespace espalier
