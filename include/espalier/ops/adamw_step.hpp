// SPDX-License-Identifier: Apache-2.0
// The numbers of one update of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2),
// the same for every element and on every device:
//   g = scale · grad     m += one_minus_beta1 (g - m)     v = beta2 v + one_minus_beta2 g²
//   p = keep · p - step_size · m / (√v / root_correction2 + eps)
#pragma once

namespace espalier {

struct AdamWStep {
  float keep;  // 1 - lr · weight decay
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  float root_correction2;  // √(1 - beta2^t)
  float eps;
  float step_size;  // lr / (1 - beta1^t)
  float scale;      // of the gradient: the clipping coefficient
};

}  // namespace espalier
