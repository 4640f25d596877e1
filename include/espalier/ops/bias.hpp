// SPDX-License-Identifier: Apache-2.0
// y = x + b per row, for one bias or for one bias per group of rows (the experts of a mixture).
//   x, y [R, out]   b_g [out]   group g = rows [offsets[g], offsets[g+1])
// Biases are stored in any float type; on the CPU each is widened to acc_t (an f64 one beside
// narrower activations is rounded to it), and y is rounded to T once. dx = dy. The gradient of b_g
// is the sum of its group's rows in acc_t, row by row in order, rounded once to the type of b_g;
// zeros where the group is empty. Saves nothing but types.
#pragma once

#include <vector>

#include <espalier/autograd/var.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/map.hpp>
#include <espalier/ops/group_offsets.hpp>

namespace espalier {

struct AddBias {
  static constexpr const char* kName = "add_bias";
  static constexpr std::int64_t kColumns = 128;  // of a task of backward

  std::vector<std::int64_t> offsets;  // G + 1; empty where a device keeps them
  std::size_t device_groups = 0;      // groups of device_offsets; without offsets: one group
  AnyTensor device_offsets;

  // Inputs: x, b_0..b_G-1.
  std::size_t groups() const { return offsets.empty() ? device_groups : offsets.size() - 1; }

  template <FloatElement T, Device D = Cpu>
  Tensor<T, D> forward(Saved& saved, const AnyTensors& in) const {
    ESP_CPU_ONLY(D, add_bias, AddBias, bias.hpp);
    using A = acc_t<T>;
    check(in);
    check_offsets(in[0].shape(0));
    const Tensor<T, D> x(in[0]);
    const std::int64_t out = x.shape(1);
    std::vector<Tensor<A, D>> biases(groups());
    for (std::size_t g = 0; g < groups(); ++g) {
      if (offsets[g] == offsets[g + 1]) continue;
      const AnyTensor& b = in[1 + g];
      biases[g] = b.dtype() == dtype_of<A>::value ? Tensor<A, D>(b) : converted<A>(b);
    }
    Tensor<T, D> y(x.shape());
    parallel_for(x.shape(0), rows_per_task(out), [&](std::int64_t begin, std::int64_t end) {
      simd::dispatch([&]<int W>() {
        std::size_t g = 0;
        for (std::int64_t r = begin; r < end; ++r) {
          while (offsets[g + 1] <= r) ++g;
          cpu::map_row<W>(
              out, [](const auto& u, const auto& v) ESP_SIMD_LAMBDA { return u + v; },
              y.data() + r * out, x.data() + r * out, biases[g].data());
        }
      });
    });
    saved.tensors = types(in);
    return y;
  }

  template <FloatElement T, Device D = Cpu>
  AnyTensors backward(const Saved& saved, const Tensor<T, D>& dy) const {
    using A = acc_t<T>;
    const std::int64_t out = dy.shape(1), blocks = (out + kColumns - 1) / kColumns;
    AnyTensors grads(saved.needs.size());
    grads[0] = dy;
    std::vector<std::size_t> wanted;
    std::vector<Tensor<A, D>> sums;
    for (std::size_t g = 0; g < groups(); ++g) {
      if (!saved.needs[1 + g]) continue;
      wanted.push_back(g);
      sums.push_back(Tensor<A, D>(Shape{out}, A{0}));
    }
    parallel_for(
        static_cast<std::int64_t>(wanted.size()) * blocks, 1, [&](std::int64_t task, std::int64_t) {
          const auto i = static_cast<std::size_t>(task / blocks);
          const std::size_t g = wanted[i];
          const std::int64_t first = task % blocks * kColumns;
          add_rows(dy.data() + first, out, offsets[g], offsets[g + 1],
                   out - first < kColumns ? out - first : kColumns, sums[i].data() + first);
        });
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      grads[1 + wanted[i]] = in_type(sums[i], saved.tensors[wanted[i]].dtype());
    }
    return grads;
  }

  /// @throws ShapeError when a bias does not fit x.
  void check(const AnyTensors& in) const {
    const Shape& x = in[0].shape();
    ESP_REQUIRE(x.rank() == 2, ShapeError, kName, ": x is ", x, ", expected [rows, out]");
    for (std::size_t g = 0; g < groups(); ++g) {
      ESP_REQUIRE(in[1 + g].shape() == Shape{x[1]}, ShapeError, kName, ": bias ", g, " is ",
                  in[1 + g].shape(), ", x is ", x, "; expected [", x[1], "]");
    }
  }
  /// Shapes and types of the biases, for backward; no memory.
  static AnyTensors types(const AnyTensors& in) {
    AnyTensors list;
    for (std::size_t i = 1; i < in.size(); ++i) {
      list.push_back(only_shape(in[i]));
    }
    return list;
  }

 private:
  void check_offsets(std::int64_t rows) const {
    ESP_REQUIRE(offsets.front() == 0 && offsets.back() == rows, ShapeError, kName,
                ": offsets end at ", offsets.back(), ", x has ", rows, " rows");
    for (std::size_t g = 0; g < groups(); ++g) {
      ESP_REQUIRE(offsets[g] <= offsets[g + 1], ShapeError, kName, ": offsets fall from ",
                  offsets[g], " to ", offsets[g + 1], " at group ", g);
    }
  }

  template <FloatElement T>
  static void add_rows(const T* dy, std::int64_t stride, std::int64_t begin, std::int64_t end,
                       std::int64_t columns, acc_t<T>* sum) {
    simd::dispatch([=]<int W>() {
      using V = simd::Native<T, W>;
      for (std::int64_t r = begin; r < end; ++r) {
        simd::for_each_vector<V>(0, columns, [=](std::int64_t c, auto lanes) ESP_SIMD_LAMBDA {
          (V::load(sum + c, lanes) + V::load(dy + r * stride + c, lanes)).store(sum + c, lanes);
        });
      }
    });
  }

  template <std::floating_point A, Device D>
  static AnyTensor in_type(const Tensor<A, D>& sum, DType type) {
    if (sum.dtype() == type) return sum;
    AnyTensor rounded;
    visit_dtype<float, double, bf16, f16>(kName, type,
                                          [&]<class P>() { rounded = converted<P>(sum); });
    return rounded;
  }
};

/// y[r] = x[r] + biases[group of r].
/// @throws ShapeError when a bias or the offsets do not fit x.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> add_bias(const Var<T, D>& x, const std::vector<AnyVar>& biases,
                                 const GroupOffsets<D>& offsets) {
  AddBias op;
  if constexpr (D::is_cuda) {
    ESP_REQUIRE(offsets || biases.size() == 1, ShapeError, "add_bias: no offsets for ",
                biases.size(), " biases");
    op.device_offsets = offsets;
    op.device_groups = biases.size();
  } else {
    ESP_REQUIRE(!biases.empty() && offsets.size() == biases.size() + 1, ShapeError,
                "add_bias: ", offsets.size(), " offsets for ", biases.size(), " biases, expected ",
                biases.size() + 1);
    op.offsets = offsets;
  }
  std::vector<AnyVar> inputs = {x};
  for (const AnyVar& b : biases) inputs.push_back(b);
  return apply_list<T, D>(op, inputs);
}

/// y = x + bias, for every row.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> add_bias(const Var<T, D>& x, const AnyVar& bias) {
  return add_bias(x, std::vector<AnyVar>{bias},
                  one_group<D>(x.shape().rank() > 0 ? x.shape(0) : 0));
}

}  // namespace espalier
