// SPDX-License-Identifier: Apache-2.0
// Seeded normal weights, written to a checkpoint piece by piece. A value depends on seed, tensor
// and position only: neither threads nor shards change it.
#pragma once

#include <cli/program.hpp>

#include <espalier/core/random.hpp>
#include <espalier/io/checkpoint_writer.hpp>

namespace espalier {

inline constexpr std::int64_t kPieceElements = 1 << 20;

/// Stops cleanly at a tensor's border when the user asks for it.
inline void stop_if_interrupted() {
  if (interrupted()) throw Interrupted("interrupted; nothing was written");
}

/// Calls `value(i)` (float) for each element and appends the results in the declared type.
template <class Value>
void append_elements(io::CheckpointWriter& out, const io::TensorSpec& spec, Value&& value) {
  const DType dtype = io::supported_dtype(spec, "weights");
  const std::int64_t total = static_cast<std::int64_t>(spec.bytes / size_of(dtype));
  AnyTensor piece(Shape{std::min(total, kPieceElements)}, dtype);
  for (std::int64_t first = 0; first < total; first += kPieceElements) {
    const std::int64_t n = std::min(kPieceElements, total - first);
    visit_dtype<float, double, bf16, f16>("weights", dtype, [&]<class T>() {
      T* to = reinterpret_cast<T*>(piece.bytes());
      parallel_for(n, 4096, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) to[i] = static_cast<T>(value(first + i));
      });
    });
    out.append(spec.name, piece.bytes(), static_cast<std::size_t>(n) * size_of(dtype));
  }
}

/// Normal with mean 0; `stream` is the tensor's number in its checkpoint.
inline void append_normal(io::CheckpointWriter& out, const io::TensorSpec& spec, std::uint64_t seed,
                          std::uint64_t stream, float deviation) {
  const Philox philox(seed, stream);
  append_elements(out, spec, [&](std::int64_t i) {
    return deviation * philox.normal(static_cast<std::uint64_t>(i));
  });
}

}  // namespace espalier
