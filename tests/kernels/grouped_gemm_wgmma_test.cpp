// SPDX-License-Identifier: Apache-2.0
// The implementation with wgmma and TMA, against plain loops in double: what the other ones are
// tried on, and sizes around its own tiles, k steps and stages. On a GPU of another kind the front
// takes the mma implementation in its place.
#include <espalier/kernels/grouped_gemm.cuh>
#include <tuple>

#include "grouped_gemm_cases.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

using Bf16 = __nv_bfloat16;
using F16 = __half;

// Device memory, as the tests' own arrays need not be.
struct Workspace {
  void* p = nullptr;
  explicit Workspace(int groups) {
    REQUIRE(cudaMallocAsync(&p, kernels::grouped_gemm_workspace(groups), nullptr) == cudaSuccess);
  }
  ~Workspace() { cudaFreeAsync(p, nullptr); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
};

template <class TC, class T>
struct Wgmma {
  using C = TC;
  using A = T;
  using B = T;
  static constexpr std::int64_t kAlign = 8;

  template <GemmForm kForm, class... P>
  static cudaError_t rows(P... p) {
    const Workspace workspace(std::get<4>(std::tie(p...)));
    return kernels::grouped_gemm_rows<kForm, C, T, T>(p..., workspace.p);
  }
  template <class... P>
  static cudaError_t tn(P... p) {
    const Workspace workspace(std::get<4>(std::tie(p...)));
    return kernels::grouped_gemm_tn<C, T, T>(p..., workspace.p);
  }
};

#define ESP_IMPLEMENTATIONS \
  (Wgmma<Bf16, Bf16>), (Wgmma<float, Bf16>), (Wgmma<F16, F16>), (Wgmma<float, F16>)

}  // namespace

TEST_CASE("grouped_gemm_wgmma: rows times the weights of their expert", "[kernels][grouped_gemm]") {
  using Impl = Wgmma<Bf16, Bf16>;
  for (const Groups& g : all_groups()) {
    if (g.count() > 100) continue;
    check_rows<Impl, GemmForm::nt>({g, 24, 40, 1, 0});
    check_rows<Impl, GemmForm::nn>({g, 24, 40, 1, 0});
  }
}

TEST_CASE("grouped_gemm_wgmma: sizes off and on tiles, steps and stages",
          "[kernels][grouped_gemm]") {
  using Impl = Wgmma<Bf16, Bf16>;
  // More row tiles than a band has, more tiles than blocks, more steps than stages.
  const Groups g = groups_of("", {130, 0, 3, 128}, 2);
  for (const auto& [n, k] : {std::pair{256, 64}, {8, 8}, {264, 328}, {520, 72}, {16, 0}, {0, 16}}) {
    check_rows<Impl, GemmForm::nt>({g, n, k, 1, 0});
    check_rows<Impl, GemmForm::nn>({g, n, k, -2, 0});
  }
  check_rows<Impl, GemmForm::nt>({groups_of("", {1200, 5}), 264, 8, 1, 0});
}

TEMPLATE_TEST_CASE("grouped_gemm_wgmma: types, alpha and beta", "[kernels][grouped_gemm]",
                   ESP_IMPLEMENTATIONS) {
  using Impl = TestType;
  const Groups g = groups_of("", {66, 0, 3}, 2);
  for (const int k : {72, 0}) {
    check_rows<Impl, GemmForm::nt>({g, 40, k, 0.5f, 0.25f});
    check_rows<Impl, GemmForm::nn>({g, 40, k, -2, 1});
    if constexpr (std::is_same_v<typename Impl::C, float>) {
      check_tn<Impl>({g, 40, 72, 0.5f, k == 0 ? 0.0f : 0.25f});
    }
  }
}

TEST_CASE("grouped_gemm_wgmma: gradients of the weights of every expert",
          "[kernels][grouped_gemm]") {
  using Impl = Wgmma<float, Bf16>;
  for (const Groups& g : all_groups()) {  // experts without rows get zeros
    if (g.count() > 100) continue;
    check_tn<Impl>({g, 8, 16, 1, 0});
  }
  const Groups g = groups_of("", {66, 0, 3, 320}, 2);
  for (const auto& [m, n] : {std::pair{128, 256}, {136, 264}, {8, 520}, {0, 8}}) {
    check_tn<Impl>({g, n, m, 0.5f, 1});
  }
}

TEST_CASE("grouped_gemm_wgmma: a NaN stays in its row, and in its expert",
          "[kernels][grouped_gemm]") {
  const Groups g = groups_of("", {3, 2});
  const std::int64_t n = 16, k = 8;
  auto a_values = normal_as<Bf16>(g.rows * k, 1);
  a_values[3 * k] = std::nan("");  // the second expert's first row, loaded with the first's tile
  const Buffer<Bf16> a(a_values), d(normal_as<Bf16>(g.rows * n, 2));
  const Matrices<Bf16> b({normal_as<Bf16>(n * k, 3), normal_as<Bf16>(n * k, 4)});
  const auto offsets = buffer_of(g.offsets);
  Buffer<Bf16> c(g.rows * n);
  REQUIRE(Wgmma<Bf16, Bf16>::rows<GemmForm::nt>(c.data(), a.data(), b.in(), offsets.data(), 2,
                                                g.rows, n, k, 1.0f, 0.0f, nullptr) == cudaSuccess);
  const auto got = c.values();
  for (std::int64_t i = 0; i < g.rows * n; ++i) REQUIRE(std::isnan(got[i]) == (i / n == 3));
  Matrices<float> e({std::vector<double>(n * k), std::vector<double>(n * k)});
  REQUIRE(Wgmma<float, Bf16>::tn(e.pointers.data(), a.data(), d.data(), offsets.data(), 2, k, n,
                                 1.0f, 0.0f, nullptr) == cudaSuccess);
  for (int i = 0; i < n * k; ++i) {
    REQUIRE(std::isfinite(e.of[0].values()[i]));
    REQUIRE(std::isnan(e.of[1].values()[i]) == (i < n));
  }
}

TEST_CASE("grouped_gemm_wgmma: runs where the device has it and the caller gives a workspace",
          "[kernels][grouped_gemm]") {
  const Matrices<Bf16> b({normal_as<Bf16>(16 * 24, 1)});
  const auto offsets = buffer_of(std::vector<std::int32_t>{0, 3});
  const Buffer<Bf16> a(normal_as<Bf16>(3 * 24, 2));
  Buffer<Bf16> c(3 * 16);
  const Workspace workspace(1);
  const auto run = [&](auto function, std::int64_t k, void* at) {
    return function(c.data(), a.data(), b.in(), offsets.data(), 1, 3, 16, k, 1.0f, 0.0f, nullptr,
                    at);
  };
  const auto wgmma = kernels::grouped_gemm_wgmma_rows<GemmForm::nt, Bf16, Bf16>;
  int device = 0, major = 0;
  REQUIRE(cudaGetDevice(&device) == cudaSuccess);
  REQUIRE(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess);
  REQUIRE(run(wgmma, 24, workspace.p) == (major == 9 ? cudaSuccess : cudaErrorNotSupported));
  REQUIRE(run(wgmma, 23, workspace.p) == cudaErrorInvalidValue);
  REQUIRE(run(wgmma, 24, nullptr) == cudaErrorInvalidValue);
  REQUIRE(run(wgmma, 24, static_cast<char*>(workspace.p) + 64) == cudaErrorInvalidValue);
#ifndef ESP_ON_GPU
  const auto front = kernels::grouped_gemm_rows<GemmForm::nt, Bf16, Bf16, Bf16>;
  const auto launches = [&](void* at) {
    simulator::g_log.kernels.clear();
    REQUIRE(run(front, 24, at) == cudaSuccess);
    return simulator::g_log.kernels.size();
  };
  REQUIRE(launches(nullptr) == 1);
  REQUIRE(launches(workspace.p) == 2);  // maps, products
  simulator::g_compute_capability = 8;
  REQUIRE(run(wgmma, 24, workspace.p) == cudaErrorNotSupported);
  REQUIRE(launches(workspace.p) == 1);
  simulator::g_compute_capability = 9;
#endif
}
