// SPDX-License-Identifier: Apache-2.0
// Token embedding: a table [V, H]. A model with tied embeddings uses it as the output head too.
#pragma once

#include <string>

#include <espalier/nn/parameter.hpp>
#include <espalier/ops/embedding.hpp>

namespace espalier {

template <FloatElement T, Device D = Cpu>
class TokenEmbedding {
 public:
  TokenEmbedding() = default;
  TokenEmbedding(std::string name, AnyVar table)
      : name_(std::move(name)), table_(std::move(table)) {}

  Var<T, D> operator()(const std::vector<std::int32_t>& ids) const {
    return embedding<T, D>(Tensor<std::int32_t>(Shape{static_cast<std::int64_t>(ids.size())}, ids),
                           table_);
  }
  const AnyVar& table() const { return table_; }
  void collect(std::vector<NamedParameter>& out, Listed listed = Listed::trained) const {
    collect_tensor(out, listed, name_ + ".weight", table_);
  }

 private:
  std::string name_;
  AnyVar table_;
};

}  // namespace espalier
