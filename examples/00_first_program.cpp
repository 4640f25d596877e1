// SPDX-License-Identifier: Apache-2.0
// The program of README.md: three tokens choose two of four experts each; then the gradient of the
// outputs' sum with respect to the router's scores.
//   g++ -std=c++20 -O2 -fopenmp -Iinclude examples/00_first_program.cpp -o first && ./first
// Expected:
//   token 0 -> expert 1 (0.73) and expert 2 (0.27)
// two more such lines, and for each token four numbers: what its sum gains by each score.
#include <cstdio>
#include <cstdlib>

#include <espalier/espalier.hpp>

using namespace espalier;

int main(int argc, char** argv) {
  if (argc == 3) set_num_threads(std::atoi(argv[2]));  // --threads N
  const Var<float> x(Tensor<float>(Shape{3, 2}, {1, 2, 3, 4, 5, 6}));
  const auto scores = parameter(Tensor<float>(Shape{3, 4}, {0, 2, 1, 0, 3, 0, 0, 1, 0, 0, 1, 1}));
  std::vector<AnyVar> experts;  // expert e multiplies by e + 1
  for (float e = 1; e <= 4; ++e) experts.emplace_back(Tensor<float>(Shape{2, 2}, {e, 0, 0, e}));

  const auto [weights, routing] = router_top_k(scores, {.top_k = 2});
  const auto rows = grouped_linear(dispatch(x, routing), experts, routing.offsets);
  const auto y = combine(rows, weights, routing);
  backward(sum(y));

  for (int t = 0; t < 3; ++t) {
    std::printf("token %d -> expert %d (%.2f) and expert %d (%.2f)\n", t, routing.chosen[2 * t],
                weights.value()[2 * t], routing.chosen[2 * t + 1], weights.value()[2 * t + 1]);
  }
  const Tensor<float> gradient(scores.grad());
  for (int t = 0; t < 3; ++t) {
    for (int e = 0; e < 4; ++e) std::printf("%7.3f", gradient[4 * t + e]);
    std::printf("\n");
  }
}
