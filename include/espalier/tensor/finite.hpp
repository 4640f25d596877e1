// SPDX-License-Identifier: Apache-2.0
// The check that values are finite, for whoever writes an adapter or a checkpoint: a file of NaN
// looks like any other, and the error shows only where somebody computes with it.
#pragma once

#include <espalier/core/inline.hpp>
#include <espalier/core/math.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier {

/// Passes if every element of `t` is finite; integers are. `t` lies on the host.
/// @param what says where the tensor belongs: "run/adapter_model.safetensors"
/// @throws Error naming `what`, the tensor, and its first element that is NaN or infinite
ESP_INLINE void require_finite(std::string_view what, std::string_view name, const AnyTensor& t) {
  const auto check = [&]<class T>() {
    const T* values = reinterpret_cast<const T*>(t.bytes());
    for (std::int64_t i = 0; i < t.numel(); ++i) {
      double v;
      if constexpr (sizeof(T) == 2) {
        v = static_cast<double>(static_cast<float>(values[i]));
      } else {
        v = static_cast<double>(values[i]);
      }
      ESP_REQUIRE(math::is_finite(v), Error, what, ": tensor \"", name, "\" ", t.shape(), " holds ",
                  math::is_nan(v) ? math::abs(v) : v, " (element ", i,
                  "); values must be finite to be written");
    }
  };
  switch (t.dtype()) {
    case DType::f32:
      return check.template operator()<float>();
    case DType::f64:
      return check.template operator()<double>();
    case DType::bf16:
      return check.template operator()<bf16>();
    case DType::f16:
      return check.template operator()<f16>();
    default:
      return;
  }
}

}  // namespace espalier
