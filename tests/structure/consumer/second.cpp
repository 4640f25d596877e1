// SPDX-License-Identifier: Apache-2.0
// The second translation unit with the same headers.
#include <espalier/espalier.hpp>

std::int64_t numel_in_second_file();
std::int64_t numel_in_second_file() {
  return espalier::Tensor<float>({3, 2}, 1.0f).numel();
}
