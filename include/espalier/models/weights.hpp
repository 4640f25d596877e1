// SPDX-License-Identifier: Apache-2.0
// The weights of a model by role, independent of the checkpoint's names and storage of experts.
// Matrices [out, in] keep their stored type. Matrices of fused experts are views into the fused
// tensor; those of gpt-oss, stored transposed, are copies.
#pragma once

#include <cstring>
#include <string>
#include <utility>

#include <espalier/core/function.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/models/layout.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier {

/// A stored tensor by its name, on the host.
using WeightSource = Function<AnyTensor(const std::string& name)>;

class Weights {
 public:
  ESP_ON_DEMAND Weights(const DecoderConfig& config, WeightSource source)
      : config_(config), layout_(config), source_(std::move(source)) {}

  const DecoderConfig& config() const { return config_; }

  /// @throws ShapeError naming the tensor when its shape does not fit the config
  AnyTensor get(Part part, int layer = -1, int expert = -1) const;
  /// Empty where the model has none.
  AnyTensor bias(Part part, int layer, int expert = -1) const;
  bool has(Part part, int layer = -1) const { return layout_.find(part, layer) != nullptr; }

 private:
  AnyTensor stored(const TensorPlace& place) const;
  AnyTensor fused(Part part, int layer, int expert, bool bias) const;

  DecoderConfig config_;
  Layout layout_;
  WeightSource source_;
};

}  // namespace espalier

#ifdef ESP_BODIES
namespace espalier {

namespace detail {

/// The transpose of columns first, first + step, ... of a matrix [R, C].
inline AnyTensor transposed_columns(const AnyTensor& matrix, std::int64_t first,
                                    std::int64_t step) {
  const std::int64_t rows = matrix.shape(0), columns = matrix.shape(1);
  const AnyTensor out(Shape{(columns - first + step - 1) / step, rows}, matrix.dtype());
  const std::size_t size = size_of(matrix.dtype());
  parallel_for(out.shape(0), 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = begin; c < end; ++c) {
        std::memcpy(
            out.bytes() + static_cast<std::size_t>(c * rows + r) * size,
            matrix.bytes() + static_cast<std::size_t>(r * columns + first + c * step) * size, size);
      }
    }
  });
  return out;
}

}  // namespace detail

ESP_INLINE AnyTensor Weights::stored(const TensorPlace& place) const {
  const AnyTensor w = source_(place.name);
  ESP_REQUIRE(w.shape() == place.shape, ShapeError, place.name, ": shape is ", w.shape(),
              ", expected ", place.shape, " by config.json");
  return w;
}

ESP_INLINE AnyTensor Weights::get(Part part, int layer, int expert) const {
  if (const TensorPlace* place = layout_.find(part, layer, expert)) return stored(*place);
  return fused(part, layer, expert, false);
}

ESP_INLINE AnyTensor Weights::bias(Part part, int layer, int expert) const {
  if (const TensorPlace* place = layout_.find(part, layer, expert, true)) return stored(*place);
  const bool in_fused = expert >= 0 && config_.mixture.expert_bias &&
                        config_.mixture.storage != ExpertStorage::separate;
  return in_fused ? fused(part, layer, expert, true) : AnyTensor();
}

ESP_INLINE AnyTensor Weights::fused(Part part, int layer, int expert, bool bias) const {
  const bool down = part == Part::expert_down;
  const TensorPlace* place =
      layout_.find(down ? Part::experts_down : Part::experts_gate_up, layer, -1, bias);
  ESP_REQUIRE(place != nullptr && expert >= 0, Error, "weights: this model has no part ",
              static_cast<int>(part), " in layer ", layer);
  const AnyTensor row = stored(*place).rows(expert, expert + 1);
  const std::int64_t extent = row.shape(1), f = config_.mixture.width;
  const std::int64_t first = part == Part::expert_up ? 1 : 0;
  if (config_.mixture.storage == ExpertStorage::fused) {
    if (bias)
      return down ? row.reshaped({extent})
                  : row.reshaped({2, f}).rows(first, first + 1).reshaped({f});
    const AnyTensor matrix = row.reshaped({extent, row.shape(2)});
    return down ? matrix : matrix.rows(first * f, (first + 1) * f);
  }
  if (bias) {
    if (down) return row.reshaped({extent});
    return detail::transposed_columns(row, first, 2).reshaped({f});
  }
  const AnyTensor matrix = row.reshaped({extent, row.shape(2)});
  return down ? detail::transposed_columns(matrix, 0, 1)
              : detail::transposed_columns(matrix, first, 2);
}

}  // namespace espalier
#endif
