// SPDX-License-Identifier: Apache-2.0
// Stands in for the CUDA runtime where the device layer runs on the CPU: memory, streams, copies.
// Device memory is unreadable for the host outside of kernels and copies, so code that follows a
// device pointer where it must not dies at that line. A stream does its work at once, also while it
// is captured: the graph knows how many kernels it had.
#pragma once

#include <sys/mman.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <new>

#include "launch.hpp"

namespace espalier::simulator {

/// The GPU's memory: one range of addresses, opened while a kernel or a copy runs.
class DeviceMemory {
 public:
  static constexpr std::size_t kBytes = std::size_t{1} << 30;
  static constexpr std::size_t kAlignment = 256;

  static DeviceMemory& instance() {
    static DeviceMemory memory;
    return memory;
  }

  void* allocate(std::size_t bytes) {
    bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment + kAlignment;  // and a gap
    for (auto it = free_.begin(); it != free_.end(); ++it) {                  // first fit
      const auto [at, size] = *it;
      if (size < bytes) continue;
      free_.erase(it);
      if (size > bytes) free_[at + bytes] = size - bytes;
      used_[at] = bytes;
      const MemoryOpen open;
      std::memset(base_ + at, 0xff, bytes);  // reads of what was never written give NaN
      return base_ + at;
    }
    return nullptr;
  }
  void release(void* p) {
    const std::size_t at = static_cast<std::size_t>(static_cast<char*>(p) - base_);
    const auto found = used_.find(at);
    if (found == used_.end()) throw Error("cudaFreeAsync: not a pointer that was allocated");
    auto it = free_.emplace(at, found->second).first;
    used_.erase(found);
    if (const auto next = std::next(it);
        next != free_.end() && it->first + it->second == next->first) {
      it->second += next->second;
      free_.erase(next);
    }
    if (it != free_.begin()) {
      if (const auto before = std::prev(it); before->first + before->second == it->first) {
        before->second += it->second;
        free_.erase(it);
      }
    }
  }
  std::size_t blocks_in_use() const { return used_.size(); }

 private:
  DeviceMemory() {
    void* p = mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<char*>(p);
    free_[0] = kBytes;
    g_while_kernels_run = [](bool open) { instance().open(open); };
  }
  void open(bool open) {
    if (open ? depth_++ == 0 : --depth_ == 0) protect(open ? PROT_READ | PROT_WRITE : PROT_NONE);
  }
  void protect(int access) {
    // Up to the last block that was ever handed out: less for the kernel to look at.
    if (mprotect(base_, kBytes, access) != 0) throw Error("mprotect of the device memory failed");
  }

  char* base_ = nullptr;
  std::map<std::size_t, std::size_t> free_, used_;  // offset -> bytes
  int depth_ = 0;
};

}  // namespace espalier::simulator

struct CUevent_st {
  std::chrono::steady_clock::time_point time;
};
using cudaEvent_t = CUevent_st*;
struct CUgraph_st {
  std::size_t kernels;
};
using cudaGraph_t = CUgraph_st*;
struct CUgraphNode_st;
using cudaGraphNode_t = CUgraphNode_st*;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount, l2CacheSize;
};
struct CUmemPoolHandle_st;
using cudaMemPool_t = CUmemPoolHandle_st*;
enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3
};
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };
inline constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDefault = 0,
                          cudaEventDisableTiming = 2;

inline cudaError_t cudaGetDeviceCount(int* count) {
  return *count = 1, cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) {
  return *s = nullptr, cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  return *pool = nullptr, cudaSuccess;
}
inline cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  return *p = {"simulator", 9, 0, 1, 1 << 20}, cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  return *version = 0, cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
  return *e = new CUevent_st{}, cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t e) {
  delete e;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t) {
  return e->time = std::chrono::steady_clock::now(), cudaSuccess;
}
inline cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end) {
  *ms = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) {
  return cudaSuccess;
}

inline cudaError_t cudaMallocAsync(void** p, std::size_t bytes, cudaStream_t) {
  *p = espalier::simulator::DeviceMemory::instance().allocate(bytes);
  return *p != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFreeAsync(void* p, cudaStream_t) {
  espalier::simulator::DeviceMemory::instance().release(p);
  return cudaSuccess;
}
inline cudaError_t cudaMallocHost(void** p, std::size_t bytes) {
  *p = ::operator new(bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t) {
  const espalier::simulator::MemoryOpen open;
  std::memmove(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  const espalier::simulator::MemoryOpen open;
  std::memset(to, value, bytes);
  return cudaSuccess;
}
namespace espalier::simulator {
inline std::size_t g_kernels_before_capture = 0;
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  espalier::simulator::g_kernels_before_capture = espalier::simulator::g_log.kernels.size();
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  using namespace espalier::simulator;
  return *graph = new CUgraph_st{g_log.kernels.size() - g_kernels_before_capture}, cudaSuccess;
}
inline cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, std::size_t* count) {
  return *count = graph->kernels, cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
