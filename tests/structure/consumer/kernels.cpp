// SPDX-License-Identifier: Apache-2.0
// A user's program that launches a kernel: here over no elements, so that it runs without a GPU.
#include <espalier/kernels/elementwise.hpp>

bool kernels_link();
bool kernels_link() {
  float* const none = nullptr;
  return espalier::kernels::scale(none, static_cast<const float*>(none), 2.0f, 0, nullptr) ==
         cudaSuccess;
}
