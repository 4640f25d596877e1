// SPDX-License-Identifier: Apache-2.0
// What every kernel is tried on: buffers between guard bands, values in each element type, routings
// that broke other libraries, three schedules, and index arithmetic beyond 2^31 elements.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <espalier/core/random.hpp>
#include <espalier/kernels/device.cuh>

#include "kernels/device_vector.hpp"
#include "support/allclose.hpp"
#include "support/catch.hpp"

/// The types of a TEMPLATE_TEST_CASE.
#define KERNEL_TYPES float, __nv_bfloat16, __half

namespace espalier::test {

template <class T>
inline constexpr DType kDTypeOf = std::is_same_v<T, __nv_bfloat16> ? DType::bf16
                                  : std::is_same_v<T, __half>      ? DType::f16
                                                                   : DType::f32;

/// Relative error of a sum in f32 of `reduction_length` terms that is rounded to T once.
template <class T>
double kernel_tol(std::int64_t reduction_length) {
  return std::max(tol(kDTypeOf<T>, 1), tol(DType::f32, reduction_length));
}

/// A device array of a test. Beside it lie bands that nobody may touch; every byte is 0xff (NaN, or
/// -1) until written. ASan sees reads of the bands too.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::int64_t size, std::int64_t offset = 0)
      : size_(static_cast<std::size_t>(size)),
        begin_(kBand + static_cast<std::size_t>(offset)),
        all_(size_ + 2 * kBand + static_cast<std::size_t>(offset)) {
    std::memset(static_cast<void*>(all_.data()), 0xff, all_.size() * sizeof(T));
#ifdef ESP_SIMULATOR_ASAN
    __asan_poison_memory_region(all_.data(), begin_ * sizeof(T));
    __asan_poison_memory_region(data() + size_, kBand * sizeof(T));
#endif
  }
  Buffer(const std::vector<double>& values, std::int64_t offset = 0)
      : Buffer(static_cast<std::int64_t>(values.size()), offset) {
    for (std::size_t i = 0; i < size_; ++i) data()[i] = element(values[i]);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&&) = default;
  ~Buffer() {
#ifdef ESP_SIMULATOR_ASAN
    __asan_unpoison_memory_region(all_.data(), all_.size() * sizeof(T));
#endif
  }

  T* data() {
    return all_.data() + begin_;
  }
  const T* data() const {
    return all_.data() + begin_;
  }
  std::size_t size() const {
    return size_;
  }
  T& operator[](std::size_t i) {
    return data()[i];
  }
  const T& operator[](std::size_t i) const {
    return data()[i];
  }

  /// Nothing wrote before or behind the array.
  bool guarded() const {
#ifdef ESP_SIMULATOR_ASAN
    return true;  // the write would have ended the program
#else
    return is_fresh(all_.data(), begin_) && is_fresh(data() + size_, kBand);
#endif
  }
  /// Nothing wrote elements `from` to `to` - 1.
  bool untouched(std::size_t from, std::size_t to) const {
    return is_fresh(data() + from, to - from);
  }
  std::vector<double> values() const {
    std::vector<double> v;
    for (std::size_t i = 0; i < size_; ++i) {
      if constexpr (std::is_integral_v<T>) {
        v.push_back(static_cast<double>(data()[i]));
      } else {
        v.push_back(kernels::to_float(data()[i]));
      }
    }
    return v;
  }
  /// The bytes, for comparisons of every bit.
  std::string bytes() const {
    return {reinterpret_cast<const char*>(data()), size_ * sizeof(T)};
  }

 private:
  static constexpr std::size_t kBand = 128 / sizeof(T);

  static T element(double v) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(v);
    } else {
      return kernels::from_float<T>(static_cast<float>(v));
    }
  }
  static bool is_fresh(const T* p, std::size_t n) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(p);
    return std::all_of(bytes, bytes + n * sizeof(T), [](unsigned char b) { return b == 0xff; });
  }

  std::size_t size_, begin_;
  DeviceVector<T> all_;
};

/// Standard normal values, rounded to T: what the kernel sees is what the reference sees.
template <class T>
std::vector<double> normal_as(std::int64_t n, std::uint64_t seed, double scale = 1.0) {
  const Philox philox(seed);
  std::vector<double> values;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto v = static_cast<float>(scale * philox.normal(static_cast<std::uint64_t>(i)));
    values.push_back(kernels::to_float(kernels::from_float<T>(v)));
  }
  return values;
}

using simulator::for_each_schedule;

/// Runs f() in each schedule; its result (bytes of all outputs) must not depend on the schedule.
template <class F>
void same_in_every_schedule(F&& f) {
  std::string first;
  for_each_schedule([&](simulator::Schedule s) {
    const std::string now = f();
    if (s == simulator::Schedule::forward) first = now;
    const bool same = now == first;
    REQUIRE(same);
  });
}

template <class T>
void require_close(const Buffer<T>& got, const std::vector<double>& want, double rtol,
                   double atol) {
  const Mismatch m = compare(got.values(), want, atol, rtol);
  INFO(m);
  REQUIRE(m.count == 0);
  REQUIRE(got.guarded());
}

/// For one rounding to T at the end, and a sum of `length` terms in f32 before it.
template <class T>
void require_near(const std::vector<double>& got, const std::vector<double>& want,
                  std::int64_t length, double scale = 1) {
  const double f32 = tol(DType::f32, length);
  const double subnormal = kDTypeOf<T> == DType::f16 ? 0x1p-24 : 0;
  const Mismatch m = compare(got, want, f32 * scale + subnormal, f32 + epsilon_of(kDTypeOf<T>));
  INFO(m);
  REQUIRE(m.count == 0);
}

/// Which experts each token chose, as tests want it; a negative one drops the slot.
struct RoutingCase {
  std::string name;
  std::int64_t tokens;
  int experts, top_k;
  std::vector<std::int32_t> chosen;  // [tokens, top_k]

  std::int64_t slots() const { return tokens * top_k; }
};

/// Distinct experts per token from a fixed stream, none of them below `first`.
inline RoutingCase routing_case(std::string name, std::int64_t n, int e, int k, int first = 0) {
  RoutingCase c{std::move(name), n, e, k, {}};
  const Philox philox(static_cast<std::uint64_t>(n * 1000 + e * 10 + k));
  std::vector<std::int32_t> all;
  for (std::int64_t i = 0; i < n; ++i) {
    all.clear();
    for (int x = first; x < e; ++x) all.push_back(x);
    for (int j = 0; j < k; ++j) {
      const double u = philox.uniform(static_cast<std::uint64_t>(i * k + j));
      std::swap(all[j], all[j + static_cast<int>(u * (e - first - j))]);
      c.chosen.push_back(all[j]);
    }
  }
  return c;
}

/// Empty and single batches, experts without tokens, all tokens to one, k = 1 and k = E, chunks and
/// warps that are not full, several chunks, dropped slots.
inline std::vector<RoutingCase> routing_cases() {
  std::vector<RoutingCase> cases;
  cases.push_back(routing_case("no token", 0, 8, 2));
  cases.push_back(routing_case("one token", 1, 8, 2));
  cases.push_back(routing_case("Mixtral", 67, 8, 2));
  cases.push_back(routing_case("k is 1", 33, 4, 1));
  cases.push_back(routing_case("k is E", 9, 5, 5));
  cases.push_back(routing_case("experts 0 to 2 without tokens", 40, 8, 2, 3));
  cases.push_back(routing_case("many experts", 50, 300, 8));
  cases.push_back(routing_case("most experts, several chunks", 100, 512, 16));
  cases.push_back({"all to one", 70, 6, 1, std::vector<std::int32_t>(70, 4)});
  cases.push_back({"one expert", 5, 1, 1, std::vector<std::int32_t>(5, 0)});
  RoutingCase dropped = routing_case("some slots dropped", 45, 8, 2);
  for (std::size_t i = 0; i < dropped.chosen.size(); i += 7) dropped.chosen[i] = -1;
  dropped.chosen[3] = 8;  // beyond the last expert
  cases.push_back(std::move(dropped));
  return cases;
}

/// The row maps a routing should have, by the plainest loop: expert by expert, slot by slot.
struct RowMaps {
  std::vector<std::int32_t> offsets, row_of_slot, slot_of_row;
};
inline RowMaps row_maps(const RoutingCase& c) {
  RowMaps m;
  m.row_of_slot.assign(c.chosen.size(), -1);
  for (int e = 0; e < c.experts; ++e) {
    m.offsets.push_back(static_cast<std::int32_t>(m.slot_of_row.size()));
    for (std::size_t slot = 0; slot < c.chosen.size(); ++slot) {
      if (c.chosen[slot] != e) continue;
      m.row_of_slot[slot] = static_cast<std::int32_t>(m.slot_of_row.size());
      m.slot_of_row.push_back(static_cast<std::int32_t>(slot));
    }
  }
  m.offsets.push_back(static_cast<std::int32_t>(m.slot_of_row.size()));
  return m;
}

template <class T>
Buffer<T> buffer_of(const std::vector<T>& values) {
  Buffer<T> b(static_cast<std::int64_t>(values.size()));
  std::copy(values.begin(), values.end(), b.data());
  return b;
}

/// Address space without memory behind it: pages come to be when touched. For indices beyond 2^31.
/// On a GPU, where all blocks run, there is memory behind all of it.
class SparseMemory {
 public:
#ifdef ESP_ON_GPU
  explicit SparseMemory(std::size_t bytes) {
    REQUIRE(cudaMallocHost(&p_, bytes) == cudaSuccess);
    std::memset(p_, 0, bytes);
  }
  ~SparseMemory() {
    cudaFreeHost(p_);
  }
#else
  explicit SparseMemory(std::size_t bytes) : bytes_(bytes) {
    p_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
              -1, 0);
    REQUIRE(p_ != MAP_FAILED);
  }
  ~SparseMemory() {
    munmap(p_, bytes_);
  }
#endif
  SparseMemory(const SparseMemory&) = delete;
  SparseMemory& operator=(const SparseMemory&) = delete;

  template <class T>
  T* as() {
    return static_cast<T*>(p_);
  }

 private:
  void* p_ = nullptr;
#ifndef ESP_ON_GPU
  std::size_t bytes_;
#endif
};

}  // namespace espalier::test
