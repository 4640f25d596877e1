// SPDX-License-Identifier: Apache-2.0
// Finds values that were written between forward and backward, which would give a wrong gradient
// without a word:
//   const CheckSaved check;
//   const auto y = mul(w, w);  w.value()[0] = 100;  backward(y);  // throws Error, names mul
// Off by default: `data()` is writable from any handle, so a write leaves no trace that a counter
// could compare. While a CheckSaved lives, each op takes a checksum of every byte that it saves on
// the host, and backward compares. Not seen: values on a device, and what the function of a
// recompute() captures, which is read anew by design.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include <espalier/core/inline.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier {

namespace detail {

inline constinit thread_local bool check_saved = false;

/// Four sums side by side, so that memory is the bound; any changed bit changes the result.
inline std::uint64_t checksum(const std::byte* bytes, std::size_t size) {
  constexpr std::uint64_t kPrime = 0x9e3779b97f4a7c15u;  // odd: a step loses nothing
  std::uint64_t sums[4] = {1, 2, 3, 4};
  for (std::size_t at = 0; at < size; at += 32) {
    std::uint64_t words[4] = {};
    std::memcpy(words, bytes + at, size - at < 32 ? size - at : 32);
    for (int i = 0; i < 4; ++i) sums[i] = (sums[i] ^ words[i]) * kPrime;
  }
  std::uint64_t all = 0;
  for (const std::uint64_t sum : sums) all = (all ^ (sum ^ sum >> 32)) * kPrime;
  return all;
}

/// Of each tensor; nothing without a CheckSaved.
ESP_ON_DEMAND inline std::vector<std::uint64_t> checksums(const std::vector<AnyTensor>& saved) {
  std::vector<std::uint64_t> sums;
  if (!check_saved) return sums;
  for (const AnyTensor& t : saved) {
    sums.push_back(t && t.memory().on_host ? checksum(t.bytes(), t.size_bytes()) : 0);
  }
  return sums;
}

/// @throws Error naming the first tensor of `saved` that differs from when `sums` were taken.
ESP_ON_DEMAND inline void check_unchanged(const char* op, const std::vector<AnyTensor>& saved,
                                          const std::vector<std::uint64_t>& sums) {
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const AnyTensor& t = saved[i];
    const bool same = !t || !t.memory().on_host || checksum(t.bytes(), t.size_bytes()) == sums[i];
    ESP_REQUIRE(same, Error, op, " backward: saved tensor ", i, ", ", name(t.dtype()), t.shape(),
                ", was written after forward, so the gradient would be wrong; write to a clone(), "
                "or after backward");
  }
}

}  // namespace detail

/// While it lives, ops of this thread check what they save (see the head of this file). Costs a
/// pass over the saved bytes in forward and one in backward.
class CheckSaved {
 public:
  CheckSaved() : before_(std::exchange(detail::check_saved, true)) {}
  ~CheckSaved() { detail::check_saved = before_; }
  CheckSaved(const CheckSaved&) = delete;
  CheckSaved& operator=(const CheckSaved&) = delete;

 private:
  bool before_;
};

}  // namespace espalier
