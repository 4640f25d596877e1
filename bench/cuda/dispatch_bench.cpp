// SPDX-License-Identifier: Apache-2.0
// Copies of tokens to the rows of their experts, the weighted sum back, and the gradients of both,
// in bf16, beside a copy by the driver that moves as many bytes.
//   cuda_dispatch_bench [--only NAME] [--reps 30] [--alike 5] [--json]
#include <espalier/kernels/combine.hpp>
#include <espalier/kernels/dispatch.hpp>

#include "shapes.hpp"

namespace {

using namespace espalier;
using namespace espalier::bench;
using T = bf16;

class Dispatch {
 public:
  Dispatch(DeviceSuite& suite, const ModelShape& m, const RoutedTokens& routed)
      : suite_(suite),
        routed_(routed),
        n_(routed.logits.shape(0)),
        k_(m.top_k),
        h_(m.hidden),
        suffix_(fmt::format(" bf16 {} {}", m.name, routed.name)) {}

  void run() {
    dispatch();
    dispatch_backward();
    combine();
    combine_backward();
  }

 private:
  std::int64_t row_of(std::int64_t token, int slot) const {
    return routed_.routing.row_of_slot[token * k_ + slot];
  }
  /// Both are lists of numbers: those of the sampled tokens.
  template <class Got, class Want>
  double error_at_samples(Got&& got_of, Want&& want_of) const {
    std::vector<double> got, want;
    for (const std::int64_t token : sample_rows(n_)) {
      for (const double v : got_of(token)) got.push_back(v);
      for (const double v : want_of(token)) want.push_back(v);
    }
    return relative_error(got, want);
  }

  void dispatch() {
    const Tensor<T, Cuda> rows(Shape{n_ * k_, h_});
    const double bytes = kernels::dispatch_bytes(n_, k_, h_, sizeof(T));
    suite_.run({"dispatch" + suffix_,
                bytes,
                Unit::bytes,
                [&] {
                  return kernels::dispatch_forward(cuda::ptr(rows), cuda::ptr(x_),
                                                   routed_.row_of_slot.data(), n_, k_, h_,
                                                   cuda::stream());
                },
                [&] {
                  return error_at_samples(
                      [&](std::int64_t i) { return host_rows(rows, row_of(i, k_ - 1), 1); },
                      [&](std::int64_t i) { return host_rows(x_, i, 1); });
                },
                0,
                {rows},
                {{"copy", suite_.copy_of(bytes)}}});
  }

  void dispatch_backward() {
    const Tensor<T, Cuda> dx(Shape{n_, h_});
    const double bytes = kernels::dispatch_bytes(n_, k_, h_, sizeof(T));
    suite_.run({"dispatch backward" + suffix_,
                bytes,
                Unit::bytes,
                [&] {
                  return kernels::dispatch_backward(cuda::ptr(dx), cuda::ptr(rows_),
                                                    routed_.row_of_slot.data(), n_, k_, h_,
                                                    cuda::stream());
                },
                [&] {
                  return error_at_samples(
                      [&](std::int64_t i) { return host_rows(dx, i, 1); },
                      [&](std::int64_t i) { return weighted_sum(i, std::vector(k_, 1.0)); });
                },
                1e-2,
                {dx},
                {{"copy", suite_.copy_of(bytes)}}});
  }

  std::vector<double> weighted_sum(std::int64_t token, const std::vector<double>& weights) const {
    std::vector<double> sum(static_cast<std::size_t>(h_), 0.0);
    for (int j = 0; j < k_; ++j) {
      const auto row = host_rows(rows_, row_of(token, j), 1);
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += weights[j] * row[i];
    }
    return sum;
  }

  void combine() {
    const Tensor<T, Cuda> y(Shape{n_, h_});
    const double bytes = kernels::combine_bytes(n_, k_, h_, sizeof(T));
    suite_.run({"combine" + suffix_,
                bytes,
                Unit::bytes,
                [&] {
                  return kernels::combine_forward(cuda::ptr(y), cuda::ptr(rows_),
                                                  cuda::ptr(weights_), routed_.row_of_slot.data(),
                                                  n_, k_, h_, cuda::stream());
                },
                [&] {
                  return error_at_samples(
                      [&](std::int64_t i) { return host_rows(y, i, 1); },
                      [&](std::int64_t i) { return weighted_sum(i, host_rows(weights_, i, 1)); });
                },
                1e-2,
                {y},
                {{"copy", suite_.copy_of(bytes)}}});
  }

  void combine_backward() {
    const Tensor<T, Cuda> drows(Shape{n_ * k_, h_});
    const Tensor<float, Cuda> dweights(Shape{n_, k_});
    const double bytes = kernels::combine_backward_bytes(n_, k_, h_, sizeof(T));
    const auto want_row = [&](std::int64_t token) {
      auto row = host_rows(x_, token, 1);  // in the place of dy
      const double w = host_rows(weights_, token, 1)[k_ - 1];
      for (double& v : row) v *= w;
      return row;
    };
    const auto want_weights = [&](std::int64_t token) {
      const auto dy = host_rows(x_, token, 1);
      std::vector<double> d;
      for (int j = 0; j < k_; ++j) {
        const auto row = host_rows(rows_, row_of(token, j), 1);
        d.push_back(std::inner_product(dy.begin(), dy.end(), row.begin(), 0.0));
      }
      return d;
    };
    const auto error = [&] {
      const double of_rows = error_at_samples(
          [&](std::int64_t i) { return host_rows(drows, row_of(i, k_ - 1), 1); }, want_row);
      const double of_weights =
          error_at_samples([&](std::int64_t i) { return host_rows(dweights, i, 1); }, want_weights);
      return std::max(of_rows, of_weights);
    };
    suite_.run({"combine backward" + suffix_,
                bytes,
                Unit::bytes,
                [&] {
                  return kernels::combine_backward(
                      cuda::ptr(drows), cuda::ptr(dweights), cuda::ptr(x_), cuda::ptr(rows_),
                      cuda::ptr(weights_), routed_.row_of_slot.data(), n_, k_, h_, cuda::stream());
                },
                error,
                1e-2,
                {drows, dweights},
                {{"copy", suite_.copy_of(bytes)}}});
  }

  DeviceSuite& suite_;
  const RoutedTokens& routed_;
  std::int64_t n_;
  int k_;
  std::int64_t h_;
  std::string suffix_;
  Tensor<T, Cuda> x_ = random_on_device<T>({n_, h_}, 1);
  Tensor<T, Cuda> rows_ = random_on_device<T>({n_ * k_, h_}, 2);
  Tensor<float, Cuda> weights_ = random_on_device<float>({n_, k_}, 3);
};

}  // namespace

int main(int argc, char** argv) {
  return device_bench_main(argc, argv, "cuda_dispatch_bench",
                           "Times dispatch and combine on a GPU.", [](DeviceSuite& suite) {
                             for (const ModelShape& m : models(suite.options())) {
                               const auto all = routed_tokens(m, tokens(suite.options()));
                               for (const RoutedTokens& routed : all) {
                                 Dispatch(suite, m, routed).run();
                               }
                             }
                           });
}
