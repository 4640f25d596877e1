// SPDX-License-Identifier: Apache-2.0
// The few runtime calls of the CUDA device, with errors as exceptions. Everything runs on one
// stream, so the next operation may reuse memory as soon as its handle is gone: allocations are
// ordered with the kernels (cudaMallocAsync), and only a download waits.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

#include <espalier/core/error.hpp>

namespace espalier {

/// A runtime call or a kernel failed.
struct CudaError : Error {
  using Error::Error;
};

namespace cuda {

inline void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) [[likely]]
    return;
  throw CudaError(detail::concat({call, ": ", cudaGetErrorString(error), " (", int{error}, ')'}));
}

/// Throws what a runtime call or a launcher returns. With ESPALIER_SYNC=1 in the environment it
/// waits, so that the message of a fault in a kernel names the launch.
#define ESP_CUDA(call)                                                                   \
  do {                                                                                   \
    ::espalier::cuda::check((call), #call);                                              \
    if (::espalier::cuda::synchronous())                                                 \
      ::espalier::cuda::check(cudaStreamSynchronize(::espalier::cuda::stream()), #call); \
  } while (false)

[[nodiscard]] inline bool synchronous() {
  static const bool on = [] {
    const char* text = std::getenv("ESPALIER_SYNC");
    return text != nullptr && std::string_view(text) == "1";
  }();
  return on;
}

namespace detail {
/// Lets the memory pool of the device keep all freed memory across synchronisations.
inline void keep_freed_memory() {
  cudaMemPool_t pool;
  check(cudaDeviceGetDefaultMemPool(&pool, 0), "cudaDeviceGetDefaultMemPool");
  unsigned long long keep = ~0ull;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
        "cudaMemPoolSetAttribute");
}
}  // namespace detail

/// @throws DeviceError saying why where there is no GPU that can be used.
inline void require_device() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  ESP_REQUIRE(error == cudaSuccess && count > 0, DeviceError, "device cuda: no GPU can be used (",
              error == cudaSuccess ? "none is there" : cudaGetErrorString(error),
              "); compute on the device cpu instead");
}

/// The stream of all kernels and copies. @throws DeviceError without a GPU.
[[nodiscard]] inline cudaStream_t stream() {
  static const cudaStream_t created = [] {
    require_device();
    cudaStream_t s;
    check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    detail::keep_freed_memory();
    return s;
  }();
  return created;
}

inline void synchronize() {
  check(cudaStreamSynchronize(stream()), "cudaStreamSynchronize");
}

/// Uninitialised device memory, at least 256-byte aligned; freed in the order of the stream.
[[nodiscard]] inline std::shared_ptr<std::byte> allocate(std::size_t bytes) {
  void* block = nullptr;
  const cudaError_t error = cudaMallocAsync(&block, bytes > 0 ? bytes : 1, stream());
  ESP_REQUIRE(error == cudaSuccess, CudaError, "device cuda: no memory for ", bytes,
              " bytes more (", cudaGetErrorString(error),
              "); use a smaller batch or shorter sequences");
  return {static_cast<std::byte*>(block), [](std::byte* p) { cudaFreeAsync(p, stream()); }};
}

inline void copy(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes == 0) return;
  ESP_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream()));
}
inline void fill_zero(std::byte* to, std::size_t bytes) {
  if (bytes == 0) return;
  ESP_CUDA(cudaMemsetAsync(to, 0, bytes, stream()));
}

namespace detail {

/// Two pinned buffers: one is filled, upload after upload, while the other is copied.
/// The host waits only where both are full.
class Staging {
 public:
  static constexpr std::size_t kBytes = std::size_t{16} << 20;

  static Staging& instance() {
    static Staging* staging = new Staging;  // never destroyed, like the runtime under it
    return *staging;
  }

  void upload(std::byte* to, const std::byte* host, std::size_t bytes) {
    for (std::size_t at = 0; at < bytes;) {
      const Piece piece = take(bytes - at);
      std::memcpy(piece.memory, host + at, piece.bytes);
      check(cudaMemcpyAsync(to + at, piece.memory, piece.bytes, cudaMemcpyHostToDevice, stream()),
            "cudaMemcpyAsync to the device");
      at += piece.bytes;
    }
  }
  void download(std::byte* host, const std::byte* from, std::size_t bytes) {
    for (std::size_t at = 0; at < bytes;) {
      const Piece piece = take(bytes - at);
      check(cudaMemcpyAsync(piece.memory, from + at, piece.bytes, cudaMemcpyDeviceToHost, stream()),
            "cudaMemcpyAsync to the host");
      synchronize();
      std::memcpy(host + at, piece.memory, piece.bytes);
      at += piece.bytes;
    }
  }

 private:
  struct Buffer {
    std::byte* memory = nullptr;
    cudaEvent_t done = nullptr;  // after the last copy from this buffer
    std::size_t used = 0;
  };
  struct Piece {
    std::byte* memory;
    std::size_t bytes;
  };

  Staging() {
    for (Buffer& b : buffers_) {
      void* memory = nullptr;
      check(cudaMallocHost(&memory, kBytes), "cudaMallocHost");
      b.memory = static_cast<std::byte*>(memory);
      check(cudaEventCreateWithFlags(&b.done, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    }
  }

  /// Pinned memory that no copy uses: up to `bytes`, as much as the current buffer has left.
  Piece take(std::size_t bytes) {
    constexpr std::size_t kAlign = 256;
    if (buffers_[current_].used == kBytes) {
      check(cudaEventRecord(buffers_[current_].done, stream()), "cudaEventRecord");
      current_ ^= 1;
      check(cudaEventSynchronize(buffers_[current_].done), "cudaEventSynchronize");
      buffers_[current_].used = 0;
    }
    Buffer& b = buffers_[current_];
    const Piece piece{b.memory + b.used, std::min(bytes, kBytes - b.used)};
    b.used += (piece.bytes + kAlign - 1) / kAlign * kAlign;
    return piece;
  }

  Buffer buffers_[2];
  int current_ = 0;
};

}  // namespace detail

inline void upload(std::byte* to, const std::byte* host, std::size_t bytes) {
  if (bytes > 0) detail::Staging::instance().upload(to, host, bytes);
}
/// Waits for everything that was put on the stream before.
inline void download(std::byte* host, const std::byte* from, std::size_t bytes) {
  if (bytes > 0) detail::Staging::instance().download(host, from, bytes);
}

}  // namespace cuda
}  // namespace espalier
