// SPDX-License-Identifier: Apache-2.0
// From the experts of each token to the rows each expert works on.
//   chosen [N, K]   offsets [E + 1]   row_of_slot [N * K]   slot_of_row [N * K], slot = token * K +
//   k
// Rows of expert e are offsets[e] .. offsets[e + 1] - 1, ordered by (token, k): the same bits in
// every run, for integers only are counted. Tokens are cut into chunks; `counts` [chunks, E] says
// how many slots of a chunk went to each expert, and router_top_k_forward can fill it while it
// routes: then logits, row maps and permuted rows are three launches, and the host learns no size.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

inline constexpr int kMaxExperts = 512;

/// Tokens of one chunk: few at first, then as many as keep the chunks at 256.
constexpr std::int64_t tokens_per_chunk(std::int64_t n) {
  return (n + 255) / 256 < 32 ? 32 : (n + 255) / 256;
}
constexpr std::int64_t route_chunks(std::int64_t n) {
  return n == 0 ? 1 : (n + tokens_per_chunk(n) - 1) / tokens_per_chunk(n);
}

/// What `counts` needs.
constexpr std::size_t route_counts_workspace_bytes(std::int64_t n, int e) {
  return static_cast<std::size_t>(route_chunks(n)) * static_cast<std::size_t>(e) * 4;
}

/// Least traffic of make_routing; each chunk reads the counts again, from the L2 cache.
constexpr double make_routing_bytes(std::int64_t n, int e, int k) {
  return 4.0 * (3.0 * double(n) * k + e + 1) + double(route_counts_workspace_bytes(n, e));
}

/// counts [chunks, E] of `chosen`; an expert outside 0..E-1 is not counted.
template <class Index>
cudaError_t count_routes(Index* counts, const Index* chosen, std::int64_t n, int e, int k,
                         cudaStream_t stream);

/// offsets and both row maps from `chosen` and its `counts`. A slot whose expert is outside 0..E-1
/// is dropped: row_of_slot is -1, and offsets[E] is less than N * K; entries of slot_of_row from
/// there on are not written.
template <class Index>
cudaError_t make_routing(Index* offsets, Index* row_of_slot, Index* slot_of_row,
                         const Index* chosen, const Index* counts, std::int64_t n, int e, int k,
                         cudaStream_t stream);

}  // namespace espalier::kernels
