// SPDX-License-Identifier: Apache-2.0
// sm_90 by the words of the PTX manual: transaction barriers, box copies with the 128-byte swizzle,
// tensor maps written by kernels, and matrix products of warpgroups. Copies land, and products
// read shared memory, as late as the waits allow; until then what they write is NaN. So a thread
// that does not wait computes NaN, and so does one whose operands are overwritten too early.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "launch.hpp"
#include "tensor_core.hpp"

namespace espalier::simulator {

inline unsigned shared_address(const void* p, ESP_SIMULATOR_PLACE) {
  if (!g_shared.contains(p)) g_block.refuse(place.text() + ": not an address of shared memory");
  return g_shared.address(p);
}

// --- transaction barriers ------------------------------------------------------------------------
inline MbarrierState* find_mbarrier(const void* at) {
  const auto found = g_block.behind.mbarriers.find(at);
  return found == g_block.behind.mbarriers.end() ? nullptr : &found->second;
}

inline void mbarrier_init(void* at, unsigned arrivals, ESP_SIMULATOR_PLACE) {
  if (!g_shared.contains(at) || reinterpret_cast<std::uintptr_t>(at) % 8 != 0 || arrivals == 0) {
    g_block.refuse(place.text() + ": mbarrier: 8 bytes of shared memory, aligned, for arrivals");
  }
  const Unobserved unobserved;
  MbarrierState& m = g_block.behind.mbarriers[at];
  m = {};
  m.arrivals = m.pending = arrivals;
  m.owner = &g_block.current();
}

inline void end_phase_if_complete(MbarrierState& m) {
  if (m.pending > 0 || m.bytes != 0) return;
  m.pending = m.arrivals;
  ++m.phase;
}

inline void mbarrier_arrive(void* at, unsigned bytes, ESP_SIMULATOR_PLACE) {
  const char* fault = nullptr;
  {
    const Unobserved unobserved;
    MbarrierState* m = find_mbarrier(at);
    if (m == nullptr) {
      fault = ": arrives at an mbarrier that was not made";
    } else if (m->pending == 0) {
      fault = ": more arrivals than the mbarrier has in a phase";
    } else if ((m->bytes += bytes) >= 1 << 20) {
      fault = ": an mbarrier counts less than 2^20 bytes";
    } else {
      publish(&m->key);
      --m->pending;
      end_phase_if_complete(*m);
    }
  }
  if (fault != nullptr) g_block.refuse(place.text() + fault);
}

inline bool phase_is_over(Thread& t) {
  const MbarrierState* m = find_mbarrier(t.mbarrier);
  if (m == nullptr) throw Error(t.place.text() + ": waits for an mbarrier that was not made");
  return (m->phase & 1) != t.parity;
}

inline void mbarrier_wait(const void* at, unsigned parity, ESP_SIMULATOR_PLACE) {
  Thread& t = g_block.current();
  t.mbarrier = at;
  t.parity = parity;
  g_block.wait_until("mbarrier_wait", phase_is_over, place);
  const Unobserved unobserved;
  observe(&find_mbarrier(at)->key);
}

/// What this thread did is seen by TMA: of that, the barriers count here.
inline void fence_proxy_async() {
  const Unobserved unobserved;
  for (auto& [at, m] : g_block.behind.mbarriers) m.visible |= m.owner == &g_block.current();
}

// --- box copies ----------------------------------------------------------------------------------
struct TensorMap {  // opaque, of 128 bytes
  const std::byte* base;
  std::uint64_t size[2], stride;  // columns and rows; bytes from row to row
  std::uint32_t box[2];
  bool written, released;  // by a kernel
  unsigned char unused[86];
};
static_assert(sizeof(TensorMap) == 128);

inline cudaError_t encode_map(TensorMap& map, const void* base, const std::uint64_t (&size)[2],
                              std::uint64_t stride, const std::uint32_t (&box)[2]) {
  const bool legal = reinterpret_cast<std::uintptr_t>(base) % 16 == 0 && base != nullptr &&
                     stride % 16 == 0 && stride < std::uint64_t{1} << 40 && size[0] > 0 &&
                     size[1] > 0 && size[0] <= std::uint64_t{1} << 32 &&
                     size[1] <= std::uint64_t{1} << 32 && box[0] * 2 <= 128 && box[1] > 0 &&
                     box[1] <= 256;
  if (!legal) return cudaErrorInvalidValue;
  map = {};
  map.base = static_cast<const std::byte*>(base);
  map.stride = stride;
  std::copy_n(size, 2, map.size);
  std::copy_n(box, 2, map.box);
  return cudaSuccess;
}

inline void rewrite_map(TensorMap* map, const void* base, unsigned rows, ESP_SIMULATOR_PLACE) {
  if (reinterpret_cast<std::uintptr_t>(base) % 16 != 0) {
    g_block.refuse(place.text() + ": tensor map of a matrix that is not aligned to 16 bytes");
  }
  map->base = static_cast<const std::byte*>(base);
  if (rows != 0) map->size[1] = rows;
  map->written = true;
  map->released = false;
  g_block.current().written_maps.push_back(map);
}

inline void release_maps() {
  for (void* map : g_block.current().written_maps) static_cast<TensorMap*>(map)->released = true;
  g_block.current().written_maps.clear();
}

inline void acquire_map(const TensorMap* map, ESP_SIMULATOR_PLACE) {
  if (map->written && !map->released) {
    g_block.refuse(place.text() + ": acquires a tensor map that nobody released");
  }
  const Unobserved unobserved;
  g_block.behind.acquired_maps.insert(map);
}

inline unsigned swizzle_128(unsigned address) {
  return address ^ (address >> 7 & 7) << 4;
}

inline void land_box(unsigned to, const TensorMap& map, int first_row, int first_column,
                     const void* mbarrier) {
  for (std::uint32_t r = 0; r < map.box[1]; ++r) {
    for (std::uint32_t c = 0; c < map.box[0]; ++c) {
      const std::int64_t row = first_row + std::int64_t{r}, column = first_column + std::int64_t{c};
      std::uint16_t v = 0;
      if (row >= 0 && column >= 0 && row < std::int64_t(map.size[1]) &&
          column < std::int64_t(map.size[0])) {
        std::memcpy(&v, map.base + row * std::int64_t(map.stride) + 2 * column, 2);
      }
      std::memcpy(g_shared.at(swizzle_128(to + 2 * (r * map.box[0] + c))), &v, 2);
    }
  }
  MbarrierState& m = *find_mbarrier(mbarrier);
  m.bytes -= 2 * std::int64_t(map.box[0]) * map.box[1];
  end_phase_if_complete(m);
}

inline void load_box(void* to, const TensorMap* map, int row, int column, const void* mbarrier,
                     ESP_SIMULATOR_PLACE) {
  const char* fault = nullptr;
  {
    const Unobserved unobserved;
    const MbarrierState* m = find_mbarrier(mbarrier);
    if (!g_shared.contains(to) || g_shared.address(to) % 1024 != 0) {
      fault = "a swizzled box begins at a multiple of 1024 in shared memory";
    } else if (m == nullptr || !m->visible) {
      fault = "TMA does not see the mbarrier: fence_proxy_async comes after init";
    } else if (map->written && g_block.behind.acquired_maps.count(map) == 0) {
      fault = "a tensor map that a kernel wrote must be acquired first";
    } else {
      std::memset(to, 0xff, 2 * std::size_t{map->box[0]} * map->box[1]);
      g_block.behind.work.emplace_back(
          [=, to = g_shared.address(to)] { land_box(to, *map, row, column, mbarrier); });
    }
  }
  if (fault != nullptr) g_block.refuse(place.text() + ": tma_load: " + fault);
}

// --- matrix products of a warpgroup --------------------------------------------------------------
/// Element (side, k) of an operand, by the canonical layouts of 128-byte swizzle in the manual.
template <class T, bool kKMajor>
float operand_element(std::uint64_t descriptor, unsigned side, unsigned k) {
  const auto field = [&](int bit) { return unsigned(descriptor >> bit & 0x3fff) << 4; };
  const unsigned begin = field(0), leading = field(16), stride = field(32);
  const unsigned at =
      kKMajor ? begin + side / 8 * stride + side % 8 * 128 + 2 * k
              : begin + side / 64 * leading + k / 8 * stride + k % 8 * 128 + side % 64 * 2;
  T v;
  std::memcpy(&v, g_shared.at(swizzle_128(at)), 2);
  return element_of(v);
}

/// Adds a b to the sums of the group's threads, by the lane map of the manual.
ESP_SIMULATOR_RAW inline void add_product(Thread* group, const float (&a)[64][16],
                                          const float (&b)[16][256]) {
  static float d[64][256];
  const auto at = [](unsigned thread, unsigned i) -> float& {
    return d[thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8]
            [i / 4 * 8 + thread % 4 * 2 + i % 2];
  };
  float* sums[kWarpgroupThreads];
  for (unsigned t = 0; t < kWarpgroupThreads; ++t) {
    sums[t] = group[t].products.sums.data();
    for (unsigned i = 0; i < 128; ++i) at(t, i) = sums[t][i];
  }
  for (unsigned i = 0; i < 64; ++i) {
    for (unsigned k = 0; k < 16; ++k) {
      for (unsigned j = 0; j < 256; ++j) d[i][j] += a[i][k] * b[k][j];
    }
  }
  for (unsigned t = 0; t < kWarpgroupThreads; ++t) {
    for (unsigned i = 0; i < 128; ++i) sums[t][i] = at(t, i);
  }
}

template <class T, bool kKMajorA, bool kKMajorB>
void multiply_warpgroup(Thread* group, const Products::Issued& product) {
  if (product.a >> 49 != 1u << 13 || product.b >> 49 != 1u << 13) {
    throw Error("wgmma: only the 128-byte swizzle, with base offset 0, is simulated");
  }
  static float a[64][16], b[16][256];
  for (unsigned k = 0; k < 16; ++k) {
    for (unsigned i = 0; i < 64; ++i) a[i][k] = operand_element<T, kKMajorA>(product.a, i, k);
    for (unsigned j = 0; j < 256; ++j) b[k][j] = operand_element<T, kKMajorB>(product.b, j, k);
  }
  add_product(group, a, b);
}

inline void wgmma_fence(const float*) {
  g_block.current().products.fenced = true;
}

template <class T, bool kKMajorA, bool kKMajorB>
void wgmma(float (&d)[128], std::uint64_t a, std::uint64_t b, ESP_SIMULATOR_PLACE) {
  Products& p = g_block.current().products;
  if (!p.fenced)
    g_block.refuse(place.text() + ": wgmma: wgmma_fence before registers are added to");
  if (p.d != nullptr && p.d != d) {
    g_block.refuse(place.text() + ": wgmma: one accumulator at a time is simulated");
  }
  if (p.d == nullptr) {
    p.sums.assign(d, d + 128);
    std::fill(d, d + 128, std::nanf(""));
    p.d = d;
  }
  p.issued.push_back({multiply_warpgroup<T, kKMajorA, kKMajorB>, a, b});
}

inline void wgmma_commit() {
  Products& p = g_block.current().products;
  p.ends.push_back(p.issued.size());
}

/// Does the products of all but the newest `left` groups, for the whole warpgroup.
inline void do_products(Thread* group) {
  const Products& first = group[0].products;
  const std::size_t left = std::min(first.left, first.ends.size());
  const std::size_t groups = first.ends.size() - left;
  const std::size_t count = groups == 0 ? 0 : first.ends[groups - 1];
  for (std::size_t i = 0; i < count; ++i) first.issued[i].multiply(group, first.issued[i]);
  for (unsigned t = 0; t < kWarpgroupThreads; ++t) {
    Products& p = group[t].products;
    p.issued.erase(p.issued.begin(), p.issued.begin() + std::ptrdiff_t(count));
    p.ends.erase(p.ends.begin(), p.ends.begin() + std::ptrdiff_t(groups));
    for (std::size_t& e : p.ends) e -= count;
    if (p.issued.empty() && p.d != nullptr) {
      std::copy(p.sums.begin(), p.sums.end(), p.d);
      p.d = nullptr;
      p.fenced = false;  // now the registers may be touched
    }
    p.done = true;
  }
}

inline bool products_are_done(Thread& t) {
  if (!t.products.done) {
    Thread* group = g_block.warpgroup(t);
    if (group == nullptr) throw Error(t.place.text() + ": wgmma: a warpgroup has 128 threads");
    for (unsigned i = 0; i < kWarpgroupThreads; ++i) {
      const Thread& other = group[i];
      if (other.state != Thread::State::until_ready || other.ready != products_are_done ||
          other.products.done) {
        return false;
      }
    }
    for (unsigned i = 0; i < kWarpgroupThreads; ++i) {
      const Thread& other = group[i];
      if (other.products.issued != t.products.issued || other.products.ends != t.products.ends ||
          other.products.left != t.products.left) {
        throw Error(t.place.text() + ": wgmma: " + t.name() + " and " + other.name() +
                    " disagree about the products of their warpgroup");
      }
    }
    do_products(group);
  }
  t.products.done = false;
  return true;
}

inline void wgmma_wait(std::size_t groups_left, ESP_SIMULATOR_PLACE) {
  g_block.current().products.left = groups_left;
  g_block.wait_until("wgmma_wait", products_are_done, place);
}
inline void wgmma_finish(const float*, ESP_SIMULATOR_PLACE) {
  wgmma_wait(0, place);
}

}  // namespace espalier::simulator
