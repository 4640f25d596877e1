// SPDX-License-Identifier: Apache-2.0
// The wrappers of sm_90 (mbarrier, box copies, wgmma): a product through a pipeline of two stages
// in each operand layout, exact because the values are small integers; and the faults that their
// simulation must show.
#include <espalier/kernels/tma.cuh>
#include <espalier/kernels/wgmma.cuh>
#include <string>
#include <vector>

#include "cases.hpp"

using namespace espalier;
using namespace espalier::kernels;
using namespace espalier::test;

namespace {

using Bf16 = __nv_bfloat16;

enum class Fault {
  none,
  lands_unseen,    // multiplies without waiting for the copy
  freed_early,     // says that a stage was read when its products are still under way
  never_freed,     // does not say it at all
  parity,          // waits for the other phase
  bytes,           // announces fewer bytes than are copied
  read_early,      // looks at the sums without waiting
  registers,       // adds without a fence
  barrier_unseen,  // makes barriers that TMA does not see
  map_unseen,      // uses a map of a kernel without acquiring it
  disagree,        // threads of the warpgroup name different operands
  misaligned,      // a box at 512
  left_behind,     // ends before a copy has landed
};

constexpr int kDepth = 64, kSteps = 4;

struct Stages {
  Bf16 a[2][64 * kDepth], b[2][256 * kDepth];
};

template <bool kKMajor, int kSide>
__device__ void load(Bf16* to, const TensorMap* map, int depth, Mbarrier& landed) {
  for (int side = 0; side < kSide; side += kKMajor ? kSide : 64) {
    if (kKMajor) {
      tma_load(to, map, side, depth, landed);
    } else {
      tma_load(to + side * kDepth, map, depth, side, landed);
    }
  }
}

// c [64, 256] = a b over kSteps * 64; a warpgroup multiplies, thread 128 loads.
template <bool kKMajorA, bool kKMajorB, Fault kFault>
__global__ void product_kernel(float* c, const TensorMap* map_a, const TensorMap* map_b) {
#if ESP_HAS_SM90A
  ESP_DYN_SHARED(unsigned char, memory);
  ESP_SHARED(Mbarrier[2], full);
  ESP_SHARED(Mbarrier[2], empty);
  auto& s = *reinterpret_cast<Stages*>(memory + (-shared_address(memory) & 1023) +
                                       (kFault == Fault::misaligned ? 512 : 0));
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) {
      full[i].init(1);
      empty[i].init(4);
    }
    if (kFault != Fault::barrier_unseen) fence_proxy_async();
  }
  __syncthreads();
  if (threadIdx.x == 128) {
    if (kFault != Fault::map_unseen) tensor_map_acquire(map_a);
    tensor_map_acquire(map_b);
    for (int step = 0; step < (kFault == Fault::left_behind ? 1 : kSteps); ++step) {
      const int i = step % 2;
      empty[i].wait(step / 2 % 2 ^ 1);
      full[i].arrive_and_expect(sizeof s.a[i] + sizeof s.b[i] - (kFault == Fault::bytes ? 64 : 0));
      load<kKMajorA, 64>(s.a[i], map_a, step * kDepth, full[i]);
      load<kKMajorB, 256>(s.b[i], map_b, step * kDepth, full[i]);
    }
  }
  if (threadIdx.x >= kWarpgroup || kFault == Fault::left_behind) return;
  const auto freed = [&](int step) {
    if (kFault == Fault::never_freed) return;
    if (threadIdx.x % 32 == 0) empty[step % 2].arrive();
  };
  float sum[128] = {};
  for (int step = 0; step < kSteps; ++step) {
    const int i = step % 2;
    if (kFault != Fault::lands_unseen) {
      full[i].wait((step / 2 % 2) ^ (kFault == Fault::parity && step > 1 ? 1 : 0));
    }
    if (kFault != Fault::registers) wgmma_fence(sum);
    const bool other = kFault == Fault::disagree && threadIdx.x == 9;
    const auto a = wgmma_operand<kKMajorA>(s.a[i], kDepth);
    const auto b = wgmma_operand<kKMajorB>(s.b[other ? 1 - i : i], kDepth);
    for (int depth = 0; depth < kDepth; depth += 16) {
      wgmma<Bf16, kKMajorA, kKMajorB>(sum, wgmma_advance<kKMajorA>(a, depth),
                                      wgmma_advance<kKMajorB>(b, depth));
    }
    wgmma_commit();
    if (kFault == Fault::freed_early) freed(step);
    wgmma_wait<1>();
    if (kFault != Fault::freed_early && step > 0) freed(step - 1);
  }
  if (kFault != Fault::read_early) wgmma_finish(sum);
  for (int i = 0; i < 128; ++i) {
    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i / 2 % 2 * 8;
    c[row * 256 + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2] = sum[i];
  }
  if (kFault == Fault::read_early) wgmma_finish(sum);
#endif
}

__global__ void maps_kernel(TensorMap* maps, const __grid_constant__ TensorMap a,
                            const __grid_constant__ TensorMap b, const Bf16* at_a,
                            const Bf16* at_b) {
#if ESP_HAS_SM90A
  maps[0] = a;
  maps[1] = b;
  replace_matrix(maps, at_a, 0);
  replace_matrix(maps + 1, at_b, 0);
  tensor_map_release();
#endif
}

// How many elements of the product are wrong.
template <bool kKMajorA, bool kKMajorB, Fault kFault = Fault::none>
int wrong_elements() {
  constexpr int kK = kSteps * kDepth;
  const auto integers = [](int n, int step) {
    std::vector<double> v;
    for (int i = 0; i < n; ++i) v.push_back(i * step % 7 - 3);
    return v;
  };
  const auto a_values = integers(64 * kK, 5), b_values = integers(256 * kK, 3);
  const Buffer<Bf16> a(a_values), b(b_values);
  Buffer<float> c(64 * 256);
  TensorMap map_a, map_b;
  void* memory = nullptr;
  REQUIRE(cudaMallocAsync(&memory, 2 * sizeof(TensorMap), nullptr) == cudaSuccess);
  auto* const maps = static_cast<TensorMap*>(memory);
  REQUIRE(encode_tensor_map(map_a, a.data(), kKMajorA ? 64 : kK, kKMajorA ? kK : 64, 64) ==
          cudaSuccess);
  REQUIRE(encode_tensor_map(map_b, a.data(), kKMajorB ? 256 : kK, kKMajorB ? kK : 256,
                            kKMajorB ? 256 : 64) == cudaSuccess);
  ESP_LAUNCH(maps_kernel, 1, 1, 0, nullptr, maps, map_a, map_b, a.data(), b.data());
  const auto kernel = product_kernel<kKMajorA, kKMajorB, kFault>;
  constexpr int kBytes = sizeof(Stages) + 1024;
  REQUIRE(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes) ==
          cudaSuccess);
  ESP_LAUNCH(kernel, 1, kWarpgroup + 32, kBytes, nullptr, c.data(), maps, maps + 1);
  REQUIRE(cudaFreeAsync(memory, nullptr) == cudaSuccess);
  int wrong = 0;
  for (int r = 0; r < 64; ++r) {
    for (int j = 0; j < 256; ++j) {
      double sum = 0;
      for (int k = 0; k < kK; ++k) {
        sum += a_values[kKMajorA ? r * kK + k : k * 64 + r] *
               b_values[kKMajorB ? j * kK + k : k * 256 + j];
      }
      wrong += !(c[r * 256 + j] == sum);
    }
  }
  return wrong;
}

}  // namespace

TEST_CASE("hopper: a product through boxes and wgmma is exact in each layout",
          "[kernels][simulator]") {
  int major = 0;
  REQUIRE(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess);
  if (major != 9) {
    WARN("not run: the device has no wgmma");
    return;
  }
  simulator::for_each_schedule([](simulator::Schedule) {
    REQUIRE((wrong_elements<true, true>()) == 0);
    REQUIRE((wrong_elements<true, false>()) == 0);
    REQUIRE((wrong_elements<false, true>()) == 0);
    REQUIRE((wrong_elements<false, false>()) == 0);
  });
}

#ifndef ESP_ON_GPU  // faults
namespace {

// What the simulator says; otherwise whether the sums are wrong.
template <Fault kFault>
std::string outcome() {
  try {
    return wrong_elements<true, true, kFault>() == 0 ? "right" : "wrong";
  } catch (const simulator::Error& e) {
    return e.what();
  }
}

}  // namespace

TEST_CASE("hopper: what nobody waited for is NaN", "[kernels][simulator]") {
  simulator::for_each_schedule([](simulator::Schedule) {
    REQUIRE((wrong_elements<true, true, Fault::read_early>()) == 64 * 256);
    REQUIRE(outcome<Fault::lands_unseen>() != "right");
  });
}

TEST_CASE("hopper: a stage that is filled, or read, out of order spoils the sums",
          "[kernels][simulator]") {
  simulator::for_each_schedule(
      [](simulator::Schedule) { REQUIRE((wrong_elements<true, true, Fault::freed_early>()) > 0); });
}

TEST_CASE("hopper: faults are refused, with the reason", "[kernels][simulator]") {
  const auto says = [](const std::string& text, const std::string& part) {
    INFO(text);
    REQUIRE(text.find(part) != std::string::npos);
  };
  simulator::for_each_schedule([&](simulator::Schedule) {
    says(outcome<Fault::never_freed>(), "is in mbarrier_wait");
    says(outcome<Fault::bytes>(), "and nothing will end it");
    says(outcome<Fault::barrier_unseen>(), "TMA does not see the mbarrier");
    says(outcome<Fault::map_unseen>(), "a tensor map that a kernel wrote must be acquired");
    says(outcome<Fault::registers>(), "wgmma_fence before registers");
    says(outcome<Fault::disagree>(), "disagree about the products of their warpgroup");
    says(outcome<Fault::misaligned>(), "a swizzled box begins at a multiple of 1024");
    says(outcome<Fault::left_behind>(), "the block ended before");
  });
}
#endif
