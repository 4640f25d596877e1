// SPDX-License-Identifier: Apache-2.0
// The span of a const handle is read-only.
// ERROR: discards qualifiers|drops 'const' qualifier
#include <espalier/tensor/tensor.hpp>

using namespace espalier;

void use(const Tensor<float>& t) {
#ifdef SHOULD_FAIL
  for (float& v : t.span()) v = 9;
#endif
  Tensor<float> writable = t;
  for (float& v : writable.span()) v = 9;
}
