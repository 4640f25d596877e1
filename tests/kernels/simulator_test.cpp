// SPDX-License-Identifier: Apache-2.0
// The simulator itself: correct kernels give correct results in every schedule, and each planted
// fault is caught, with a message that says where it is.
#include <espalier/kernels/device.cuh>
#include <numeric>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/in_child.hpp"

using namespace espalier::kernels;
using espalier::simulator::Error;
using espalier::simulator::for_each_schedule;
using espalier::simulator::Schedule;

namespace {

#ifdef ESP_SIMULATOR_TSAN
constexpr bool kTsan = true;
#else
constexpr bool kTsan = false;
#endif
#ifdef ESP_SIMULATOR_ASAN
constexpr bool kAsan = true;
#else
constexpr bool kAsan = false;
#endif

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

template <class T>
__global__ void sum_rows_kernel(T* sums, const T* x, int width) {
  T sum = 0;
  for (int c = threadIdx.x; c < width; c += blockDim.x) sum += x[blockIdx.x * width + c];
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Each thread reads what its neighbour wrote.
template <bool kBarrier>
__global__ void rotate_kernel(int* y, const int* x) {
  ESP_SHARED(int[256], row);
  row[threadIdx.x] = x[threadIdx.x];
  if (kBarrier) __syncthreads();
  y[threadIdx.x] = row[(threadIdx.x + 1) % blockDim.x];
}

__global__ void same_value_kernel(int* y) {
  ESP_SHARED(int, flag);
  flag = 1;  // every thread: right in every schedule, and still a race
  y[threadIdx.x] = flag;
}

__global__ void beyond_shared_kernel(int* y, int at) {
  ESP_SHARED(int[32], before);
  ESP_SHARED(int[32], row);
  before[threadIdx.x] = row[threadIdx.x] = 0;
  if (threadIdx.x == 0) (&row[0])[at] = 1;
  y[threadIdx.x] = row[threadIdx.x] + before[threadIdx.x];
}

__global__ void beyond_dynamic_kernel(int at) {
  ESP_DYN_SHARED(float, row);
  if (threadIdx.x == 0) row[at] = 1.0f;
}

__global__ void fresh_shared_kernel(float* y) {
  ESP_SHARED(float[32], row);
  y[threadIdx.x] = row[threadIdx.x];
}

enum class Fault {
  none,
  not_in_mask,
  disagree,
  exited,
  kinds,
  source,
  barrier,
  two_barriers,
  loop
};

__global__ void faulty_kernel(int* y, Fault fault) {
  const unsigned lane = threadIdx.x % 32;
  int v = static_cast<int>(lane);
  switch (fault) {
    case Fault::none:
      v = __shfl_xor_sync(kAllLanes, v, 1);
      break;
    case Fault::not_in_mask:
      v = __shfl_sync(0x0000ffffu, v, 0);  // lanes 16 to 31 call it too
      break;
    case Fault::disagree:
      v = __shfl_sync(lane < 16 ? kAllLanes : 0xffffff00u, v, 8);
      break;
    case Fault::exited:
      if (lane == 7) return;
      v = __shfl_xor_sync(kAllLanes, v, 1);
      break;
    case Fault::kinds:
      v = lane == 0 ? __any_sync(kAllLanes, 1) : __shfl_sync(kAllLanes, v, 0);
      break;
    case Fault::source:
      if (lane < 16) v = __shfl_sync(0xffffu, v, 20);
      break;
    case Fault::barrier:
      if (threadIdx.x == 40) {
        __syncwarp();
      } else {
        __syncthreads();
      }
      break;
    case Fault::two_barriers:
      if (threadIdx.x < 32) {
        __syncthreads();
      } else {
        __syncthreads();
      }
      break;
    case Fault::loop:
      if (lane < 16) __syncwarp(0x0001ffffu);
      break;
  }
  y[threadIdx.x] = v;
}

cudaError_t run_faulty(Fault fault, unsigned threads = 64) {
  std::vector<int> y(threads);
  return ESP_LAUNCH(faulty_kernel, 1, threads, 0, nullptr, y.data(), fault);
}

}  // namespace

TEST_CASE("simulator: a two-level sum is right in every schedule", "[kernels][simulator]") {
  constexpr int kRows = 9, kWidth = 700;
  std::vector<int> x(kRows * kWidth);
  std::iota(x.begin(), x.end(), 1);
  for (const unsigned threads : {32u, 64u, 256u}) {
    for_each_schedule([&](Schedule) {
      std::vector<int> sums(kRows, -1);
      REQUIRE(ESP_LAUNCH(sum_rows_kernel<int>, kRows, threads, 0, nullptr, sums.data(), x.data(),
                         kWidth) == cudaSuccess);
      for (int r = 0; r < kRows; ++r) {
        const auto row = x.begin() + r * kWidth;
        REQUIRE(sums[r] == std::accumulate(row, row + kWidth, 0));
      }
    });
  }
}

TEST_CASE("simulator: a missing barrier is caught", "[kernels][simulator]") {
  std::vector<int> x(256), y(256);
  std::iota(x.begin(), x.end(), 0);
  int wrong = 0;
  for_each_schedule([&](Schedule) {
    ESP_LAUNCH(rotate_kernel<true>, 1, 256, 0, nullptr, y.data(), x.data());
    for (int i = 0; i < 256; ++i) REQUIRE(y[i] == (i + 1) % 256);
    if (kTsan) {
      const auto child = espalier::test::in_child(
          [&] { ESP_LAUNCH(rotate_kernel<false>, 1, 256, 0, nullptr, y.data(), x.data()); });
      INFO(child.text);
      REQUIRE(has(child.text, "ThreadSanitizer: data race"));
      REQUIRE(has(child.text, "rotate_kernel"));
    } else {
      ESP_LAUNCH(rotate_kernel<false>, 1, 256, 0, nullptr, y.data(), x.data());
      for (int i = 0; i < 256; ++i) wrong += y[i] != (i + 1) % 256;
    }
  });
  if (!kTsan) REQUIRE(wrong > 256);
  if (kTsan) {
    const auto child = espalier::test::in_child(
        [&] { ESP_LAUNCH(same_value_kernel, 1, 64, 0, nullptr, y.data()); });
    REQUIRE(has(child.text, "ThreadSanitizer: data race"));
  }
}

TEST_CASE("simulator: a write beside shared memory is caught", "[kernels][simulator]") {
  std::vector<int> y(32);
  for (const int at : {32, -1, 40}) {
    CAPTURE(at);
    auto beyond = [&] { ESP_LAUNCH(beyond_shared_kernel, 1, 32, 0, nullptr, y.data(), at); };
    if (kAsan) {
      const auto child = espalier::test::in_child(beyond);
      INFO(child.text);
      REQUIRE(has(child.text, "use-after-poison"));
      REQUIRE(has(child.text, "beyond_shared_kernel"));
    } else {
      const std::string text = error_of(beyond);
      INFO(text);
      REQUIRE(has(text, "simulator_test.cpp:"));
      REQUIRE(has(text, "a write beside shared variable"));
      REQUIRE(has(text, "in block (0, 0, 0) of beyond_shared_kernel"));
    }
  }
  auto dynamic = [](int at) {
    return error_of([&] { ESP_LAUNCH(beyond_dynamic_kernel, 1, 32, 256, nullptr, at); });
  };
  REQUIRE(dynamic(63) == "no error");
  if (!kAsan) REQUIRE(has(dynamic(64), "256 bytes from its begin (it has 256)"));
}

TEST_CASE("simulator: shared memory is NaN until written", "[kernels][simulator]") {
  std::vector<float> y(32);
  ESP_LAUNCH(fresh_shared_kernel, 1, 32, 0, nullptr, y.data());
  for (const float v : y) REQUIRE(v != v);
}

TEST_CASE("simulator: what CUDA leaves undefined is refused", "[kernels][simulator]") {
  for_each_schedule([&](Schedule) {
    auto text = [](Fault fault, unsigned threads = 64) {
      return error_of([&] { run_faulty(fault, threads); });
    };
    REQUIRE(text(Fault::none) == "no error");
    auto refused = [&](const std::string& message, const std::string& part) {
      INFO(message);
      REQUIRE(has(message, "simulator_test.cpp:"));
      REQUIRE(has(message, part));
      REQUIRE(has(message, "in block (0, 0, 0) of faulty_kernel, launched at "));
    };
    refused(text(Fault::not_in_mask), "is not in its mask 0x0000ffff");
    refused(text(Fault::disagree), "");  // whichever of its three faults comes first
    refused(text(Fault::exited), "names lane 7, which has exited");
    refused(text(Fault::kinds), "_sync at ");
    refused(text(Fault::source), "reads lane 20, which is not in the mask");
    refused(text(Fault::barrier),
            "deadlock: thread (0, 0, 0) waits at a barrier that thread (40, 0, "
            "0) never reaches: it is in __syncwarp at ");
    refused(text(Fault::two_barriers), "waits at this barrier, thread (");
    refused(text(Fault::loop), "lane 16");
    refused(text(Fault::none, 48), "the last warp of the block has 16 lanes");
    REQUIRE(text(Fault::none) == "no error");  // nothing is left of the refused launches
  });
  REQUIRE(has(error_of([] { run_faulty(Fault::disagree); }),
              "lanes disagree about the mask: lane 23 says 0xffffff00, lane 8 says 0xffffffff"));
}

TEST_CASE("simulator: launches that CUDA refuses", "[kernels][simulator]") {
  auto launch = [](dim3 grid, dim3 block, std::size_t bytes) {
    return ESP_LAUNCH(beyond_dynamic_kernel, grid, block, bytes, nullptr, 0);
  };
  REQUIRE(launch(1, 32, 16) == cudaSuccess);
  REQUIRE(launch(0, 32, 16) == cudaErrorInvalidConfiguration);
  REQUIRE(launch(1, 1025, 16) == cudaErrorInvalidConfiguration);
  REQUIRE(launch(dim3(1, 65536), 32, 16) == cudaErrorInvalidConfiguration);
  REQUIRE(launch(1, 32, (48 << 10) + 1) == cudaErrorInvalidValue);
  const auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  REQUIRE(cudaFuncSetAttribute(beyond_dynamic_kernel, attribute, 100 << 10) == cudaSuccess);
  REQUIRE(launch(1, 32, 100 << 10) == cudaSuccess);
  REQUIRE(cudaFuncSetAttribute(beyond_dynamic_kernel, attribute, 228 << 10) ==
          cudaErrorInvalidValue);
  cudaGetLastError();
}
