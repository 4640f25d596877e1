// SPDX-License-Identifier: Apache-2.0
// The type of a function from text to token ids, for readers of data and tasks, which are tested
// without a tokenizer. encoder_of (tokenizer.hpp) makes one.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/encode.hpp is host-only; include it from a .cpp"
#endif

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

namespace espalier::text {

/// Ids of a text, with or without the tokenizer's special tokens.
using Encode = std::function<std::vector<std::int32_t>(std::string_view text, bool add_special)>;

}  // namespace espalier::text
