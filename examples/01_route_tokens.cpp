// SPDX-License-Identifier: Apache-2.0
// Sends six tokens through a mixture of four experts, two for each token, and prints who went
// where.
//   g++ -std=c++20 -O2 -fopenmp -Iinclude examples/01_route_tokens.cpp -lfmt -o route && ./route
// Expected:
//   token 0 -> expert 3 (0.82) and expert 0 (0.18)
// and five more such lines, then how many rows each expert got, and the norm of the output.
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

#include <espalier/espalier.hpp>

using namespace espalier;

constexpr std::uint64_t kSeed = 0;

// One matrix [out, in] per expert.
GroupedLinear<float> matrices(const std::string& name, std::int64_t out, std::int64_t in) {
  std::vector<std::string> names;
  std::vector<AnyVar> weights;
  for (int e = 0; e < 4; ++e) {
    names.push_back(name + std::to_string(e));
    weights.emplace_back(normal_weight<float>(names.back(), {out, in}, 0.2f, kSeed));
  }
  return {names, weights};
}

void route() {
  const std::int64_t hidden = 32, width = 64;
  const Linear<float> gate("router",
                           AnyVar(normal_weight<float>("router", {4, hidden}, 0.2f, kSeed)));
  const Experts<float> experts(matrices("w1.", width, hidden), matrices("w2.", hidden, width),
                               matrices("w3.", width, hidden));
  const MoeBlock<float> moe(Router<float>(gate, {.top_k = 2}), experts);

  const MoeObserver<float> print = [](const MoeObservation<float>& seen) {
    for (std::int64_t t = 0; t < seen.routing.tokens; ++t) {
      fmt::print("token {} -> expert {} ({:.2f}) and expert {} ({:.2f})\n", t,
                 seen.routing.chosen[2 * t], seen.weights[2 * t], seen.routing.chosen[2 * t + 1],
                 seen.weights[2 * t + 1]);
    }
    for (std::size_t e = 0; e < 4; ++e) {
      fmt::print("expert {}: {} rows\n", e, seen.routing.offsets[e + 1] - seen.routing.offsets[e]);
    }
  };
  const Var<float> tokens(normal_weight<float>("tokens", {6, hidden}, 1.0f, kSeed));
  const Var<float> y = moe(tokens, nullptr, &print).y;

  double squares = 0;
  for (const float v : y.value().span()) squares += static_cast<double>(v) * v;
  fmt::print("output: {} rows of {}, norm {:.3f}\n", y.shape(0), y.shape(1), std::sqrt(squares));
}

int main(int argc, char** argv) {
  try {
    if (argc == 3 && std::strcmp(argv[1], "--threads") == 0) set_num_threads(std::atoi(argv[2]));
    route();
  } catch (const Error& e) {
    fmt::print(stderr, "01_route_tokens: {}\n", e.what());
    return 1;
  }
}
