// SPDX-License-Identifier: Apache-2.0
// linear on the device Cuda: one weight through cuBLAS, one per expert through the grouped kernels,
// with the same LoRA branch beside either. LoRA factors are f32; where T is narrower they are
// rounded to T for the products, as autocast does. Gradients of weights and factors are f32.
#pragma once

#include <vector>

#include <espalier/cuda/elementwise.hpp>
#include <espalier/cuda/gemm.hpp>
#include <espalier/kernels/grouped_gemm.hpp>
#include <espalier/ops/linear.hpp>

namespace espalier::cuda {

namespace detail {

/// Products over the groups of a linear layer.
class GroupedProducts {
 public:
  explicit GroupedProducts(const LinearOp& op) : groups_(op.groups()) {
    if (op.device_offsets) offsets_ = Tensor<std::int32_t, Cuda>(op.device_offsets);
  }

  /// c = alpha · a b_gᵀ + beta · c, b_g [N, K]; or with `straight` alpha · a b_g, b_g [K, N].
  template <Element C, Element A>
  void rows(const Tensor<C, Cuda>& c, const Tensor<A, Cuda>& a, const std::vector<AnyTensor>& b,
            bool straight, float alpha = 1, float beta = 0) const {
    const std::int64_t r = a.shape(0), k = a.shape(1), n = c.shape(1);
    if (!offsets_) {
      gemm(r, n, k, {a.bytes(), a.dtype(), k},
           {b[0].bytes(), b[0].dtype(), b[0].shape(1), !straight}, c.data(), n, alpha, beta);
      return;
    }
    const auto launch = [&]<class B>() {
      const auto pointers = addresses<B>(b);
      auto* const* of = reinterpret_cast<const kernel_t<B>* const*>(pointers.bytes());
      const int g = int(groups_);
      if (straight) {
        ESP_CUDA(kernels::grouped_gemm_nn(ptr(c), ptr(a), of, ptr(offsets_), g, r, n, k, alpha,
                                          beta, stream()));
      } else {
        ESP_CUDA(kernels::grouped_gemm_nt(ptr(c), ptr(a), of, ptr(offsets_), g, r, n, k, alpha,
                                          beta, stream()));
      }
    };
    if constexpr (std::same_as<A, float>) {
      visit_dtype<float, bf16, f16>("linear on cuda", b[0].dtype(), launch);
    } else {
      visit_dtype<A>("linear on cuda", b[0].dtype(), launch);
    }
  }

  /// c_g [M, N] = alpha · a_gᵀ b_g over the rows of each group, in f32.
  template <Element A>
  std::vector<AnyTensor> weights(const Tensor<A, Cuda>& a, const Tensor<A, Cuda>& b,
                                 float alpha = 1) const {
    const std::int64_t m = a.shape(1), n = b.shape(1), r = a.shape(0);
    std::vector<AnyTensor> c;
    for (std::size_t g = 0; g < groups_; ++g) c.push_back(Tensor<float, Cuda>(Shape{m, n}));
    if (!offsets_) {
      const Tensor<float, Cuda> only(c[0]);
      if (r == 0) {
        fill_zero(only.bytes(), only.size_bytes());
      } else {
        gemm(m, n, r, {a.bytes(), a.dtype(), m, true}, {b.bytes(), b.dtype(), n}, only.data(), n,
             alpha);
      }
      return c;
    }
    const auto pointers = addresses<float>(c);
    ESP_CUDA(kernels::grouped_gemm_tn(reinterpret_cast<float* const*>(pointers.bytes()), ptr(a),
                                      ptr(b), ptr(offsets_), int(groups_), m, n, alpha, 0.0f,
                                      stream()));
    return c;
  }

 private:
  /// The addresses of the tensors, in device memory.
  template <Element T>
  static Tensor<std::int64_t, Cuda> addresses(const std::vector<AnyTensor>& of) {
    std::vector<std::int64_t> list;
    for (const AnyTensor& t : of) {
      list.push_back(reinterpret_cast<std::int64_t>(Tensor<T, Cuda>(t).bytes()));
    }
    return Tensor<std::int64_t, Cuda>(Shape{static_cast<std::int64_t>(list.size())}, list);
  }

  std::size_t groups_;
  Tensor<std::int32_t, Cuda> offsets_;
};

/// The tensors [first, first + count) of a list, as T.
template <FloatElement T>
std::vector<AnyTensor> as(const std::vector<AnyTensor>& in, std::size_t first, std::size_t count) {
  std::vector<AnyTensor> out;
  for (std::size_t i = first; i < first + count; ++i) {
    if (in[i].dtype() == dtype_of<T>::value) {
      out.push_back(in[i]);
    } else {
      out.push_back(converted<T>(Tensor<float, Cuda>(in[i])));
    }
  }
  return out;
}

}  // namespace detail

template <FloatElement T>
Tensor<T, Cuda> launch_forward(Cuda, const LinearOp& op, Saved& saved,
                               const std::vector<AnyTensor>& in) {
  const Tensor<T, Cuda> x(in[0]);
  const std::size_t groups = op.groups(), first = op.first_weight();
  for (std::size_t g = 0; g < groups; ++g) {
    const Shape& w = in[first + g].shape();
    ESP_REQUIRE(
        x.shape().rank() == 2 && w.rank() == 2 && w[1] == x.shape(1) && w[0] == in[first].shape(0),
        ShapeError, LinearOp::kName, ": weight ", g, " is ", w, ", x is ", x.shape(),
        "; expected [out, ", x.shape(1), "]");
  }
  const detail::GroupedProducts products(op);
  Tensor<T, Cuda> y(Shape{x.shape(0), in[first].shape(0)});
  products.rows(y, x, {in.begin() + first, in.begin() + first + groups}, false);
  saved.tensors = in;
  if (op.lora) {
    const Tensor<T, Cuda> lora_x(in[op.lora_input ? 1 : 0]);
    const Tensor<T, Cuda> t(Shape{x.shape(0), in[op.first_a()].shape(0)});  // x' Aᵀ
    products.rows(t, lora_x, detail::as<T>(in, op.first_a(), groups), false);
    products.rows(y, t, detail::as<T>(in, op.first_b(), groups), false,
                  static_cast<float>(op.scale), 1.0f);
    saved.tensors.push_back(t);
  }
  return y;
}

template <FloatElement T>
std::vector<AnyTensor> launch_backward(Cuda, const LinearOp& op, const Saved& saved,
                                       const Tensor<T, Cuda>& dy) {
  const std::vector<AnyTensor>& in = saved.tensors;
  const std::size_t groups = op.groups(), first = op.first_weight();
  const detail::GroupedProducts products(op);
  const Tensor<T, Cuda> x(in[0]);
  const auto wanted = [&](std::size_t begin) {
    for (std::size_t g = 0; g < groups; ++g) {
      if (saved.needs[begin + g]) return true;
    }
    return false;
  };
  std::vector<AnyTensor> grads(saved.needs.size());
  const auto put = [&](std::size_t begin, const std::vector<AnyTensor>& found) {
    for (std::size_t g = 0; g < groups; ++g) {
      if (saved.needs[begin + g]) grads[begin + g] = found[g];
    }
  };
  Tensor<T, Cuda> dx;
  if (saved.needs[0]) {
    grads[0] = dx = Tensor<T, Cuda>(x.shape());
    products.rows(dx, dy, {in.begin() + first, in.begin() + first + groups}, true);
  }
  if (wanted(first)) put(first, products.weights(dy, x));
  if (!op.lora) return grads;
  // dt = scale · dy B;  dB = scale · dyᵀ t;  dA = dtᵀ x';  dx' = dt A (added to dx where x' is x).
  const auto factor = static_cast<float>(op.scale);
  const Tensor<T, Cuda> lora_x(in[op.lora_input ? 1 : 0]), t(in.back());
  const Tensor<T, Cuda> dt(t.shape());
  products.rows(dt, dy, detail::as<T>(in, op.first_b(), groups), true, factor);
  if (wanted(op.first_b())) put(op.first_b(), products.weights(dy, t, factor));
  if (wanted(op.first_a())) put(op.first_a(), products.weights(dt, lora_x));
  if (op.lora_input && saved.needs[1]) {
    const Tensor<T, Cuda> d(lora_x.shape());
    products.rows(d, dt, detail::as<T>(in, op.first_a(), groups), true);
    grads[1] = d;
  } else if (!op.lora_input && dx) {
    products.rows(dx, dt, detail::as<T>(in, op.first_a(), groups), true, 1.0f, 1.0f);
  }
  return grads;
}

}  // namespace espalier::cuda
