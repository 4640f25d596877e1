// SPDX-License-Identifier: Apache-2.0
// The small ops that some model families need on the device Cuda against the same on the CPU:
// values, gradients, messages.
#include <espalier/cuda/bias.hpp>
#include <espalier/cuda/column_blocks.hpp>
#include <espalier/cuda/elementwise.hpp>
#include <espalier/cuda/sigmoid_gate.hpp>
#include <espalier/cuda/swiglu.hpp>

#include "cuda/both_devices.hpp"

using namespace espalier;
using namespace espalier::test;

#define DEVICE_TYPES float, bf16

namespace {

template <class D>
GroupOffsets<D> offsets_on(const std::vector<std::int64_t>& offsets) {
  if constexpr (D::is_cuda) {
    return Tensor<std::int32_t, D>(Shape{static_cast<std::int64_t>(offsets.size())},
                                   std::vector<std::int32_t>(offsets.begin(), offsets.end()));
  } else {
    return offsets;
  }
}

}  // namespace

TEMPLATE_TEST_CASE("device Cuda: add_bias as on the CPU", "[cuda]", DEVICE_TYPES) {
  on_both_devices<TestType>({{70, 24}, {24}}, [](auto x, auto b) { return add_bias(x, b); });
}

TEMPLATE_TEST_CASE("device Cuda: add_bias per group as on the CPU", "[cuda]", DEVICE_TYPES) {
  using T = TestType;
  const bool in_f32 = GENERATE(false, true);
  on_both_devices<T>({{9, 24}, {24}, {24}}, [&](auto x, auto first, auto last) {
    using D = typename decltype(x.value())::device_type;
    std::vector<AnyVar> biases = {first, Var<T, D>(to<D>(Tensor<T>({24}, T(2.0f)))), last};
    if (in_f32) {
      for (std::uint64_t g = 0; g < 3; ++g) {
        biases[g] = parameter(to<D>(make_tensor<float>({24}, normal(24, 20 + g))));
      }
      return add_bias(add_bias(add_bias(x, biases, offsets_on<D>({0, 4, 4, 9})), first), last);
    }
    return add_bias(x, biases, offsets_on<D>({0, 4, 4, 9}));
  });
}

TEST_CASE("device Cuda: gradients of biases in the type of each", "[cuda]") {
  const auto check = [](auto type) {
    using B = decltype(type);
    const AnyVar b(to<Cuda>(Tensor<B>({3}, B(1.0f))), std::make_shared<Node>());
    const AnyVar frozen(to<Cuda>(Tensor<B>({3}, B(1.0f))));
    const Var<float, Cuda> x(to<Cuda>(Tensor<float>({4, 3}, 1.0f)));
    backward(add_bias(x, {frozen, b}, offsets_on<Cuda>({0, 1, 4})));
    REQUIRE(b.grad().dtype() == dtype_of<B>::value);
    REQUIRE(to_vector(b.grad().on_host()) == std::vector<double>(3, 3.0));
  };
  check(float{});
  check(bf16{});
  check(f16{});
}

TEMPLATE_TEST_CASE("device Cuda: narrow and pad_last as on the CPU", "[cuda]", DEVICE_TYPES) {
  on_both_devices<TestType>({{5, 2, 24}}, [](auto x) { return pad_last(narrow(x, 8, 8), 16); });
  on_both_devices<TestType>({{5, 7}}, [](auto x) { return pad_last(narrow(x, 3, 2), 5); });
}

TEMPLATE_TEST_CASE("device Cuda: concat_heads as on the CPU", "[cuda]", DEVICE_TYPES) {
  const auto concat = [](auto a, auto b) { return concat_heads(a, b); };
  on_both_devices<TestType>({{5, 3, 16}, {5, 1, 8}}, concat);
  on_both_devices<TestType>({{5, 3, 5}, {5, 3, 2}}, concat);
}

TEMPLATE_TEST_CASE("device Cuda: sigmoid_gate as on the CPU", "[cuda]", DEVICE_TYPES) {
  on_both_devices<TestType>({{9, 40}, {9, 1}}, [](auto x, auto g) { return sigmoid_gate(x, g); });
}

TEMPLATE_TEST_CASE("device Cuda: clamp and clamped_swiglu as on the CPU", "[cuda]", DEVICE_TYPES) {
  on_both_devices<TestType>({{9, 33}}, [](auto x) { return clamp(x, -0.3, 1.1); });
  on_both_devices<TestType>({{9, 33}, {9, 33}},
                            [](auto g, auto u) { return clamped_swiglu(g, u, 1.702, 0.9); });
}

TEST_CASE("device Cuda: what does not fit is refused as on the CPU", "[cuda]") {
  const Var<float, Cuda> x(Tensor<float, Cuda>({3, 5}, 1.0f)), b(Tensor<float, Cuda>({4}, 1.0f));
  CHECK_THROWS_WITH(add_bias(x, b),
                    Catch::Contains("add_bias: bias 0 is [4], x is [3, 5]; expected [5]"));
  CHECK_THROWS_WITH(narrow(x, 3, 4), Catch::Contains("narrow: x is [3, 5], asked for 4 columns"));
  CHECK_THROWS_WITH(pad_last(x, 4), Catch::Contains("pad_last: x is [3, 5]"));
  CHECK_THROWS_WITH(concat_heads(x, x), Catch::Contains("concat_heads: a is [3, 5]"));
  CHECK_THROWS_WITH(sigmoid_gate(x, x), Catch::Contains("sigmoid_gate: x is [3, 5]"));
  CHECK_THROWS_WITH(clamped_swiglu(x, b), Catch::Contains("clamped_swiglu: gate is [3, 5]"));
}
