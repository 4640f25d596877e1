// SPDX-License-Identifier: Apache-2.0
// A value's device is in its type: what lies on a GPU is not indexed by mistake.
// ERROR: Device
#include <espalier/tensor/tensor.hpp>

struct Abacus {};

#ifdef SHOULD_FAIL
using Where = Abacus;
#else
using Where = espalier::Cpu;
#endif

std::int64_t use(const espalier::Tensor<float, Where>& t) {
  return t.numel();
}
