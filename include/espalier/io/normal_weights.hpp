// SPDX-License-Identifier: Apache-2.0
// Seeded normal weights, written to a checkpoint piece by piece. A value depends on seed, tensor
// and position only: neither threads nor shards change it.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/normal_weights.hpp is host-only; include it from a .cpp"
#endif

#include <array>
#include <cmath>

#include <espalier/core/random.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/io/checkpoint_writer.hpp>

namespace espalier::io {

inline constexpr std::int64_t kPieceElements = 1 << 20;  // a multiple of 4

/// Four standard normal values from the four words of one block (Box-Muller).
inline std::array<float, 4> four_normals(const Philox& philox, std::uint64_t block) {
  const std::array<std::uint32_t, 4> words = philox.block(block);
  std::array<float, 4> z;
  for (std::size_t i = 0; i < 4; i += 2) {
    const float u = (static_cast<float>(words[i]) + 1.0f) * 0x1p-32f;  // (0, 1]
    const float radius = std::sqrt(-2.0f * std::log(u));
    const float angle = static_cast<float>(words[i + 1]) * (0x1p-32f * 6.2831853f);
    z[i] = radius * std::cos(angle);
    z[i + 1] = radius * std::sin(angle);
  }
  return z;
}

/// Calls `value(i, z)` (float) for each element with its normal number `z`, and appends the results
/// in the declared type.
template <class Value>
void append_elements(CheckpointWriter& out, const TensorSpec& spec, const Philox& philox,
                     Value&& value) {
  const DType dtype = supported_dtype(spec, "weights");
  const std::int64_t total = static_cast<std::int64_t>(spec.bytes / size_of(dtype));
  AnyTensor piece(Shape{std::min(total, kPieceElements)}, dtype);
  for (std::int64_t first = 0; first < total; first += kPieceElements) {
    const std::int64_t n = std::min(kPieceElements, total - first);
    visit_dtype<float, double, bf16, f16>("weights", dtype, [&]<class T>() {
      T* to = reinterpret_cast<T*>(piece.bytes());
      parallel_for((n + 3) / 4, 1024, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t four = begin; four < end; ++four) {
          const auto z = four_normals(philox, static_cast<std::uint64_t>(first / 4 + four));
          for (std::int64_t i = 4 * four; i < std::min(n, 4 * four + 4); ++i) {
            to[i] = static_cast<T>(value(first + i, z[static_cast<std::size_t>(i % 4)]));
          }
        }
      });
    });
    out.append(spec.name, piece.bytes(), static_cast<std::size_t>(n) * size_of(dtype));
  }
}

/// Normal with mean 0; `stream` is the tensor's number in its checkpoint.
inline void append_normal(CheckpointWriter& out, const TensorSpec& spec, std::uint64_t seed,
                          std::uint64_t stream, float deviation) {
  append_elements(out, spec, Philox(seed, stream),
                  [&](std::int64_t, float z) { return deviation * z; });
}

}  // namespace espalier::io
