// SPDX-License-Identifier: Apache-2.0
// y = a b, or a b + c, on the last two axes; axes before them are a batch and must be equal.
//   a [..., M, K]   b [..., K, N]   y, c [..., M, N]; a or b may lie in memory as its transpose.
// All products of a batch go through one call of the GEMM, which reads either layout: gradients are
// products too, and nothing is copied but c. Accumulated in acc_t, rounded to T once.
#pragma once

#include <vector>

#include <espalier/autograd/var.hpp>
#include <espalier/ops/cpu/gemm.hpp>

namespace espalier {

struct MatmulOptions {
  bool transpose_a = false;  // a is [..., K, M]
  bool transpose_b = false;  // b is [..., N, K]
};

struct Matmul {
  static constexpr const char* kName = "matmul";
  MatmulOptions options;

  /// A factor of the products: matrices that lie one after another.
  struct Factor {
    const AnyTensor& value;
    bool transposed;  // the memory holds the transposes
  };

  // Inputs: a, b, [c].
  template <FloatElement T, Device D = Cpu>
  Tensor<T, D> forward(Saved& saved, const AnyTensors& in) const {
    ESP_CPU_ONLY(D, matmul, Matmul, matmul.hpp);
    return forward_by<T, D>(multiply<T>, saved, in);
  }
  template <FloatElement T, Device D = Cpu>
  AnyTensors backward(const Saved& saved, const Tensor<T, D>& dy) const {
    return backward_by(multiply<T>, saved, dy);
  }

  /// Forward on any device: `product(a, b, c, beta)` writes c = a b + beta c for every matrix of
  /// the batch.
  template <FloatElement T, Device D, class Product>
  Tensor<T, D> forward_by(Product product, Saved& saved, const AnyTensors& in) const {
    const Tensor<T, D> a(in[0]), b(in[1]);
    check(a.shape(), b.shape());
    const Shape shape = with_matrix(a.shape(), a.shape(options.transpose_a ? -1 : -2),
                                    b.shape(options.transpose_b ? -2 : -1));
    Tensor<T, D> y;
    if (in.size() == 3) {
      ESP_REQUIRE(in[2].shape() == shape, ShapeError, kName, ": c is ", in[2].shape(),
                  ", expected ", shape);
      y = Tensor<T, D>(in[2]).clone();
    } else {
      y = Tensor<T, D>(shape);
    }
    product({a, options.transpose_a}, {b, options.transpose_b}, y, in.size() == 3 ? 1 : 0);
    saved.tensors = {a, b};
    if (!saved.needs[0]) saved.tensors[1] = AnyTensor();
    if (!saved.needs[1]) saved.tensors[0] = AnyTensor();
    return y;
  }

  // With A and B the factors as they are multiplied: dA = dy Bᵀ, dB = Aᵀ dy, and where the memory
  // holds the transpose, that of both sides.
  template <FloatElement T, Device D, class Product>
  AnyTensors backward_by(Product product, const Saved& saved, const Tensor<T, D>& dy) const {
    AnyTensors grads(saved.needs.size());
    const bool ta = options.transpose_a, tb = options.transpose_b;
    const auto a = saved.get<T, D>(0), b = saved.get<T, D>(1);
    const std::int64_t m = dy.shape(-2), n = dy.shape(-1);
    if (saved.needs[0]) {
      const std::int64_t k = b.shape(tb ? -1 : -2);
      const Tensor<T, D> da(ta ? with_matrix(dy.shape(), k, m) : with_matrix(dy.shape(), m, k));
      if (ta) {
        product({b, tb}, {dy, true}, da, 0);
      } else {
        product({dy, false}, {b, !tb}, da, 0);
      }
      grads[0] = da;
    }
    if (saved.needs[1]) {
      const std::int64_t k = a.shape(ta ? -2 : -1);
      const Tensor<T, D> db(tb ? with_matrix(dy.shape(), n, k) : with_matrix(dy.shape(), k, n));
      if (tb) {
        product({dy, true}, {a, ta}, db, 0);
      } else {
        product({a, !ta}, {dy, false}, db, 0);
      }
      grads[1] = db;
    }
    if (grads.size() == 3) grads[2] = dy;
    return grads;
  }

 private:
  /// Matrix i of a factor.
  static cpu::MatrixView matrix(const Factor& f, std::int64_t i) {
    const AnyTensor& v = f.value;
    const auto bytes = static_cast<std::int64_t>(size_of(v.dtype()));
    return {v.bytes() + i * v.shape(-2) * v.shape(-1) * bytes, v.dtype(), v.shape(-1),
            f.transposed};
  }

  /// The products on the CPU.
  template <FloatElement T>
  static void multiply(const Factor& a, const Factor& b, const Tensor<T>& c, int beta) {
    const std::int64_t m = c.shape(-2), n = c.shape(-1), k = a.value.shape(a.transposed ? -2 : -1);
    std::vector<cpu::GemmProblem<T>> problems;
    const std::int64_t batch = m * n == 0 ? 0 : c.numel() / (m * n);
    for (std::int64_t i = 0; i < batch; ++i) {
      problems.push_back({m, n, k, matrix(a, i), matrix(b, i), c.data() + i * m * n, n, acc_t<T>{1},
                          static_cast<acc_t<T>>(beta)});
    }
    cpu::gemm_batch<T>(problems);
  }

  /// `shape` with other last two extents.
  static Shape with_matrix(const Shape& shape, std::int64_t rows, std::int64_t cols) {
    Shape out;
    for (int i = 0; i + 2 < shape.rank(); ++i) out.append(shape[i]);
    out.append(rows);
    out.append(cols);
    return out;
  }

  void check(const Shape& a, const Shape& b) const {
    const bool fit = a.rank() >= 2 && a.rank() == b.rank() &&
                     std::equal(a.begin(), a.end() - 2, b.begin()) &&
                     a[options.transpose_a ? -2 : -1] == b[options.transpose_b ? -1 : -2];
    ESP_REQUIRE(fit, ShapeError, kName, ": a is ", a, options.transpose_a ? " transposed" : "",
                ", b is ", b, options.transpose_b ? " transposed" : "",
                "; expected [..., M, K] and [..., K, N]");
  }
};

/// y = a b: `matmul(q, k, {.transpose_b = true})`.
/// @throws ShapeError when a and b do not fit.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> matmul(const Var<T, D>& a, const Var<T, D>& b, MatmulOptions options = {}) {
  return apply_list<T, D>(Matmul{options}, {a, b});
}

/// y = a b + c, with c of the shape of y.
/// @throws ShapeError when a, b and c do not fit.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> matmul_add(const Var<T, D>& a, const Var<T, D>& b, const Var<T, D>& c,
                                   MatmulOptions options = {}) {
  return apply_list<T, D>(Matmul{options}, {a, b, c});
}

}  // namespace espalier
