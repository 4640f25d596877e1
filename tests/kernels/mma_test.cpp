// SPDX-License-Identifier: Apache-2.0
// The tensor-core wrappers: a matrix product through cp.async, ldmatrix and mma against plain
// loops, exact because the values are small integers; and the faults their simulation must show.
#include <espalier/kernels/mma.cuh>
#include <string>
#include <vector>

#include "kernels/device_vector.hpp"
#include "support/catch.hpp"

using namespace espalier::kernels;
using espalier::simulator::for_each_schedule;
using espalier::simulator::Schedule;
using espalier::test::DeviceVector;

namespace {

// c [16, 8] = a [16, 32] b, b [32, 8] or, transposed, [8, 32]; one warp.
template <class T, bool kTransposedB, bool kWait>
__global__ void product_kernel(float* c, const T* a, const T* b) {
  ESP_SHARED(T[16 * 32], sa);
  ESP_SHARED(T[32 * 8], sb);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 16 * 32 / 8; i += 32) cp_async<16>(sa + 8 * i, a + 8 * i);
  cp_async_commit();
  for (int i = lane; i < 32 * 8 / 8; i += 32) cp_async<16>(sb + 8 * i, b + 8 * i);
  cp_async_commit();
  cp_async_wait<kWait ? 0 : 1>();
  __syncwarp();
  float d[4] = {};
  for (int k = 0; k < 32; k += 16) {
    unsigned fa[4], fb[2];
    ldmatrix<4>(fa, sa + (lane % 16) * 32 + k + lane / 16 * 8);
    if (kTransposedB) {
      ldmatrix<2>(fb, sb + (lane % 8) * 32 + k + lane / 8 % 2 * 8);
    } else {
      ldmatrix<2, true>(fb, sb + (k + lane % 16) * 8);
    }
    mma_m16n8k16<T>(d, fa, fb);
  }
  for (int i = 0; i < 4; ++i) c[(lane / 4 + 8 * (i / 2)) * 8 + 2 * (lane % 4) + i % 2] = d[i];
}

template <class T>
DeviceVector<T> small_integers(int n, int step) {
  DeviceVector<T> v;
  for (int i = 0; i < n; ++i) v.push_back(from_float<T>(static_cast<float>(i * step % 13 - 6)));
  return v;
}

template <class T, bool kTransposedB, bool kWait = true>
int wrong_elements() {
  const auto a = small_integers<T>(16 * 32, 5), b = small_integers<T>(32 * 8, 7);
  DeviceVector<float> c(16 * 8, -1.0f);
  ESP_LAUNCH((product_kernel<T, kTransposedB, kWait>), 1, 32, 0, nullptr, c.data(), a.data(),
             b.data());
  int wrong = 0;
  for (int r = 0; r < 16; ++r) {
    for (int n = 0; n < 8; ++n) {
      float sum = 0;
      for (int k = 0; k < 32; ++k) {
        sum += to_float(a[r * 32 + k]) * to_float(b[kTransposedB ? n * 32 + k : k * 8 + n]);
      }
      wrong += !(c[r * 8 + n] == sum);
    }
  }
  return wrong;
}

__global__ void tail_kernel(float* y, const float* x, int valid_bytes) {
  ESP_SHARED(float[32 * 4], row);
  cp_async<16>(row + 4 * threadIdx.x, x + 4 * threadIdx.x, valid_bytes);
  cp_async_commit();
  cp_async_wait<0>();
  for (int i = 0; i < 4; ++i) y[4 * threadIdx.x + i] = row[4 * threadIdx.x + i];
}

#ifndef ESP_ON_GPU
__global__ void misaligned_kernel(const float* x) {
  ESP_SHARED(float[32 * 4 + 1], row);
  cp_async<16>(row + 1 + 4 * threadIdx.x, x + 4 * threadIdx.x);
}
#endif

}  // namespace

TEST_CASE("mma: a product through shared memory is exact", "[kernels][simulator]") {
  for_each_schedule([](Schedule) {
    REQUIRE((wrong_elements<__nv_bfloat16, false>()) == 0);
    REQUIRE((wrong_elements<__nv_bfloat16, true>()) == 0);
    REQUIRE((wrong_elements<__half, false>()) == 0);
    REQUIRE((wrong_elements<__half, true>()) == 0);
  });
}

TEST_CASE("mma: the rest of a short copy is zero", "[kernels][simulator]") {
  DeviceVector<float> x(128, 3.0f), y(128);
  for (const int valid : {0, 4, 12, 16}) {
    ESP_LAUNCH(tail_kernel, 1, 32, 0, nullptr, y.data(), x.data(), valid);
    for (int i = 0; i < 128; ++i) REQUIRE(y[i] == (i % 4 < valid / 4 ? 3.0f : 0.0f));
  }
}

#ifndef ESP_ON_GPU  // faults
TEST_CASE("mma: a copy that nobody waits for is caught", "[kernels][simulator]") {
  for_each_schedule([](Schedule) {
    REQUIRE((wrong_elements<__nv_bfloat16, false, false>()) == 128);  // all NaN
  });
}

TEST_CASE("mma: a misaligned copy is refused", "[kernels][simulator]") {
  std::vector<float> x(128);
  std::string text;
  try {
    ESP_LAUNCH(misaligned_kernel, 1, 32, 0, nullptr, x.data());
  } catch (const espalier::simulator::Error& e) {
    text = e.what();
  }
  INFO(text);
  REQUIRE(text.find("cp.async: copies 16 bytes aligned to them") != std::string::npos);
}
#endif
