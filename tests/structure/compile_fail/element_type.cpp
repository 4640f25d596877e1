// SPDX-License-Identifier: Apache-2.0
// A tensor holds the element types that core/dtype.hpp names.
// ERROR: Element
#include <espalier/tensor/tensor.hpp>

#include <string>

#ifdef SHOULD_FAIL
using T = std::string;
#else
using T = float;
#endif

std::int64_t use(const espalier::Tensor<T>& t) {
  return t.numel();
}
