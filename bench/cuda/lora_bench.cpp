// SPDX-License-Identifier: Apache-2.0
// Low-rank updates of the three projections of an expert layer in bf16, rank 16: forward (s = x aᵀ,
// y = s bᵀ), backward (ds and db from one read of dy, then da) and the gradient of the input
// (dx = ds a), beside a loop of cuBLAS over the experts that have rows, with factors in bf16 and
// sizes that the host knows. Products with the weights are added behind, at their own cost.
//   cuda_lora_bench [--only NAME] [--reps 30] [--alike 5] [--json]
#include <espalier/kernels/lora.hpp>

#include "shapes.hpp"

namespace {

using namespace espalier;
using namespace espalier::bench;
using T = bf16;

constexpr float kScale = 2;

/// One projection [K] -> [N] with factors a_g [r, K], b_g [N, r].
struct Projection {
  const RoutedTokens& routed;
  int groups, rank;
  std::int64_t k, n, rows = routed.rows();

  template <class E>
  static DeviceArray<E*> pointers(const Tensor<E, Cuda>& t, int groups) {
    std::vector<E*> at;
    for (int g = 0; g < groups; ++g) at.push_back(t.data() + t.numel() / groups * g);
    return DeviceArray<E*>(at);
  }

  Tensor<T, Cuda> x = random_on_device<T>({rows, k}, 1), dy = random_on_device<T>({rows, n}, 2);
  Tensor<T, Cuda> y{Shape{rows, n}}, dx{Shape{rows, k}}, s{Shape{rows, rank}},
      ds{Shape{rows, rank}};
  Tensor<float, Cuda> a = random_on_device<float>({std::int64_t{groups} * rank, k}, 4, 0.02f);
  Tensor<float, Cuda> b = random_on_device<float>({groups * n, rank}, 5, 0.02f);
  Tensor<T, Cuda> a16 = random_on_device<T>(a.shape(), 4, 0.02f),
                  b16 = random_on_device<T>(b.shape(), 5, 0.02f);
  Tensor<float, Cuda> da{a.shape()}, db{b.shape()};
  DeviceArray<float*> a_of = pointers(a, groups), b_of = pointers(b, groups),
                      da_of = pointers(da, groups), db_of = pointers(db, groups);
  cuda::Workspace workspace{std::max({kernels::lora_down_workspace_bytes(rows, k, rank),
                                      kernels::lora_backward_up_workspace_bytes(rows, n, rank),
                                      kernels::lora_backward_down_workspace_bytes(rows, k, rank)})};

  double forward_bytes() const {
    return kernels::lora_down_bytes(rows, k, groups, rank, 2) +
           kernels::lora_up_bytes(rows, n, groups, rank, false, 2);
  }
  double backward_bytes() const {
    return kernels::lora_backward_up_bytes(rows, n, groups, rank, 2) +
           kernels::lora_backward_down_bytes(rows, k, groups, rank, 2);
  }
  double input_bytes() const { return kernels::lora_up_bytes(rows, k, groups, rank, false, 2); }

  cudaError_t forward() const {
    const std::int32_t* offsets = routed.offsets.data();
    const cudaError_t error =
        kernels::lora_down(cuda::ptr(s), cuda::ptr(std::as_const(x)), a_of.data(), offsets, groups,
                           rows, k, rank, workspace.data(), cuda::stream());
    if (error != cudaSuccess) return error;
    return kernels::lora_up(cuda::ptr(y), cuda::ptr(s), b_of.data(), offsets, groups, rows, n, rank,
                            kScale, false, cuda::stream());
  }
  cudaError_t backward() const {
    const std::int32_t* offsets = routed.offsets.data();
    const cudaError_t error = kernels::lora_backward_up(
        cuda::ptr(ds), db_of.data(), cuda::ptr(dy), cuda::ptr(s), b_of.data(), offsets, groups,
        rows, n, rank, kScale, workspace.data(), cuda::stream());
    if (error != cudaSuccess) return error;
    return kernels::lora_backward_down(da_of.data(), cuda::ptr(ds), cuda::ptr(x), offsets, groups,
                                       rows, k, rank, workspace.data(), cuda::stream());
  }
  cudaError_t input() const {
    return kernels::lora_backward_input(cuda::ptr(dx), cuda::ptr(ds), a_of.data(),
                                        routed.offsets.data(), groups, rows, k, rank, false,
                                        cuda::stream());
  }

  template <class F>
  void for_each_group(const F& f) const {
    for (int g = 0; g < groups; ++g) {
      const std::int64_t first = routed.routing.offsets[g];
      const std::int64_t count = routed.routing.offsets[g + 1] - first;
      if (count > 0) f(g, first, count);
    }
  }
  void forward_by_cublas() const {
    for_each_group([&](int g, std::int64_t first, std::int64_t m) {
      const cuda::Matrix x_g{x.data() + first * k, DType::bf16, k},
          a_g{a16.data() + g * rank * k, DType::bf16, k, true},
          s_g{s.data() + first * rank, DType::bf16, rank},
          b_g{b16.data() + g * n * rank, DType::bf16, rank, true};
      cuda::gemm(m, rank, k, x_g, a_g, s.data() + first * rank, rank);
      cuda::gemm(m, n, rank, s_g, b_g, y.data() + first * n, n, kScale);
    });
  }
  void backward_by_cublas() const {
    for_each_group([&](int g, std::int64_t first, std::int64_t m) {
      const cuda::Matrix dy_g{dy.data() + first * n, DType::bf16, n},
          dy_t{dy_g.data, DType::bf16, n, true}, b_g{b16.data() + g * n * rank, DType::bf16, rank},
          s_g{s.data() + first * rank, DType::bf16, rank},
          ds_t{ds.data() + first * rank, DType::bf16, rank, true},
          x_g{x.data() + first * k, DType::bf16, k};
      cuda::gemm(m, rank, n, dy_g, b_g, ds.data() + first * rank, rank, kScale);
      cuda::gemm(n, rank, m, dy_t, s_g, db.data() + g * n * rank, rank, kScale);
      cuda::gemm(rank, k, m, ds_t, x_g, da.data() + g * rank * k, k);
    });
  }
  void input_by_cublas() const {
    for_each_group([&](int g, std::int64_t first, std::int64_t m) {
      cuda::gemm(m, k, rank, {ds.data() + first * rank, DType::bf16, rank},
                 {a16.data() + g * rank * k, DType::bf16, k}, dx.data() + first * k, k);
    });
  }

  // --- against double sums: sampled rows, and factors of the first group that has rows
  // ---------------
  int group_of(std::int64_t row) const {
    const auto& at = routed.routing.offsets;
    return static_cast<int>(std::upper_bound(at.begin(), at.end(), row) - at.begin() - 1);
  }
  /// row times m_g, or its transpose, of `count` numbers each.
  std::vector<double> times(const std::vector<double>& row, const Tensor<float, Cuda>& m, int g,
                            bool transposed) const {
    const std::int64_t height = m.shape(0) / groups, width = m.shape(1);
    const auto values = host_rows(m, g * height, height);
    std::vector<double> out(static_cast<std::size_t>(transposed ? height : width));
    for (std::int64_t i = 0; i < height; ++i) {
      for (std::int64_t j = 0; j < width; ++j) {
        if (transposed) out[i] += row[j] * static_cast<float>(T(float(values[i * width + j])));
        if (!transposed) out[j] += row[i] * static_cast<float>(T(float(values[i * width + j])));
      }
    }
    return out;
  }
  double error_of_forward() const {
    double worst = 0;
    for (const std::int64_t row : sample_rows(rows)) {
      const int g = group_of(row);
      const auto s_row = host_rows(s, row, 1);
      worst = std::max(worst, relative_error(s_row, times(host_rows(x, row, 1), a, g, true)));
      auto want = times(s_row, b, g, true);
      for (double& v : want) v *= kScale;
      worst = std::max(worst, relative_error(host_rows(y, row, 1), want));
    }
    return worst;
  }
  double error_of_backward() const {
    double worst = 0;
    for (const std::int64_t row : sample_rows(rows)) {
      const int g = group_of(row);
      auto want = times(host_rows(dy, row, 1), b, g, false);
      for (double& v : want) v *= kScale;
      worst = std::max(worst, relative_error(host_rows(ds, row, 1), want));
    }
    const int g = group_of(0);
    const std::int64_t m = routed.routing.offsets[g + 1];
    const auto s_rows = host_rows(s, 0, m), ds_rows = host_rows(ds, 0, m);
    std::vector<double> want_a(static_cast<std::size_t>(k)), want_b(static_cast<std::size_t>(rank));
    for (std::int64_t r = 0; r < m; ++r) {
      const auto x_row = host_rows(x, r, 1), dy_row = host_rows(dy, r, 1);
      for (std::int64_t j = 0; j < k; ++j) want_a[j] += ds_rows[r * rank] * x_row[j];
      for (int i = 0; i < rank; ++i) want_b[i] += kScale * dy_row[n - 1] * s_rows[r * rank + i];
    }
    worst = std::max(worst, relative_error(host_rows(da, g * rank, 1), want_a));
    return std::max(worst, relative_error(host_rows(db, g * n + n - 1, 1), want_b));
  }
  double error_of_input() const {
    double worst = 0;
    for (const std::int64_t row : sample_rows(rows)) {
      const auto want = times(host_rows(ds, row, 1), a, group_of(row), false);
      worst = std::max(worst, relative_error(host_rows(dx, row, 1), want));
    }
    return worst;
  }
};

/// w1 and w3 from H to F, w2 back.
class Layer {
 public:
  Layer(DeviceSuite& suite, const ModelShape& m, const RoutedTokens& routed)
      : suite_(suite),
        suffix_(fmt::format(" bf16 r 16 {} {}", m.name, routed.name)),
        all_{Projection{routed, m.experts, 16, m.hidden, m.ffn},
             Projection{routed, m.experts, 16, m.hidden, m.ffn},
             Projection{routed, m.experts, 16, m.ffn, m.hidden}} {}

  void run() {
    std::vector<AnyTensor> of_forward, of_backward, of_input;
    for (const Projection& p : all_) {
      of_forward.insert(of_forward.end(), {p.s, p.y});
      of_backward.insert(of_backward.end(), {p.ds, p.da, p.db});
      of_input.push_back(p.dx);
      cuda::check(p.forward(), "LoRA forward");  // s and ds, for whoever asks for one case alone
      cuda::check(p.backward(), "LoRA backward");
    }
    time("LoRA forward", &Projection::forward_bytes, &Projection::forward,
         &Projection::error_of_forward, &Projection::forward_by_cublas, of_forward);
    time("LoRA backward", &Projection::backward_bytes, &Projection::backward,
         &Projection::error_of_backward, &Projection::backward_by_cublas, of_backward);
    time("LoRA input", &Projection::input_bytes, &Projection::input, &Projection::error_of_input,
         &Projection::input_by_cublas, of_input);
  }

 private:
  void time(const std::string& what, double (Projection::*bytes)() const,
            cudaError_t (Projection::*ours)() const, double (Projection::*error)() const,
            void (Projection::*cublas)() const, const std::vector<AnyTensor>& outputs) {
    double work = 0;
    for (const Projection& p : all_) work += (p.*bytes)();
    suite_.run({what + suffix_,
                work,
                Unit::bytes,
                [&] {
                  for (const Projection& p : all_) {
                    if (const cudaError_t e = (p.*ours)(); e != cudaSuccess) return e;
                  }
                  return cudaSuccess;
                },
                [&] {
                  double worst = 0;
                  for (const Projection& p : all_) worst = std::max(worst, (p.*error)());
                  return worst;
                },
                2e-2,
                outputs,
                {{"cuBLAS loop", [&] {
                    for (const Projection& p : all_) (p.*cublas)();
                    return cudaSuccess;
                  }}}});
  }

  DeviceSuite& suite_;
  std::string suffix_;
  std::array<Projection, 3> all_;
};

}  // namespace

int main(int argc, char** argv) {
  return device_bench_main(argc, argv, "cuda_lora_bench", "Times LoRA of experts on a GPU.",
                           [](DeviceSuite& suite) {
                             for (const ModelShape& m : models(suite.options())) {
                               const auto all = routed_tokens(m, tokens(suite.options()));
                               for (const RoutedTokens& routed : all) {
                                 Layer(suite, m, routed).run();
                               }
                             }
                           });
}
