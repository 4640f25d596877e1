// SPDX-License-Identifier: Apache-2.0
// A user's program: it works with the umbrella alone, and with the components where they were asked
// for.
#include <espalier/espalier.hpp>
#ifdef WITH_COMPONENTS
#include <espalier/eval.hpp>
#include <espalier/io.hpp>
#include <espalier/plot.hpp>
#include <espalier/prune.hpp>
#include <espalier/text.hpp>
#include <espalier/train.hpp>
#endif

#include <cstdio>

std::int64_t numel_in_second_file();
#ifdef WITH_KERNELS
bool kernels_link();
#endif

int main() {
  const espalier::Tensor<float> t({2, 3}, 1.0f);
  if (t.numel() != 6 || numel_in_second_file() != 6) return 1;
#ifdef WITH_KERNELS
  if (!kernels_link()) return 1;
#endif
  std::puts("consumer: 6 elements");
  return 0;
}
