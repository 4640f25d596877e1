// SPDX-License-Identifier: Apache-2.0
// Root-mean-square normalisation with a learned gain.
#pragma once

#include <string>

#include <espalier/nn/parameter.hpp>
#include <espalier/ops/rms_norm.hpp>

namespace espalier {

template <FloatElement T, Device D = Cpu>
class RmsNorm {
 public:
  RmsNorm() = default;
  RmsNorm(std::string name, AnyVar weight, float eps)
      : name_(std::move(name)), weight_(std::move(weight)), eps_(eps) {}

  /// True if there is a weight.
  explicit operator bool() const { return static_cast<bool>(weight_); }

  Var<T, D> operator()(const Var<T, D>& x) const { return rms_norm(x, weight_, eps_); }
  void collect(std::vector<NamedParameter>& out, Listed listed = Listed::trained) const {
    collect_tensor(out, listed, name_ + ".weight", weight_);
  }

 private:
  std::string name_;
  AnyVar weight_;
  float eps_ = 1e-5f;
};

}  // namespace espalier
