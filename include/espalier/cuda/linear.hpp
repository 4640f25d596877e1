// SPDX-License-Identifier: Apache-2.0
// linear on the device Cuda: one weight through cuBLAS, one per expert through the grouped kernels,
// with the same LoRA branch beside either. LoRA factors are f32; where T is narrower they are
// rounded to T for the products, as autocast does. Gradients of weights and factors are f32.
// ESPALIER_EXPERTS=cublas in the environment, or expert_products(), puts a loop of cuBLAS over the
// experts in the place of the grouped kernels: the reference to check and time them against. The
// host then waits for the offsets in each call.
#pragma once

#include <cstdlib>
#include <string_view>
#include <vector>

#include <espalier/cuda/elementwise.hpp>
#include <espalier/cuda/gemm.hpp>
#include <espalier/cuda/lora.hpp>
#include <espalier/kernels/grouped_gemm.hpp>
#include <espalier/ops/linear.hpp>

namespace espalier::cuda {

enum class ExpertProducts { kernels, cublas_loop };

/// How this process computes products over several experts; may be set.
inline ExpertProducts& expert_products() {
  static ExpertProducts products = [] {
    const char* text = std::getenv("ESPALIER_EXPERTS");
    return text != nullptr && std::string_view(text) == "cublas" ? ExpertProducts::cublas_loop
                                                                 : ExpertProducts::kernels;
  }();
  return products;
}

namespace detail {

/// Products over the groups of a linear layer.
class GroupedProducts {
 public:
  explicit GroupedProducts(const LinearOp& op) : groups_(op.groups()) {
    if (op.device_offsets) offsets_ = Tensor<std::int32_t, Cuda>(op.device_offsets);
  }

  /// c = a b_gᵀ + beta · c, b_g [N, K]; or with `straight` a b_g + beta · c, b_g [K, N].
  template <Element T>
  void rows(const Tensor<T, Cuda>& c, const Tensor<T, Cuda>& a, const AnyTensors& b, bool straight,
            float beta) const {
    const std::int64_t r = a.shape(0), k = a.shape(1), n = c.shape(1);
    if (by_cublas()) {
      each_group(r, [&](std::size_t g, std::int64_t first, std::int64_t count) {
        gemm(count, n, k, {a.data() + first * k, a.dtype(), k},
             {b[g].bytes(), b[g].dtype(), b[g].shape(1), !straight}, c.data() + first * n, n, 1,
             beta);
      });
      return;
    }
    const auto launch = [&]<class B>() {
      const auto pointers = addresses<B>(b);
      auto* const* of = reinterpret_cast<const kernel_t<B>* const*>(pointers.bytes());
      const int g = int(groups_);
      if (straight) {
        ESP_CUDA(kernels::grouped_gemm_rows<kernels::GemmForm::nn>(
            ptr(c), ptr(a), of, ptr(offsets_), g, r, n, k, 1.0f, beta, stream()));
      } else {
        ESP_CUDA(kernels::grouped_gemm_rows<kernels::GemmForm::nt>(
            ptr(c), ptr(a), of, ptr(offsets_), g, r, n, k, 1.0f, beta, stream()));
      }
    };
    if constexpr (std::same_as<T, float>) {
      visit_dtype<float, bf16, f16>("linear on cuda", b[0].dtype(), launch);
    } else if (b[0].dtype() == DType::f32) {  // weights wider than the activations
      const auto sum = beta != 0 ? converted<float>(c) : Tensor<float, Cuda>(c.shape());
      rows(sum, converted<float>(a), b, straight, beta);
      ESP_CUDA(kernels::cast(ptr(c), ptr(sum), c.numel(), stream()));
    } else {
      visit_dtype<T>("linear on cuda", b[0].dtype(), launch);
    }
  }

  /// c_g [M, N] = a_gᵀ b_g over the rows of each group, in f32.
  template <Element A>
  AnyTensors weights(const Tensor<A, Cuda>& a, const Tensor<A, Cuda>& b) const {
    const std::int64_t m = a.shape(1), n = b.shape(1), r = a.shape(0);
    AnyTensors c;
    for (std::size_t g = 0; g < groups_; ++g) c.push_back(Tensor<float, Cuda>(Shape{m, n}));
    if (by_cublas()) {
      each_group(r, [&](std::size_t g, std::int64_t first, std::int64_t count) {
        const Tensor<float, Cuda> of_group(c[g]);
        if (count == 0) {
          fill_zero(of_group.bytes(), of_group.size_bytes());
        } else {
          gemm(m, n, count, {a.data() + first * m, a.dtype(), m, true},
               {b.data() + first * n, b.dtype(), n}, of_group.data(), n);
        }
      });
      return c;
    }
    const auto pointers = addresses<float>(c);
    ESP_CUDA(kernels::grouped_gemm_tn(reinterpret_cast<float* const*>(pointers.bytes()), ptr(a),
                                      ptr(b), ptr(offsets_), int(groups_), m, n, 1.0f, 0.0f,
                                      stream()));
    return c;
  }

 private:
  bool by_cublas() const { return !offsets_ || expert_products() == ExpertProducts::cublas_loop; }
  /// f(group, its first row, its rows) for every group in order.
  template <class F>
  void each_group(std::int64_t rows, F f) const {
    if (!offsets_) return f(std::size_t{0}, std::int64_t{0}, rows);
    const Tensor<std::int32_t> offsets = to<Cpu>(offsets_);
    for (std::size_t g = 0; g < groups_; ++g) {
      const std::int64_t first = offsets[static_cast<std::int64_t>(g)];
      f(g, first, offsets[static_cast<std::int64_t>(g) + 1] - first);
    }
  }

  /// The addresses of the tensors, in device memory.
  template <Element T>
  static Tensor<std::int64_t, Cuda> addresses(const AnyTensors& of) {
    std::vector<std::int64_t> list;
    for (const AnyTensor& t : of) {
      list.push_back(reinterpret_cast<std::int64_t>(Tensor<T, Cuda>(t).bytes()));
    }
    return Tensor<std::int64_t, Cuda>(Shape{static_cast<std::int64_t>(list.size())}, list);
  }

  std::size_t groups_;
  Tensor<std::int32_t, Cuda> offsets_;
};

inline void require_pairs(const LinearOp& op, const AnyTensors& in) {
  if (!op.lora) return;
  const std::int64_t width = in[0].shape(1), out = in[op.first_weight()].shape(0);
  const std::int64_t rank = in[op.first_a()].shape(0);
  for (std::size_t g = 0; g < op.groups(); ++g) {
    const Shape& a = in[op.first_a() + g].shape();
    const Shape& b = in[op.first_b() + g].shape();
    ESP_REQUIRE(a == Shape({rank, width}) && b == Shape({out, rank}), ShapeError, LinearOp::kName,
                ": LoRA pair ", g, " is A ", a, ", B ", b, "; expected A [", rank, ", ", width,
                "], B [", out, ", ", rank, "]");
  }
}

}  // namespace detail

}  // namespace espalier::cuda

namespace espalier {

template <CudaFloat T>
struct Launch<LinearOp, T, Cuda> {
  static Tensor<T, Cuda> forward(const LinearOp& op, Saved& saved, const AnyTensors& in) {
    const Tensor<T, Cuda> x(in[0]);
    const std::size_t groups = op.groups(), first = op.first_weight();
    for (std::size_t g = 0; g < groups; ++g) {
      const Shape& w = in[first + g].shape();
      ESP_REQUIRE(x.shape().rank() == 2 && w.rank() == 2 && w[1] == x.shape(1) &&
                      w[0] == in[first].shape(0),
                  ShapeError, LinearOp::kName, ": weight ", g, " is ", w, ", x is ", x.shape(),
                  "; expected [out, ", x.shape(1), "]");
    }
    cuda::detail::require_pairs(op, in);
    const cuda::detail::GroupedProducts products(op);
    Tensor<T, Cuda> y(Shape{x.shape(0), in[first].shape(0)});
    saved.tensors = in;
    if (op.lora) {
      const cuda::detail::LoraBranch<T> branch(op, in, x.shape(0), false);
      const Tensor<T, Cuda> s = branch.down(Tensor<T, Cuda>(in[op.lora_input ? 1 : 0]));
      branch.up(y, s);
      saved.tensors.push_back(s);
    }
    products.rows(y, x, {in.begin() + first, in.begin() + first + groups}, false,
                  op.lora ? 1.0f : 0.0f);
    return y;
  }
  static AnyTensors backward(const LinearOp& op, const Saved& saved, const Tensor<T, Cuda>& dy) {
    const AnyTensors& in = saved.tensors;
    const std::size_t groups = op.groups(), first = op.first_weight();
    const cuda::detail::GroupedProducts products(op);
    const Tensor<T, Cuda> x(in[0]);
    const auto wanted = [&](std::size_t begin) {
      for (std::size_t g = 0; g < groups; ++g) {
        if (saved.needs[begin + g]) return true;
      }
      return false;
    };
    AnyTensors grads(saved.needs.size());
    const auto put = [&](std::size_t begin, const AnyTensors& found) {
      for (std::size_t g = 0; g < groups; ++g) {
        if (saved.needs[begin + g]) grads[begin + g] = found[g];
      }
    };
    if (wanted(first)) put(first, products.weights(dy, x));
    if (op.lora) {
      const std::size_t input = op.lora_input ? 1 : 0;
      const Tensor<T, Cuda> lora_x(in[input]);
      const cuda::detail::LoraBranch<T> branch(op, in, x.shape(0), true);
      const Tensor<T, Cuda> ds = branch.backward_up(dy, Tensor<T, Cuda>(in.back()));
      if (wanted(op.first_a())) branch.backward_down(ds, lora_x);
      for (std::size_t g = 0; g < groups; ++g) {
        if (saved.needs[op.first_a() + g]) grads[op.first_a() + g] = branch.da(g);
        if (saved.needs[op.first_b() + g]) grads[op.first_b() + g] = branch.db(g);
      }
      if (saved.needs[input]) {
        const Tensor<T, Cuda> d(lora_x.shape());
        branch.backward_input(d, ds);
        grads[input] = d;
      }
    }
    if (saved.needs[0]) {
      const bool add = static_cast<bool>(grads[0]);
      if (!add) grads[0] = Tensor<T, Cuda>(x.shape());
      products.rows(Tensor<T, Cuda>(grads[0]), dy,
                    {in.begin() + first, in.begin() + first + groups}, true, add ? 1.0f : 0.0f);
    }
    for (std::size_t i = op.first_weight(); i < grads.size(); ++i) {
      if (grads[i]) grads[i] = cuda::detail::in_type(grads[i], in[i].dtype());
    }
    return grads;
  }
};

}  // namespace espalier
