// SPDX-License-Identifier: Apache-2.0
// The two sequences that forward.safetensors of tests/golden/families records, packed.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include <espalier/io/safetensors.hpp>
#include <espalier/nn/context.hpp>

namespace espalier::test {

struct FamilyBatch {
  PackedTokens tokens;
  Tensor<std::int32_t> targets;  // label i is predicted at i - 1
  std::int64_t target_count = 0;

  explicit FamilyBatch(const std::string& path) {
    const io::SafetensorsFile file(path);
    std::vector<std::int32_t> all;
    tokens.segments = {0};
    for (const char* s : {"0", "1"}) {
      const Tensor<std::int64_t> ids(file.tensor(std::string("ids.") + s)),
          labels(file.tensor(std::string("labels.") + s));
      for (const std::int64_t id : ids.span()) tokens.ids.push_back(static_cast<std::int32_t>(id));
      tokens.segments.push_back(tokens.tokens());
      for (std::int64_t i = 1; i <= labels.numel(); ++i) {
        const std::int64_t label = i < labels.numel() ? labels[i] : -1;
        all.push_back(static_cast<std::int32_t>(std::max<std::int64_t>(label, -1)));
        target_count += label >= 0;
      }
    }
    targets = Tensor<std::int32_t>(Shape{tokens.tokens()}, all);
  }
};

}  // namespace espalier::test
