// SPDX-License-Identifier: Apache-2.0
// Rows by id and their gradients, under every schedule of threads and blocks.
#include <espalier/kernels/embedding.cuh>

#include "kernels/cases.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("embedding kernels: rows by id, and gradients added in order",
                   "[kernels][embedding]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 150), v = 9, h = GENERATE(1, 33, 130);
  CAPTURE(n, h);
  const auto table = normal_as<T>(v * h, 1), dy = normal_as<T>(n * h, 2);
  std::vector<double> ids, want_y, want_d(static_cast<std::size_t>(v * h), 0.0);
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t id = i * i % 7;  // some ids often, some never
    ids.push_back(static_cast<double>(id));
    for (std::int64_t c = 0; c < h; ++c) {
      want_y.push_back(table[id * h + c]);
      want_d[id * h + c] += dy[i * h + c];
    }
  }
  for_each_schedule([&](auto) {
    Buffer<T> w(table), y(n * h), d(dy);
    Buffer<std::int32_t> id(ids);
    Buffer<float> dtable(v * h);
    REQUIRE(kernels::embedding_forward(y.data(), w.data(), id.data(), n, v, h, nullptr) ==
            cudaSuccess);
    REQUIRE(kernels::embedding_backward(dtable.data(), d.data(), id.data(), n, v, h, nullptr) ==
            cudaSuccess);
    REQUIRE(y.values() == want_y);
    require_near<float>(dtable.values(), want_d, n, 16);
    REQUIRE((y.guarded() && dtable.guarded()));
  });
}
