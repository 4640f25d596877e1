// SPDX-License-Identifier: Apache-2.0
// A const handle is read through: elements are written by a handle that is not const, or by data().
// ERROR: assignment of read-only location|returns a const value
#include <espalier/tensor/tensor.hpp>

using namespace espalier;

void use(const Tensor<float>& t) {
#ifdef SHOULD_FAIL
  t[0] = 9;
#endif
  Tensor<float> writable = t;
  writable[0] = t[0];
  t.data()[0] = 9;
}
