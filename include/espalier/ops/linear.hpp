// SPDX-License-Identifier: Apache-2.0
// y = x Wᵀ, for one weight or for one weight per group of rows (the experts of a mixture), each
// with an optional low-rank update  y += scale · (x' Aᵀ) Bᵀ  (LoRA, Hu et al. 2021,
// arXiv:2106.09685, eq. 3).
//   x [R, in]   W_g [out, in]   A_g [r, in]   B_g [out, r]   y [R, out]   group g = rows
//   [offsets[g], offsets[g+1])
// x' is x, or x after dropout. B·A is never formed. Sums are acc_t. Weights are stored in any float
// type: bf16 beside bf16 activations is multiplied as it is, everything else is widened in the
// GEMM. A and B of f32 beside bf16 activations are rounded to bf16 for the products, and x' Aᵀ and
// its gradient are bf16, as torch's autocast does. The gradients of y's terms are summed in acc_t
// and rounded once each to the type of x or of their parameter. A group may be empty: its gradients
// are zero.
#pragma once

#include <vector>

#include <espalier/autograd/var.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/gemm.hpp>
#include <espalier/ops/cpu/map.hpp>
#include <espalier/ops/cpu/parameter_gradients.hpp>
#include <espalier/ops/group_offsets.hpp>

namespace espalier {

/// The trained part of a LoRA layer: delta W = scale · b · a.
struct LoraPair {
  AnyVar a;  // [r, in]
  AnyVar b;  // [out, r]
};

struct LinearOp {
  static constexpr const char* kName = "linear";

  std::vector<std::int64_t> offsets;  // G + 1; empty where a device keeps them
  bool lora = false;
  bool lora_input = false;  // the LoRA branch has an input of its own, after dropout
  double scale = 1;
  std::size_t device_groups = 0;  // groups of device_offsets; without offsets: one group
  AnyTensor device_offsets;

  // Inputs: x, [x'], W_0..W_G-1, [A_0.., B_0..].
  std::size_t groups() const { return offsets.empty() ? device_groups : offsets.size() - 1; }
  std::size_t first_weight() const { return lora_input ? 2 : 1; }
  std::size_t first_a() const { return first_weight() + groups(); }
  std::size_t first_b() const { return first_a() + groups(); }
  std::int64_t rows(std::size_t g) const { return offsets[g + 1] - offsets[g]; }

  template <FloatElement T, Device D = Cpu>
  Tensor<T, D> forward(Saved& saved, const AnyTensors& in) const {
    ESP_CPU_ONLY(D, linear, LinearOp, linear.hpp);
    check(in);
    const Tensor<T, D> x(in[0]);
    const std::int64_t width = x.shape(1), out = in[first_weight()].shape(0);
    Tensor<T, D> y(Shape{x.shape(0), out});
    Problems<T> base;
    for (std::size_t g = 0; g < groups(); ++g) {
      base.push_back({rows(g), out, width, of_rows(x, g), weight(in[first_weight() + g], true),
                      y.data() + offsets[g] * out, out});
    }
    cpu::gemm_batch<T>(base);
    saved.tensors = in;
    bool keep_input = false;
    for (std::size_t i = first_weight(); i < saved.needs.size(); ++i) {
      keep_input = keep_input || saved.needs[i];
    }
    if (!keep_input) saved.tensors[0] = AnyTensor();
    if (lora) {
      const Tensor<T, D> lora_x(in[lora_input ? 1 : 0]);
      const std::int64_t rank = in[first_a()].shape(0);
      const Tensor<T, D> t(Shape{x.shape(0), rank});  // x' Aᵀ
      const auto factors = lora_factors<T>(in);
      Problems<T> down, up;
      for (std::size_t g = 0; g < groups(); ++g) {
        T* tg = t.data() + offsets[g] * rank;
        down.push_back(
            {rows(g), rank, width, of_rows(lora_x, g), weight(factors[g].a, true), tg, rank});
        up.push_back({rows(g), out, rank, of_rows(t, g), weight(factors[g].b, true),
                      y.data() + offsets[g] * out, out, static_cast<acc_t<T>>(scale), 1});
      }
      cpu::gemm_batch<T>(down);
      cpu::gemm_batch<T>(up);
      saved.tensors.push_back(t);
    }
    return y;
  }

  template <FloatElement T, Device D = Cpu>
  AnyTensors backward(const Saved& saved, const Tensor<T, D>& dy) const {
    AnyTensors grads(saved.needs.size());
    const auto& in = saved.tensors;
    const std::int64_t out = dy.shape(1), width = in[first_weight()].shape(1);
    Tensor<T, D> dx, dlora_x;
    if (saved.needs[0]) {
      dx = Tensor<T, D>(Shape{dy.shape(0), width});
      Problems<T> work;
      for (std::size_t g = 0; g < groups(); ++g) {
        work.push_back({rows(g), width, out, of_rows(dy, g), weight(in[first_weight() + g], false),
                        dx.data() + offsets[g] * width, width});
      }
      cpu::gemm_batch<T>(work);
      grads[0] = dx;
    }
    cpu::ParameterGradients<T> dw;
    for (std::size_t g = 0; g < groups(); ++g) {
      if (!saved.needs[first_weight() + g]) continue;
      dw.add(in[first_weight() + g], rows(g), of_rows(dy, g), of_rows(Tensor<T, D>(in[0]), g), 1,
             grads[first_weight() + g]);
    }
    dw.compute();
    if (lora) lora_backward(saved, dy, dx, grads);
    return grads;
  }

 private:
  template <FloatElement T>
  using Problems = std::vector<cpu::GemmProblem<T>>;

  struct Factors {
    AnyTensor a, b;
  };
  /// A and B in the type of the products.
  template <FloatElement T>
  std::vector<Factors> lora_factors(const AnyTensors& in) const {
    std::vector<Factors> factors(groups());
    for (std::size_t g = 0; g < groups(); ++g) factors[g] = {in[first_a() + g], in[first_b() + g]};
    if constexpr (std::same_as<T, bf16>) {
      parallel_for(static_cast<std::int64_t>(groups()), 1,
                   [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t g = begin; g < end; ++g) {
                       for (AnyTensor* factor : {&factors[g].a, &factors[g].b}) {
                         if (factor->dtype() != DType::f32) continue;
                         const Tensor<float> from(*factor);
                         const Tensor<bf16> to(from.shape());
                         cpu::map(from.numel(), cpu::Identity{}, to.data(), from.data());
                         *factor = to;
                       }
                     }
                   });
    }
    return factors;
  }

  template <FloatElement T, Device D>
  cpu::MatrixView of_rows(const Tensor<T, D>& x, std::size_t g) const {
    return {x.data() + offsets[g] * x.shape(1), x.dtype(), x.shape(1)};
  }
  static cpu::MatrixView weight(const AnyTensor& w, bool transposed) {
    return {w.bytes(), w.dtype(), w.shape(1), transposed};
  }

  // dt = scale · dy B;  dB = scale · dyᵀ t;  dA = dtᵀ x';  dx' = dt A (added to dx where x' is x).
  template <FloatElement T, Device D>
  void lora_backward(const Saved& saved, const Tensor<T, D>& dy, const Tensor<T, D>& dx,
                     AnyTensors& grads) const {
    const auto& in = saved.tensors;
    const std::size_t input = lora_input ? 1 : 0;
    const Tensor<T, D> t(in.back());
    const std::int64_t out = dy.shape(1), rank = t.shape(1), width = in[first_a()].shape(1);
    const Tensor<T, D> dt(t.shape());
    Tensor<T, D> dlora_x = dx;
    if (lora_input && saved.needs[1]) {
      dlora_x = Tensor<T, D>(Shape{dy.shape(0), width});
      grads[1] = dlora_x;
    }
    const auto factors = lora_factors<T>(in);
    Problems<T> for_dt, for_dx;
    cpu::ParameterGradients<T> parameters;
    for (std::size_t g = 0; g < groups(); ++g) {
      for_dt.push_back({rows(g), rank, out, of_rows(dy, g), weight(factors[g].b, false),
                        dt.data() + offsets[g] * rank, rank, static_cast<acc_t<T>>(scale)});
      if (saved.needs[first_b() + g]) {
        parameters.add(in[first_b() + g], rows(g), of_rows(dy, g), of_rows(t, g), scale,
                       grads[first_b() + g]);
      }
      if (saved.needs[first_a() + g]) {
        parameters.add(in[first_a() + g], rows(g), of_rows(dt, g),
                       of_rows(Tensor<T, D>(in[input]), g), 1, grads[first_a() + g]);
      }
      if (saved.needs[input]) {
        for_dx.push_back({rows(g), width, rank, of_rows(dt, g), weight(factors[g].a, false),
                          dlora_x.data() + offsets[g] * width, width, 1,
                          acc_t<T>(lora_input ? 0 : 1)});
      }
    }
    cpu::gemm_batch<T>(for_dt);
    parameters.compute();
    cpu::gemm_batch<T>(for_dx);
  }

  ESP_INLINE void check(const AnyTensors& in) const {
    const Shape& x = in[0].shape();
    ESP_REQUIRE(x.rank() == 2, ShapeError, kName, ": x is ", x, ", expected [rows, in]");
    ESP_REQUIRE(offsets.front() == 0 && offsets.back() == x[0], ShapeError, kName,
                ": offsets end at ", offsets.back(), ", x has ", x[0], " rows");
    for (std::size_t g = 0; g < groups(); ++g) {
      ESP_REQUIRE(rows(g) >= 0, ShapeError, kName, ": offsets fall from ", offsets[g], " to ",
                  offsets[g + 1], " at group ", g);
      const Shape& w = in[first_weight() + g].shape();
      ESP_REQUIRE(w.rank() == 2 && w[1] == x[1] && w[0] == in[first_weight()].shape(0), ShapeError,
                  kName, ": weight ", g, " is ", w, ", x is ", x, "; expected [out, ", x[1], "]");
      if (!lora) continue;
      const Shape& a = in[first_a() + g].shape();
      const Shape& b = in[first_b() + g].shape();
      ESP_REQUIRE(a.rank() == 2 && b.rank() == 2 && a[1] == x[1] && b[0] == w[0] && a[0] == b[1] &&
                      a[0] == in[first_a()].shape(0),
                  ShapeError, kName, ": LoRA pair ", g, " is A ", a, ", B ", b, "; expected A [r, ",
                  x[1], "], B [", w[0], ", r]");
    }
  }
};

/// y = x Wᵀ per group of rows; `pairs` is empty or has a LoRA pair per weight. `lora_x` is the LoRA
/// branch's input, empty for x itself.
/// @throws ShapeError when a weight, a pair or the offsets do not fit x.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> grouped_linear(const Var<T, D>& x, const std::vector<AnyVar>& weights,
                                       GroupOffsets<D> offsets,
                                       const std::vector<LoraPair>& pairs = {}, double scale = 1,
                                       const Var<T, D>& lora_x = {}) {
  LinearOp op;
  if constexpr (D::is_cuda) {
    ESP_REQUIRE(offsets || weights.size() == 1, ShapeError, "linear: no offsets for ",
                weights.size(), " weights");
    op.device_offsets = std::move(offsets);
    op.device_groups = weights.size();
  } else {
    ESP_REQUIRE(!weights.empty() && offsets.size() == weights.size() + 1, ShapeError,
                "linear: ", offsets.size(), " offsets for ", weights.size(), " weights, expected ",
                weights.size() + 1);
    op.offsets = std::move(offsets);
  }
  ESP_REQUIRE(pairs.empty() || pairs.size() == weights.size(), ShapeError, "linear: ", pairs.size(),
              " LoRA pairs for ", weights.size(), " weights");
  op.lora = !pairs.empty();
  op.lora_input = op.lora && static_cast<bool>(lora_x);
  op.scale = scale;
  std::vector<AnyVar> inputs = {x};
  if (op.lora_input) inputs.push_back(lora_x);
  for (const AnyVar& w : weights) inputs.push_back(w);
  for (const LoraPair& p : pairs) inputs.push_back(p.a);
  for (const LoraPair& p : pairs) inputs.push_back(p.b);
  return apply_list<T, D>(op, inputs);
}

/// y = x Wᵀ.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> linear(const Var<T, D>& x, const AnyVar& weight) {
  return grouped_linear(x, {weight}, one_group<D>(x.shape(0)));
}

}  // namespace espalier
