// SPDX-License-Identifier: Apache-2.0
// Cross entropy of a chunk of rows of logits and its gradient (f32 in, bf16 out), beside a copy by
// the driver that moves as many bytes; and the load-balancing loss of a layer, which is bounded by
// launches.
//   cuda_losses_bench [--only NAME] [--reps 30] [--alike 5] [--json]
#include <algorithm>

#include <espalier/kernels/cross_entropy.hpp>
#include <espalier/kernels/load_balancing_loss.hpp>

#include "shapes.hpp"

namespace {

using namespace espalier;
using namespace espalier::bench;

class CrossEntropy {
 public:
  CrossEntropy(DeviceSuite& suite, const ModelShape& m)
      : suite_(suite), n_(suite.options().tiny ? 9 : 1024), v_(m.vocab), name_(m.name) {
    for (std::int64_t i = 0; i < n_; ++i) ids_.push_back(std::int32_t(i * i % v_));
    ids_[1] = -1;  // does not count
  }

  void run() {
    const DeviceArray<std::int32_t> targets(ids_);
    const Tensor<float, Cuda> log_prob(Shape{n_}), shift(Shape{n_});
    const Tensor<std::int32_t, Cuda> top(Shape{n_});
    const auto forward = [&] {
      return kernels::cross_entropy_forward(cuda::ptr(log_prob), cuda::ptr(shift), cuda::ptr(top),
                                            cuda::ptr(logits_), targets.data(), n_, v_,
                                            cuda::stream());
    };
    const double bytes = kernels::cross_entropy_bytes(n_, v_);
    suite_.run({"cross entropy f32 " + name_,
                bytes,
                Unit::bytes,
                forward,
                [&] { return error_of_log_probs(host_rows(log_prob, 0, n_)); },
                1e-5,
                {log_prob, shift, top},
                {{"copy", suite_.copy_of(bytes)}}});
    cuda::check(forward(), "cross_entropy_forward");
    backward(targets, shift);
  }

 private:
  /// log Σ exp of row i, in double.
  double log_sum(const std::vector<double>& z) const {
    const double largest = *std::max_element(z.begin(), z.end());
    double sum = 0;
    for (const double value : z) sum += std::exp(value - largest);
    return largest + std::log(sum);
  }
  double error_of_log_probs(const std::vector<double>& got) const {
    std::vector<double> some, want;
    for (const std::int64_t i : sample_rows(n_)) {
      const auto z = host_rows(logits_, i, 1);
      some.push_back(got[i]);
      want.push_back(ids_[i] < 0 ? 0 : z[ids_[i]] - log_sum(z));
    }
    return relative_error(some, want);
  }

  void backward(const DeviceArray<std::int32_t>& targets, const Tensor<float, Cuda>& shift) {
    const Tensor<bf16, Cuda> d(logits_.shape());
    const DeviceArray<float> scale({1.0f / static_cast<float>(n_)});
    const double bytes = kernels::cross_entropy_backward_bytes(n_, v_, 2);
    suite_.run({"cross entropy backward f32 to bf16 " + name_,
                bytes,
                Unit::bytes,
                [&] {
                  return kernels::cross_entropy_backward(cuda::ptr(d), cuda::ptr(logits_),
                                                         cuda::ptr(shift), targets.data(),
                                                         scale.data(), n_, v_, cuda::stream());
                },
                [&] {
                  std::vector<double> got, want;
                  for (const std::int64_t i : sample_rows(n_)) {
                    const auto z = host_rows(logits_, i, 1), row = host_rows(d, i, 1);
                    const double at = log_sum(z);
                    for (std::int64_t c = 0; c < v_; ++c) {
                      const double one = ids_[i] == c ? 1 : 0;
                      want.push_back(ids_[i] < 0 ? 0 : (std::exp(z[c] - at) - one) / double(n_));
                    }
                    got.insert(got.end(), row.begin(), row.end());
                  }
                  return relative_error(got, want);
                },
                1e-2,
                {d},
                {{"copy", suite_.copy_of(bytes)}}});
  }

  DeviceSuite& suite_;
  std::int64_t n_, v_;
  std::string name_;
  std::vector<std::int32_t> ids_;
  Tensor<float, Cuda> logits_ = random_on_device<float>({n_, v_}, 1);
};

/// The sums of a layer, the loss and the gradient of the logits.
void load_balancing(DeviceSuite& suite, const ModelShape& m, const RoutedTokens& routed) {
  const std::int64_t n = routed.logits.shape(0), e = m.experts;
  const auto logits = to<Cuda>(routed.logits);
  const Tensor<double, Cuda> sums(Shape{2 * e});
  const Tensor<float, Cuda> loss(Shape{1}), d(logits.shape());
  const DeviceArray<float> dloss({1.0f});
  const cuda::Workspace workspace(kernels::load_balancing_workspace_bytes(n, m.experts));
  const auto run = [&] {
    cudaError_t error = cudaMemsetAsync(sums.bytes(), 0, sums.size_bytes(), cuda::stream());
    if (error != cudaSuccess) return error;
    error = kernels::load_balancing_add(sums.data(), cuda::ptr(logits),
                                        static_cast<const std::int32_t*>(routed.chosen.data()),
                                        workspace.data(), n, m.experts, m.top_k, cuda::stream());
    if (error != cudaSuccess) return error;
    error = kernels::load_balancing_loss(cuda::ptr(loss), static_cast<const double*>(sums.data()),
                                         n, m.experts, cuda::stream());
    if (error != cudaSuccess) return error;
    return kernels::load_balancing_backward(cuda::ptr(d), cuda::ptr(logits),
                                            static_cast<const double*>(sums.data()), dloss.data(),
                                            n, n, m.experts, cuda::stream());
  };
  const auto want = [&] {
    std::vector<double> p(static_cast<std::size_t>(e)), share(static_cast<std::size_t>(e));
    for (std::int64_t i = 0; i < n; ++i) {
      const float* z = routed.logits.data() + i * e;
      const double top = *std::max_element(z, z + e);
      double sum = 0;
      for (std::int64_t c = 0; c < e; ++c) sum += std::exp(z[c] - top);
      for (std::int64_t c = 0; c < e; ++c) p[c] += std::exp(z[c] - top) / sum / double(n);
    }
    for (std::int64_t g = 0; g < e; ++g) {
      const auto& at = routed.routing.offsets;
      share[g] = double(at[g + 1] - at[g]) / double(n);
    }
    return double(e) * std::inner_product(p.begin(), p.end(), share.begin(), 0.0);
  };
  suite.run({fmt::format("load balancing f32 {} {}", m.name, routed.name),
             2 * kernels::load_balancing_bytes(n, m.experts, m.top_k, 4),
             Unit::bytes,
             run,
             [&] { return relative_error(host_rows(loss, 0, 1), {want()}); },
             1e-5,
             {sums, loss, d}});
}

}  // namespace

int main(int argc, char** argv) {
  return device_bench_main(argc, argv, "cuda_losses_bench", "Times losses on a GPU.",
                           [](DeviceSuite& suite) {
                             for (const ModelShape& m : models(suite.options())) {
                               CrossEntropy(suite, m).run();
                               const auto all = routed_tokens(m, tokens(suite.options()));
                               for (const RoutedTokens& r : all) load_balancing(suite, m, r);
                             }
                           });
}
