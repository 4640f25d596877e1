// SPDX-License-Identifier: Apache-2.0
// Arithmetic with gradients is for floating point: indices are no operand of it.
// ERROR: FloatElement
#include <espalier/ops/scale.hpp>

espalier::Var<float> use(const espalier::Var<float>& x, const espalier::Var<std::int32_t>& ids) {
#ifdef SHOULD_FAIL
  (void)espalier::scale(ids, 2.0f);
#endif
  (void)ids;
  return espalier::scale(x, 2.0f);
}
