// SPDX-License-Identifier: Apache-2.0
// Every op on the device Cuda against the same op on the CPU: values, gradients, messages. Here the
// kernels run in the simulator, where the host cannot read device memory.
#include <espalier/cuda.hpp>

#include "cuda/both_devices.hpp"
#include "cuda/kernels.hpp"

using namespace espalier;
using namespace espalier::test;

#define DEVICE_TYPES float, bf16

TEMPLATE_TEST_CASE("device Cuda: add, mul, scale and swiglu as on the CPU", "[cuda]",
                   DEVICE_TYPES) {
  using T = TestType;
  const Shape shape{5, 33};
  on_both_devices<T>({shape, shape},
                     [](auto a, auto b) { return add(scale(mul(a, b), 0.5), swiglu(a, b)); });
}

TEMPLATE_TEST_CASE("device Cuda: rms_norm as on the CPU", "[cuda]", DEVICE_TYPES) {
  using T = TestType;
  on_both_devices<T>({{7, 40}}, [](auto x) {
    using D = typename decltype(x.value())::device_type;
    const Var<float, D> w(to<D>(make_tensor<float>({40}, normal(40, 9))));
    return rms_norm(x, w, 1e-5f);
  });
}

TEMPLATE_TEST_CASE("device Cuda: rope as on the CPU", "[cuda]", DEVICE_TYPES) {
  const Tensor<std::int32_t> positions({4}, std::vector<std::int32_t>{0, 5, 1, 300});
  on_both_devices<TestType>({{4, 3, 8}}, [&](auto x) { return rope(x, positions, 10000.0); });
}

TEMPLATE_TEST_CASE("device Cuda: mask_columns as on the CPU", "[cuda]", DEVICE_TYPES) {
  on_both_devices<TestType>({{4, 3}}, [&](auto x) { return mask_columns(x, {true, false, true}); });
}

TEST_CASE("device Cuda: embedding as on the CPU, with its gradient", "[cuda]") {
  const Tensor<std::int32_t> ids({5}, std::vector<std::int32_t>{3, 0, 3, 1, 3});
  on_both_devices<float>({{4, 9}}, [&](auto table) {
    using D = typename decltype(table.value())::device_type;
    return embedding<float, D>(ids, table);
  });
  CHECK_THROWS_WITH((embedding<float, Cuda>(ids, Var<float, Cuda>(Tensor<float, Cuda>({3, 2})))),
                    Catch::Contains("id 3 at position 0, the table has 3 rows"));
}

TEST_CASE("device Cuda: cast there and back", "[cuda]") {
  on_both_devices<float>({{4, 9}}, [&](auto x) { return cast<float>(cast<bf16>(x)); });
}

TEST_CASE("device Cuda: a tensor of the host is refused", "[cuda]") {
  const AnyTensor host = Tensor<float>({2}, 1.0f);
  CHECK_THROWS_WITH((Tensor<float, Cuda>(host)),
                    Catch::Contains("lives on cpu, asked for on cuda"));
  CHECK_THROWS_WITH(add(Var<float, Cuda>(Tensor<float, Cuda>({2}, 1.0f)),
                        Var<float, Cuda>(Tensor<float, Cuda>({3}, 1.0f))),
                    Catch::Contains("add: a is [2], b is [3]"));
}
