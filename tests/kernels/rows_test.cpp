// SPDX-License-Identifier: Apache-2.0
// Kernels that work row by row or element by element, against the double-precision references,
// under every schedule of threads and blocks.
#include <espalier/kernels/elementwise.cuh>
#include <espalier/kernels/embedding.cuh>
#include <espalier/kernels/rms_norm.cuh>
#include <espalier/kernels/rope.cuh>
#include <espalier/kernels/swiglu.cuh>

#include <espalier/ops/reference/rms_norm.hpp>
#include <espalier/ops/reference/rope.hpp>
#include <espalier/ops/reference/swiglu.hpp>

#include "kernels/cases.hpp"
#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

#define KERNEL_TYPES float, __nv_bfloat16, __half

namespace {

// One rounding to T at the end, and a sum of `length` terms in f32 before it.
template <class T>
void require_near(const std::vector<double>& got, const std::vector<double>& want,
                  std::int64_t length, double scale = 1) {
  const double f32 = tol(DType::f32, length);
  const double subnormal = kDTypeOf<T> == DType::f16 ? 0x1p-24 : 0;
  const Mismatch m = compare(got, want, f32 * scale + subnormal, f32 + epsilon_of(kDTypeOf<T>));
  INFO(m);
  REQUIRE(m.count == 0);
}

}  // namespace

TEMPLATE_TEST_CASE("rms_norm kernels: forward and backward follow the reference",
                   "[kernels][rms_norm]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 3), h = GENERATE(1, 7, 64, 264, 1030);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, h, misaligned);
  const auto x = normal_as<T>(n * h, 1), w = normal_as<T>(h, 2), dy = normal_as<T>(n * h, 3);
  const float eps = 1e-5f;
  const auto want = reference::rms_norm(x, w, eps);
  const auto grads = reference::rms_norm_backward(dy, x, w, eps);
  for_each_schedule([&](auto) {
    Buffer<T> y(n * h, misaligned), dx(n * h, misaligned), in(x, misaligned), d(dy, misaligned),
        gain(w);
    Buffer<float> r(n), dw(h), workspace(kernels::rms_norm_gain_chunks(n) * h);
    REQUIRE(kernels::rms_norm_forward(y.data(), r.data(), in.data(), gain.data(), n, h, eps,
                                      nullptr) == cudaSuccess);
    REQUIRE(kernels::rms_norm_backward(dx.data(), d.data(), in.data(), gain.data(), r.data(), n, h,
                                       nullptr) == cudaSuccess);
    REQUIRE(kernels::rms_norm_gain_backward(dw.data(), d.data(), in.data(), r.data(),
                                            workspace.data(), n, h, nullptr) == cudaSuccess);
    require_near<T>(y.values(), want, h);
    // Its two terms cancel in short rows.
    require_near<T>(dx.values(), grads.dx, h, 4);
    require_near<float>(dw.values(), grads.dw, h + n, 4);
    REQUIRE((y.guarded() && dx.guarded() && r.guarded() && dw.guarded() && workspace.guarded()));
  });
}

TEST_CASE("rms_norm kernels: the gain's gradient over many rows, and a gain of another type",
          "[kernels][rms_norm]") {
  const std::int64_t n = 300, h = 40;
  const auto x = normal_as<__nv_bfloat16>(n * h, 1), dy = normal_as<__nv_bfloat16>(n * h, 3);
  const auto w = normal_as<float>(h, 2);
  Buffer<__nv_bfloat16> in(x), d(dy), y(n * h);
  Buffer<float> gain(w), r(n), dw(h), workspace(kernels::rms_norm_gain_chunks(n) * h);
  REQUIRE(kernels::rms_norm_forward(y.data(), r.data(), in.data(), gain.data(), n, h, 1e-5f,
                                    nullptr) == cudaSuccess);
  REQUIRE(kernels::rms_norm_gain_backward(dw.data(), d.data(), in.data(), r.data(),
                                          workspace.data(), n, h, nullptr) == cudaSuccess);
  require_near<__nv_bfloat16>(y.values(), reference::rms_norm(x, w, 1e-5f), h);
  require_near<float>(dw.values(), reference::rms_norm_backward(dy, x, w, 1e-5f).dw, n, 16);
}

TEMPLATE_TEST_CASE("rope kernel: the rotation and its inverse follow the reference",
                   "[kernels][rope]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 5), heads = GENERATE(1, 3), p = GENERATE(2, 8, 66, 67);
  const std::int64_t dims = (GENERATE(false, true) ? p : p / 2) / 2 * 2;
  const bool interleaved = GENERATE(false, true);
  CAPTURE(n, heads, p, dims, interleaved);
  std::vector<std::int32_t> positions;
  for (std::int64_t i = 0; i < n; ++i) positions.push_back(static_cast<std::int32_t>(37 * i));
  const auto frequencies = reference::rope_frequencies(dims, 10000.0);
  const reference::RopeSizes z{heads, p, interleaved, 1.25};
  std::vector<double> cos_sin(static_cast<std::size_t>(n * dims));
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t c = 0; c < dims / 2; ++c) {
      const float angle = frequencies[c] * static_cast<float>(positions[i]);
      cos_sin[i * dims + c] = 1.25 * std::cos(static_cast<double>(angle));
      cos_sin[i * dims + dims / 2 + c] = 1.25 * std::sin(static_cast<double>(angle));
    }
  }
  const auto x = normal_as<T>(n * heads * p, 4);
  for (const float direction : {1.0f, -1.0f}) {
    const auto want = reference::rope(x, positions, z, frequencies, direction);
    for_each_schedule([&](auto) {
      Buffer<T> in(x), y(n * heads * p);
      Buffer<float> table(cos_sin);
      const kernels::RopeSizes sizes{n, heads, p, dims, interleaved};
      REQUIRE(kernels::rope(y.data(), in.data(), table.data(), sizes, direction, nullptr) ==
              cudaSuccess);
      require_near<T>(y.values(), want, 2);
      REQUIRE(y.guarded());
      REQUIRE(kernels::rope(in.data(), in.data(), table.data(), sizes, direction, nullptr) ==
              cudaSuccess);
      REQUIRE(in.values() == y.values());  // in place
    });
  }
}

TEST_CASE("rope kernel: an odd number of dims and more than a head has are refused",
          "[kernels][rope]") {
  for (const std::int64_t dims : {3, 10}) {
    REQUIRE(kernels::rope<float>(nullptr, nullptr, nullptr, {1, 1, 8, dims}, 1.0f, nullptr) ==
            cudaErrorInvalidValue);
  }
}

TEMPLATE_TEST_CASE("swiglu kernels: forward and backward follow the reference", "[kernels][swiglu]",
                   KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 7, 256, 2051);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, misaligned);
  const auto gate = normal_as<T>(n, 1, 4), up = normal_as<T>(n, 2), dy = normal_as<T>(n, 3);
  const auto grads = reference::swiglu_backward(dy, gate, up);
  for_each_schedule([&](auto) {
    Buffer<T> g(gate, misaligned), u(up, misaligned), d(dy, misaligned);
    Buffer<T> y(n, misaligned), dgate(n, misaligned), dup(n, misaligned);
    REQUIRE(kernels::swiglu_forward(y.data(), g.data(), u.data(), n, nullptr) == cudaSuccess);
    REQUIRE(kernels::swiglu_backward(dgate.data(), dup.data(), d.data(), g.data(), u.data(), n,
                                     nullptr) == cudaSuccess);
    require_near<T>(y.values(), reference::swiglu(gate, up), 4, 1e-3);
    require_near<T>(dgate.values(), grads.dgate, 8, 4);
    require_near<T>(dup.values(), grads.dup, 8, 1e-3);
    REQUIRE((y.guarded() && dgate.guarded() && dup.guarded()));
    // In place, as the layer uses it.
    REQUIRE(kernels::swiglu_backward(g.data(), u.data(), d.data(), g.data(), u.data(), n,
                                     nullptr) == cudaSuccess);
    REQUIRE(g.values() == dgate.values());
    REQUIRE(u.values() == dup.values());
  });
}

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

TEMPLATE_TEST_CASE("elementwise kernels: one rounding of the exact result",
                   "[kernels][elementwise]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 5, 1031);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, misaligned);
  const auto a = normal_as<T>(n, 1), b = normal_as<T>(n, 2);
  std::vector<double> sum, product, scaled;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto rounded = [](double v) -> double {
      return kernels::to_float(kernels::from_float<T>(static_cast<float>(v)));
    };
    sum.push_back(rounded(a[i] + b[i]));
    product.push_back(rounded(a[i] * b[i]));
    scaled.push_back(rounded(0.5 * a[i]));
  }
  for_each_schedule([&](auto) {
    Buffer<T> x(a, misaligned), y(b, misaligned), z(n, misaligned);
    REQUIRE(kernels::add(z.data(), x.data(), y.data(), n, nullptr) == cudaSuccess);
    REQUIRE(z.values() == sum);
    REQUIRE(kernels::multiply(z.data(), x.data(), y.data(), n, nullptr) == cudaSuccess);
    REQUIRE(z.values() == product);
    REQUIRE(kernels::scale(z.data(), x.data(), 0.5f, n, nullptr) == cudaSuccess);
    REQUIRE(z.values() == scaled);
    Buffer<float> wide(n, misaligned);
    REQUIRE(kernels::cast(wide.data(), x.data(), n, nullptr) == cudaSuccess);
    REQUIRE(wide.values() == a);
    REQUIRE(kernels::cast(z.data(), wide.data(), n, nullptr) == cudaSuccess);
    REQUIRE(z.values() == a);
    REQUIRE((z.guarded() && wide.guarded()));
  });
}

TEST_CASE("mask_columns kernel: masked columns get the value", "[kernels][elementwise]") {
  Buffer<float> x(std::vector<double>{1, 2, 3, 4, 5, 6}), y(6);
  Buffer<std::uint8_t> keep(std::vector<double>{1, 0, 1});
  const float out = -std::numeric_limits<float>::infinity();
  REQUIRE(kernels::mask_columns(y.data(), x.data(), keep.data(), out, 2, 3, nullptr) ==
          cudaSuccess);
  REQUIRE(y.values() == std::vector<double>{1, out, 3, 4, out, 6});
}
