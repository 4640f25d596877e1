// SPDX-License-Identifier: Apache-2.0
// No silent promotion: float and bf16 are added after a cast that the reader can see.
// ERROR: deduced conflicting types
#include <espalier/ops/add.hpp>

espalier::Var<float> use(const espalier::Var<float>& x, const espalier::Var<espalier::bf16>& y) {
#ifdef SHOULD_FAIL
  (void)espalier::add(x, y);
#endif
  (void)y;
  return espalier::add(x, x);
}
