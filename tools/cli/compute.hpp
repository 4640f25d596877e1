// SPDX-License-Identifier: Apache-2.0
// From --dtype and --device to types: calls f.template operator()<T, D>() for what they name. A
// build without CUDA has the CPU alone; what it says to --device cuda is in cli/program.hpp.
#pragma once

#include <string>

#include <espalier/core/device.hpp>
#include <espalier/core/dtype.hpp>

#ifdef ESPALIER_CUDA
#include <espalier/cuda.hpp>
#endif

namespace espalier {

template <class F>
decltype(auto) visit_compute([[maybe_unused]] const std::string& device, const std::string& dtype,
                             F&& f) {
#ifdef ESPALIER_CUDA
  if (device == Cuda::kName) {
    cuda::require_device();
    return visit_dtype<float, bf16>("--dtype", dtype_named(dtype),
                                    [&]<class T>() { return f.template operator()<T, Cuda>(); });
  }
#endif
  return visit_dtype<float, bf16>("--dtype", dtype_named(dtype),
                                  [&]<class T>() { return f.template operator()<T, Cpu>(); });
}

}  // namespace espalier
