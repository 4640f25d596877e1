// SPDX-License-Identifier: Apache-2.0
// The program of README.md: three tokens choose two of four experts each; then the gradient of the
// outputs' sum with respect to the router's scores. With D = Cuda it runs on a GPU.
//   g++ -std=c++20 -O2 -fopenmp -Iinclude examples/00_first_program.cpp -o first && ./first
// Expected:
//   token 0 -> expert 1 (0.73) and expert 2 (0.27)
// two more such lines, and for each token four numbers: what its sum gains by each score.
#include <cstdio>
#include <cstdlib>

#include <espalier/espalier.hpp>

using namespace espalier;
using D = Cpu;  // or Cuda, with #include <espalier/cuda.hpp>: nothing else changes

int main(int argc, char** argv) {
  if (argc == 3) set_num_threads(std::atoi(argv[2]));  // --threads N
  const Var<float, D> x(Tensor<float, D>(Shape{3, 2}, {1, 2, 3, 4, 5, 6}));
  const auto scores =
      parameter(Tensor<float, D>(Shape{3, 4}, {0, 2, 1, 0, 3, 0, 0, 1, 0, 0, 1, 1}));
  std::vector<AnyVar> experts;  // expert e multiplies by e + 1
  for (float e = 1; e <= 4; ++e) experts.emplace_back(Tensor<float, D>(Shape{2, 2}, {e, 0, 0, e}));

  const auto [weights, routing] = router_top_k(scores, {.top_k = 2});
  const auto rows = grouped_linear(dispatch(x, routing), experts, routing.offsets);
  const auto y = combine(rows, weights, routing);
  backward(sum(y));

  const Tensor<std::int32_t> chosen(routing.chosen.on_host());
  const Tensor<float> share(weights.any().on_host()), gradient(scores.grad().on_host());
  for (int t = 0; t < 3; ++t) {
    std::printf("token %d -> expert %d (%.2f) and expert %d (%.2f)\n", t, chosen[2 * t],
                share[2 * t], chosen[2 * t + 1], share[2 * t + 1]);
  }
  for (int t = 0; t < 3; ++t) {
    for (int e = 0; e < 4; ++e) std::printf("%7.3f", gradient[4 * t + e]);
    std::printf("\n");
  }
}
