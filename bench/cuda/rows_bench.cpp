// SPDX-License-Identifier: Apache-2.0
// Work row by row or element by element in bf16: rms_norm, rope, swiglu, dropout, embedding, each
// with its gradient, beside a copy by the driver that moves as many bytes.
//   cuda_rows_bench [--only NAME] [--reps 30] [--alike 5] [--json]
#include <espalier/kernels/dropout.hpp>
#include <espalier/kernels/embedding.hpp>
#include <espalier/kernels/rms_norm.hpp>
#include <espalier/kernels/rope.hpp>
#include <espalier/kernels/swiglu.hpp>
#include <espalier/ops/reference/dropout.hpp>
#include <espalier/ops/reference/rms_norm.hpp>
#include <espalier/ops/reference/rope.hpp>
#include <espalier/ops/reference/swiglu.hpp>

#include "shapes.hpp"

namespace {

using namespace espalier;
using namespace espalier::bench;
using T = bf16;
using Numbers = std::vector<double>;

constexpr std::int64_t kVerified = 2;  // rows, the last ones
constexpr double kTolerance = 1e-2;

class Rows {
 public:
  Rows(DeviceSuite& suite, const ModelShape& m)
      : suite_(suite), m_(m), n_(tokens(suite.options())), last_(n_ - kVerified) {}

  void run() {
    norm();
    rotate();
    gate();
    drop();
    embed();
  }

 private:
  static Numbers tail(const AnyTensor& t) {
    return host_rows(t, t.shape()[0] - kVerified, kVerified);
  }
  static Numbers all(const AnyTensor& t) { return host_rows(t, 0, t.shape()[0]); }

  void time(const std::string& what, double bytes, const std::function<cudaError_t()>& run,
            const std::function<double()>& error, const std::vector<AnyTensor>& outputs) {
    const std::string title = fmt::format("{} bf16 {}", what, m_.name);
    if (!suite_.wants(title)) return;
    suite_.run({title,
                bytes,
                Unit::bytes,
                run,
                error,
                kTolerance,
                outputs,
                {{"copy", suite_.copy_of(bytes)}}});
  }

  void norm() {
    const std::int64_t h = m_.hidden;
    const float eps = 1e-5f;
    const auto x = random_on_device<T>({n_, h}, 1), w = random_on_device<T>({h}, 2),
               dy = random_on_device<T>({n_, h}, 3);
    const Tensor<T, Cuda> y(x.shape()), dx(x.shape());
    const Tensor<float, Cuda> r(Shape{n_}), dw(Shape{h});
    const cuda::Workspace workspace(kernels::rms_norm_gain_workspace_bytes(n_, h));
    const auto forward = [&] {
      return kernels::rms_norm_forward(cuda::ptr(y), cuda::ptr(r), cuda::ptr(x), cuda::ptr(w), n_,
                                       h, eps, cuda::stream());
    };
    time("rms_norm", kernels::rms_norm_bytes(n_, h, 2), forward,
         [&] { return relative_error(tail(y), reference::rms_norm(tail(x), all(w), eps)); },
         {y, r});
    cuda::check(forward(), "rms_norm_forward");
    time(
        "rms_norm backward", kernels::rms_norm_backward_bytes(n_, h, 2),
        [&] {
          return kernels::rms_norm_backward(cuda::ptr(dx), cuda::ptr(dy), cuda::ptr(x),
                                            cuda::ptr(w), cuda::ptr(r), n_, h, cuda::stream());
        },
        [&] {
          return relative_error(tail(dx),
                                reference::rms_norm_backward(tail(dy), tail(x), all(w), eps).dx);
        },
        {dx});
    time(
        "rms_norm gain backward", kernels::rms_norm_backward_bytes(n_, h, 2) * 2 / 3,
        [&] {
          return kernels::rms_norm_gain_backward(cuda::ptr(dw), cuda::ptr(dy), cuda::ptr(x),
                                                 cuda::ptr(r), workspace.data(), n_, h,
                                                 cuda::stream());
        },
        [&] {
          return relative_error(all(dw),
                                reference::rms_norm_backward(all(dy), all(x), all(w), eps).dw);
        },
        {dw});
  }

  void rotate() {
    const std::int64_t p = m_.head_dim, heads = m_.heads;
    const auto x = random_on_device<T>({n_, heads * p}, 1);
    const Tensor<T, Cuda> y(x.shape());
    std::vector<float> cos_sin;
    for (std::int64_t i = 0; i < n_; ++i) {
      const auto angle = [&](std::int64_t c) {
        const float exponent = static_cast<float>(2 * c) / static_cast<float>(p);
        const float a = 1.0f / std::pow(10000.0f, exponent) * static_cast<float>(i);
        return static_cast<double>(a);
      };
      for (std::int64_t c = 0; c < p / 2; ++c) cos_sin.push_back(float(std::cos(angle(c))));
      for (std::int64_t c = 0; c < p / 2; ++c) cos_sin.push_back(float(std::sin(angle(c))));
    }
    const DeviceArray<float> table(cos_sin);
    const kernels::RopeSizes sizes{n_, heads, p, p};
    time(
        "rope", kernels::rope_bytes(sizes, 2),
        [&] {
          return kernels::rope(cuda::ptr(y), cuda::ptr(x), table.data(), sizes, 1.0f,
                               cuda::stream());
        },
        [&] {
          std::vector<std::int32_t> positions;
          for (std::int64_t i = last_; i < n_; ++i) positions.push_back(std::int32_t(i));
          return relative_error(tail(y),
                                reference::rope(tail(x), positions, heads, p, 10000.0, 1.0f));
        },
        {y});
  }

  void gate() {
    const std::int64_t rows = n_ * m_.top_k, n = rows * m_.ffn;
    const Shape shape{rows, m_.ffn};
    const auto g = random_on_device<T>(shape, 1), u = random_on_device<T>(shape, 2),
               dy = random_on_device<T>(shape, 3);
    const Tensor<T, Cuda> y(shape), dg(shape), du(shape);
    time(
        "swiglu", kernels::swiglu_bytes(n, 2),
        [&] {
          return kernels::swiglu_forward(cuda::ptr(y), cuda::ptr(g), cuda::ptr(u), n,
                                         cuda::stream());
        },
        [&] { return relative_error(tail(y), reference::swiglu(tail(g), tail(u))); }, {y});
    time(
        "swiglu backward", kernels::swiglu_backward_bytes(n, 2),
        [&] {
          return kernels::swiglu_backward(cuda::ptr(dg), cuda::ptr(du), cuda::ptr(dy), cuda::ptr(g),
                                          cuda::ptr(u), n, cuda::stream());
        },
        [&] {
          const auto want = reference::swiglu_backward(tail(dy), tail(g), tail(u));
          return std::max(relative_error(tail(dg), want.dgate), relative_error(tail(du), want.dup));
        },
        {dg, du});
  }

  void drop() {
    const std::int64_t n = n_ * m_.hidden;
    const auto x = random_on_device<T>({n_, m_.hidden}, 1);
    const Tensor<T, Cuda> y(x.shape());
    time(
        "dropout", kernels::dropout_bytes(n, 2),
        [&] { return kernels::dropout(cuda::ptr(y), cuda::ptr(x), 0.1f, 5, 6, n, cuda::stream()); },
        [&] {  // the draws depend on where an element lies: all from the first
          const std::int64_t rows = std::min<std::int64_t>(n_, 16);
          return relative_error(host_rows(y, 0, rows),
                                reference::dropout(host_rows(x, 0, rows), 0.1f, 5, 6));
        },
        {y});
  }

  void embed() {
    const std::int64_t h = m_.hidden, v = m_.vocab;
    const auto table = random_on_device<T>({v, h}, 1), dy = random_on_device<T>({n_, h}, 2);
    const Tensor<T, Cuda> y(Shape{n_, h});
    const Tensor<float, Cuda> dtable(Shape{v, h});
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < n_; ++i) ids.push_back(std::int32_t(i * i % v));
    const DeviceArray<std::int32_t> on_device(ids);
    time(
        "embedding", kernels::embedding_bytes(n_, h, 2, 2),
        [&] {
          return kernels::embedding_forward(cuda::ptr(y), cuda::ptr(table), on_device.data(), n_, v,
                                            h, cuda::stream());
        },
        [&] { return relative_error(host_rows(y, n_ - 1, 1), host_rows(table, ids.back(), 1)); },
        {y});
    time(
        "embedding backward", double(v * h) * 4 + double(n_ * h) * 2,
        [&] {
          return kernels::embedding_backward(cuda::ptr(dtable), cuda::ptr(dy), on_device.data(), n_,
                                             v, h, cuda::stream());
        },
        [&] {
          Numbers want(static_cast<std::size_t>(h));
          for (std::int64_t i = 0; i < n_; ++i) {
            if (ids[i] != ids.back()) continue;
            const auto row = host_rows(dy, i, 1);
            for (std::size_t c = 0; c < row.size(); ++c) want[c] += row[c];
          }
          return relative_error(host_rows(dtable, ids.back(), 1), want);
        },
        {dtable});
  }

  DeviceSuite& suite_;
  ModelShape m_;
  std::int64_t n_, last_;
};

}  // namespace

int main(int argc, char** argv) {
  return device_bench_main(argc, argv, "cuda_rows_bench",
                           "Times work on rows and elements on a GPU.", [](DeviceSuite& suite) {
                             for (const ModelShape& m : models(suite.options()))
                               Rows(suite, m).run();
                           });
}
