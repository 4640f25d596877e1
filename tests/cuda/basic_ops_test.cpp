// SPDX-License-Identifier: Apache-2.0
// sum, mean, softmax, matmul and router_z_loss on the device Cuda against the same on the CPU:
// values, gradients, messages.
#include <espalier/cuda/elementwise.hpp>
#include <espalier/cuda/matmul.hpp>
#include <espalier/cuda/router_z_loss.hpp>
#include <espalier/cuda/softmax.hpp>
#include <espalier/cuda/sum.hpp>

#include "cuda/both_devices.hpp"

using namespace espalier;
using namespace espalier::test;

#define DEVICE_TYPES float, bf16

TEMPLATE_TEST_CASE("device Cuda: sum and mean as on the CPU", "[cuda]", DEVICE_TYPES) {
  on_both_devices<TestType>({{5, 7, 3}}, [](auto x) { return sum(x); });
  on_both_devices<TestType>({{9000}}, [](auto x) { return mean(mul(x, x)); });
}

TEST_CASE("device Cuda: the sum of no element is 0, its mean is refused", "[cuda]") {
  const auto x = parameter(Tensor<float, Cuda>(Shape{0, 4}));
  const auto y = sum(x);
  REQUIRE(to<Cpu>(y.value())[0] == 0);
  backward(y);
  REQUIRE(x.grad().shape() == Shape{0, 4});
  CHECK_THROWS_WITH(mean(x), Catch::Contains("mean: x is [0, 4], expected an element"));
}

TEMPLATE_TEST_CASE("device Cuda: softmax as on the CPU", "[cuda]", DEVICE_TYPES) {
  const auto f = [](auto x) { return softmax(x); };
  on_both_devices<TestType>({{5, 2, 33}}, f);
  on_both_devices<TestType>({{3, 1024}}, f);
  on_both_devices<TestType>({{7}}, f);
  on_both_devices<TestType>({{4, 1}}, f);
  REQUIRE(softmax(Var<float, Cuda>(Tensor<float, Cuda>(Shape{3, 0}))).shape() == Shape{3, 0});
  CHECK_THROWS_WITH(softmax(Var<float, Cuda>(Tensor<float, Cuda>(Shape{}, 1.0f))),
                    Catch::Contains("softmax: x is [], expected at least one axis"));
}

TEMPLATE_TEST_CASE("device Cuda: matmul in each layout as on the CPU", "[cuda]", DEVICE_TYPES) {
  using T = TestType;
  MatmulOptions options;
  options.transpose_a = GENERATE(false, true);
  options.transpose_b = GENERATE(false, true);
  for (const bool batched : {false, true}) {
    const auto shape = [&](std::int64_t rows, std::int64_t cols, bool transposed) {
      if (transposed) std::swap(rows, cols);
      return batched ? Shape{2, 3, rows, cols} : Shape{rows, cols};
    };
    const Shape a = shape(5, 7, options.transpose_a), b = shape(7, 4, options.transpose_b);
    on_both_devices<T>({a, b}, [&](auto x, auto y) { return matmul(x, y, options); });
    on_both_devices<T>({a, b, shape(5, 4, false)},
                       [&](auto x, auto y, auto z) { return matmul_add(x, y, z, options); });
  }
}

TEST_CASE("device Cuda: matmul of a batch with one constant factor, and of empty factors",
          "[cuda]") {
  on_both_devices<float>({{3, 2, 5}}, [](auto x) {
    using D = typename decltype(x.value())::device_type;
    const Var<float, D> w(to<D>(make_tensor<float>({3, 5, 4}, normal(60, 9))));
    return matmul(x, w);
  });
  const auto of = [](Shape a, Shape b) {
    return to<Cpu>(
        matmul(Var<float, Cuda>(Tensor<float, Cuda>(a)), Var<float, Cuda>(Tensor<float, Cuda>(b)))
            .value());
  };
  REQUIRE(to_vector(of({2, 0}, {0, 3})) == std::vector<double>(6, 0.0));
  REQUIRE(of({0, 4}, {4, 3}).shape() == Shape{0, 3});
  const Var<float, Cuda> x(Tensor<float, Cuda>({3, 5}, 1.0f)), y(Tensor<float, Cuda>({4, 5}, 1.0f));
  CHECK_THROWS_WITH(matmul(x, y), Catch::Contains("matmul: a is [3, 5], b is [4, 5]"));
  CHECK_THROWS_WITH(matmul_add(x, y, x, {.transpose_b = true}),
                    Catch::Contains("matmul: c is [3, 5], expected [3, 4]"));
}

TEMPLATE_TEST_CASE("device Cuda: router z-loss of two layers as on the CPU", "[cuda]",
                   DEVICE_TYPES) {
  using T = TestType;
  on_both_devices<T>({{9, 6}, {4, 6}}, [](auto a, auto b) {
    using D = typename decltype(a.value())::device_type;
    return router_z_loss<T, D>({a, b});
  });
}
