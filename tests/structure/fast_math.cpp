// SPDX-License-Identifier: Apache-2.0
// Compiled with -Ofast: exp, softmax and attention's weights keep their values.
#include <cmath>
#include <cstdio>
#include <vector>

#include <espalier/ops/attention.hpp>
#include <espalier/ops/softmax.hpp>
#include <espalier/ops/swiglu.hpp>

using namespace espalier;

namespace {
int failures = 0;

void expect(const char* what, double got, double want) {
  if (std::abs(got - want) <= 1e-6 * std::abs(want)) return;
  std::printf("%s: %.9g, expected %.9g\n", what, got, want);
  ++failures;
}
}  // namespace

int main() {
  const std::vector<float> x = {1, 2, 0.5f, -1};
  const auto p = softmax(Var<float>(Tensor<float>({1, 4}, x))).value();
  double total = 0;
  for (const float v : x) total += std::exp(static_cast<double>(v));
  for (int i = 0; i < 4; ++i) expect("softmax", p[i], std::exp(static_cast<double>(x[i])) / total);

  const Var<float> one(Tensor<float>({1, 1}, 1.0f));
  expect("swiglu", swiglu(one, one).value()[0], 1 / (1 + std::exp(-1.0)));

  // Two keys with scores 0 and 1: the second row weighs them 1 : e.
  const Var<float> q(Tensor<float>({2, 1, 1}, 1.0f));
  const Var<float> k(Tensor<float>({2, 1, 1}, std::vector<float>{0, 1}));
  const Var<float> v(Tensor<float>({2, 1, 1}, std::vector<float>{1, 3}));
  const double e = std::exp(1.0);
  expect("attention", attention(q, k, v, {0, 2}).value()[1], (1 + 3 * e) / (1 + e));
  return failures == 0 ? 0 : 1;
}
