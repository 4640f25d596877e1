// SPDX-License-Identifier: Apache-2.0
// Gradients of the weights of linear layers, dW [n, m] = alpha · leftᵀ right over the rows of two
// activations of type T: summed in acc_t and rounded once to the type of the parameter.
#pragma once

#include <utility>
#include <vector>

#include <espalier/ops/cpu/gemm.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier::cpu {

template <FloatElement T>
class ParameterGradients {
 public:
  /// left [rows, n], right [rows, m]. `grad` must stay where it is until compute(), which fills it.
  void add(const AnyTensor& parameter, std::int64_t rows, MatrixView left, const MatrixView& right,
           double alpha, AnyTensor& grad) {
    left.transposed = true;
    const auto product = [&]<class C>(std::vector<GemmProblem<C>>& problems) {
      const Tensor<C> d(parameter.shape());
      problems.push_back({d.shape(0), d.shape(1), rows, left, right, d.data(), d.shape(1),
                          static_cast<acc_t<C>>(alpha)});
      grad = d;
    };
    if (!std::same_as<T, double> && parameter.dtype() == DType::bf16) {
      product(narrow_);
      return;
    }
    product(wide_);
    if (parameter.dtype() != grad.dtype()) others_.push_back({&grad, parameter.dtype()});
  }

  void compute() {
    gemm_batch<acc_t<T>>(wide_);
    gemm_batch<bf16>(narrow_);
    for (const auto& other : others_) {
      AnyTensor& grad = *other.grad;
      visit_dtype<float, double, bf16, f16>(
          "linear", other.dtype, [&]<class P>() { grad = converted<P>(AnyTensor(grad)); });
    }
  }

 private:
  std::vector<GemmProblem<acc_t<T>>> wide_;
  std::vector<GemmProblem<bf16>> narrow_;
  struct Other {
    AnyTensor* grad;
    DType dtype;
  };
  std::vector<Other> others_;  // of other types: f16, f32 beside double
};

}  // namespace espalier::cpu
