// SPDX-License-Identifier: Apache-2.0
// What kernels read or write lies in one of these, or in a Buffer: on a GPU the stack and the heap
// are out of their reach.
#pragma once

#include <vector>

namespace espalier::test {

#ifdef ESP_ON_GPU
template <class T>
using DeviceVector = std::vector<T, DeviceAllocator<T>>;
#else
template <class T>
using DeviceVector = std::vector<T>;
#endif

}  // namespace espalier::test
