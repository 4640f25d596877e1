// SPDX-License-Identifier: Apache-2.0
// The optimizer's update, and norms of weights and of how far they moved: of one expert's matrix of
// each model, beside a copy by the driver that moves as many bytes.
//   cuda_training_bench [--only NAME] [--reps 30] [--alike 5] [--json]
#include <espalier/kernels/adamw.hpp>
#include <espalier/kernels/norms.hpp>

#include "shapes.hpp"

namespace {

using namespace espalier;
using namespace espalier::bench;

void norms(DeviceSuite& suite, const ModelShape& m) {
  const std::int64_t rows = m.ffn, h = m.hidden, n = rows * h;
  const auto x = random_on_device<bf16>({rows, h}, 1), b = random_on_device<bf16>({rows, h}, 2);
  const Tensor<float, Cuda> of_rows(Shape{rows});
  const Tensor<double, Cuda> sum(Shape{1});
  const cuda::Workspace workspace(kernels::sum_of_squares_workspace_bytes(n));
  const auto squares = [&](std::int64_t i) {
    const auto row = host_rows(x, i, 1);
    return std::inner_product(row.begin(), row.end(), row.begin(), 0.0);
  };
  const double bytes = kernels::norms_bytes(n, 2);
  suite.run({"row norms bf16 " + m.name,
             bytes,
             Unit::bytes,
             [&] {
               return kernels::row_norms(cuda::ptr(of_rows), cuda::ptr(x), rows, h, cuda::stream());
             },
             [&] {
               const auto got = host_rows(of_rows, rows - 1, 1);
               return relative_error(got, {std::sqrt(squares(rows - 1))});
             },
             1e-6,
             {of_rows},
             {{"copy", suite.copy_of(bytes)}}});
  suite.run({"sum of squared differences bf16 " + m.name,
             2 * bytes,
             Unit::bytes,
             [&] {
               return kernels::sum_of_squared_differences(
                   cuda::ptr(sum), cuda::ptr(x), cuda::ptr(b), n, workspace.data(), cuda::stream());
             },
             [&] {
               const auto p = host_rows(x, 0, rows), q = host_rows(b, 0, rows);
               double want = 0;
               for (std::size_t i = 0; i < p.size(); ++i) want += (p[i] - q[i]) * (p[i] - q[i]);
               return relative_error(host_rows(sum, 0, 1), {want});
             },
             1e-10,
             {sum},
             {{"copy", suite.copy_of(2 * bytes)}}});
}

/// In place, so what it reads is set anew before each run.
void adamw(DeviceSuite& suite, const ModelShape& m) {
  const std::int64_t n = m.ffn * m.hidden;
  const Shape shape{m.ffn, m.hidden};
  const auto p0 = random_on_device<float>(shape, 1), m0 = random_on_device<float>(shape, 2),
             grad = random_on_device<float>(shape, 4);
  const Tensor<float, Cuda> p(shape), first(shape), second(shape);
  const kernels::AdamWConstants k{0.999f, 0.1f, 0.999f, 0.001f, 0.05f, 1e-8f, 0.01f, 0.5f};
  const auto prepare = [&] {
    cuda::copy(p.bytes(), p0.bytes(), p.size_bytes());
    cuda::copy(first.bytes(), m0.bytes(), first.size_bytes());
    cuda::fill_zero(second.bytes(), second.size_bytes());
  };
  const auto error = [&] {
    std::vector<double> want;
    const auto before = host_rows(p0, m.ffn - 1, 1), moment = host_rows(m0, m.ffn - 1, 1),
               g = host_rows(grad, m.ffn - 1, 1);
    for (std::size_t i = 0; i < before.size(); ++i) {
      const double scaled = double(k.scale) * g[i];
      const double mean = moment[i] + double(k.one_minus_beta1) * (scaled - moment[i]);
      const double root = std::sqrt(double(k.one_minus_beta2) * scaled * scaled);
      want.push_back(double(k.keep) * before[i] -
                     double(k.step_size) * mean /
                         (root / double(k.root_correction2) + double(k.eps)));
    }
    return relative_error(host_rows(p, m.ffn - 1, 1), want);
  };
  const double bytes = kernels::adamw_bytes(n);
  suite.run({"adamw f32 " + m.name,
             bytes,
             Unit::bytes,
             [&] {
               return kernels::adamw(p.data(), first.data(), second.data(),
                                     static_cast<const float*>(grad.data()), n, k, cuda::stream());
             },
             error,
             1e-4,
             {p, first, second},
             {{"copy", suite.copy_of(bytes)}},
             prepare});
}

}  // namespace

int main(int argc, char** argv) {
  return device_bench_main(argc, argv, "cuda_training_bench",
                           "Times the optimizer and norms on a GPU.", [](DeviceSuite& suite) {
                             for (const ModelShape& m : models(suite.options())) {
                               norms(suite, m);
                               adamw(suite, m);
                             }
                           });
}
