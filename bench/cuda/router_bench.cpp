// SPDX-License-Identifier: Apache-2.0
// Logits to experts, weights and row maps, and the gradient of the logits. All of it is bounded by
// launches at these sizes. The chain counts routes while it routes; its peer counts them apart.
//   cuda_router_bench [--only NAME] [--reps 30] [--alike 5] [--json]
#include <espalier/kernels/router_top_k.hpp>

#include "shapes.hpp"

namespace {

using namespace espalier;
using namespace espalier::bench;

template <FloatElement T>
class Router {
 public:
  Router(DeviceSuite& suite, const ModelShape& m, const RoutedTokens& routed)
      : suite_(suite),
        m_(m),
        n_(routed.logits.shape(0)),
        logits_(converted<T>(routed.logits)),
        z_(to<Cuda>(logits_)),
        chosen_want_(best_experts(converted<float>(logits_), m.top_k)),
        routing_(make_routing(chosen_want_, m.experts)),
        suffix_(fmt::format(" {} {} {}", name(dtype_of<T>::value), m.name, routed.name)) {}

  void run() {
    forward();
    chain();
    backward();
  }

 private:
  cudaError_t route(std::int32_t* counts) const {
    return kernels::router_top_k_forward(cuda::ptr(weights_), chosen_.data(), counts, cuda::ptr(z_),
                                         nullptr, n_, m_.experts, m_.rule(), cuda::stream());
  }

  /// Weight of slot j of row i, in double.
  double weight(std::int64_t i, int j) const {
    const auto z = [&](std::int64_t e) {
      return static_cast<double>(static_cast<float>(logits_[i * m_.experts + e]));
    };
    const std::int32_t* chosen = chosen_want_.data() + i * m_.top_k;
    const double top = z(chosen[0]);
    double sum = 0;
    const int terms = m_.renormalize ? m_.top_k : m_.experts;
    for (int t = 0; t < terms; ++t) sum += std::exp(z(terms == m_.experts ? t : chosen[t]) - top);
    return std::exp(z(chosen[j]) - top) / sum;
  }
  double error_of_weights() const {
    if (!std::ranges::equal(host(chosen_), chosen_want_.span())) return 1;
    std::vector<double> want;
    for (std::int64_t i = 0; i < n_; ++i) {
      for (int j = 0; j < m_.top_k; ++j) want.push_back(weight(i, j));
    }
    return relative_error(host_rows(weights_, 0, n_), want);
  }

  void forward() {
    const double bytes = kernels::router_top_k_bytes(n_, m_.experts, m_.top_k, sizeof(T));
    suite_.run({"router" + suffix_,
                bytes,
                Unit::bytes,
                [&] { return route(nullptr); },
                [&] { return error_of_weights(); },
                1e-5,
                {weights_, chosen_},
                {{"copy", suite_.copy_of(bytes)}}});
  }

  void chain() {
    const auto maps = [&](bool counted) {
      const cudaError_t error = route(counted ? counts_.data() : nullptr);
      if (error != cudaSuccess) return error;
      if (!counted) {
        const cudaError_t counting = kernels::count_routes(counts_.data(), chosen_.data(), n_,
                                                           m_.experts, m_.top_k, cuda::stream());
        if (counting != cudaSuccess) return counting;
      }
      return kernels::make_routing(offsets_.data(), rows_.data(), slots_.data(), chosen_.data(),
                                   counts_.data(), n_, m_.experts, m_.top_k, cuda::stream());
    };
    const auto error = [&] {
      const bool same = std::ranges::equal(host(rows_), routing_.row_of_slot.span()) &&
                        std::ranges::equal(host(slots_), routing_.slot_of_row.span()) &&
                        std::ranges::equal(host(offsets_), routing_.offsets);
      return same ? error_of_weights() : 1.0;
    };
    suite_.run({"logits to row maps" + suffix_,
                kernels::router_top_k_bytes(n_, m_.experts, m_.top_k, sizeof(T)) +
                    kernels::make_routing_bytes(n_, m_.experts, m_.top_k),
                Unit::bytes,
                [&] { return maps(true); },
                error,
                1e-5,
                {weights_, chosen_, offsets_, rows_, slots_},
                {{"counted apart", [&] { return maps(false); }}}});
  }

  void backward() {
    const auto dweights = random_on_device<float>({n_, m_.top_k}, 5);
    const Tensor<T, Cuda> d(Shape{n_, m_.experts});
    cuda::check(route(nullptr), "router");
    const double bytes = kernels::router_top_k_backward_bytes(n_, m_.experts, sizeof(T), m_.rule());
    const auto error = [&] {
      std::vector<double> got, want;
      for (const std::int64_t i : sample_rows(n_)) {
        for (const double v : host_rows(d, i, 1)) got.push_back(v);
        for (const double v : gradient(i, host_rows(dweights, i, 1))) want.push_back(v);
      }
      return relative_error(got, want);
    };
    suite_.run({"router backward" + suffix_,
                bytes,
                Unit::bytes,
                [&] {
                  return kernels::router_top_k_backward(
                      cuda::ptr(d), cuda::ptr(dweights), cuda::ptr(weights_), chosen_.data(),
                      cuda::ptr(z_), n_, m_.experts, m_.rule(), cuda::stream());
                },
                error,
                sizeof(T) == 2 ? 1e-2 : 1e-5,
                {d},
                {{"copy", suite_.copy_of(bytes)}}});
  }
  /// dz = p (g - <p, g>), over the softmax's terms; g is 0 where nobody was chosen.
  std::vector<double> gradient(std::int64_t i, const std::vector<double>& dweights) const {
    std::vector<double> d(static_cast<std::size_t>(m_.experts), 0.0);
    const std::int32_t* chosen = chosen_want_.data() + i * m_.top_k;
    double dot = 0;
    for (int j = 0; j < m_.top_k; ++j) dot += weight(i, j) * dweights[j];
    if (!m_.renormalize) {
      const double z0 = static_cast<float>(logits_[i * m_.experts + chosen[0]]);
      for (int e = 0; e < m_.experts; ++e) {
        const double z = static_cast<float>(logits_[i * m_.experts + e]);
        d[e] = -weight(i, 0) * std::exp(z - z0) * dot;
      }
      for (int j = 0; j < m_.top_k; ++j) d[chosen[j]] += weight(i, j) * dweights[j];
    } else {
      for (int j = 0; j < m_.top_k; ++j) d[chosen[j]] = weight(i, j) * (dweights[j] - dot);
    }
    return d;
  }

  DeviceSuite& suite_;
  ModelShape m_;
  std::int64_t n_;
  Tensor<T> logits_;
  Tensor<T, Cuda> z_;
  Tensor<std::int32_t> chosen_want_;
  Routing routing_;
  std::string suffix_;
  Tensor<float, Cuda> weights_{Shape{n_, m_.top_k}};
  Tensor<std::int32_t, Cuda> chosen_{Shape{n_, m_.top_k}}, offsets_{Shape{m_.experts + 1}};
  Tensor<std::int32_t, Cuda> rows_{Shape{n_ * m_.top_k}}, slots_{Shape{n_ * m_.top_k}};
  Tensor<std::int32_t, Cuda> counts_{Shape{kernels::route_chunks(n_) * m_.experts}};
};

}  // namespace

int main(int argc, char** argv) {
  return device_bench_main(
      argc, argv, "cuda_router_bench", "Times the routing of tokens to experts on a GPU.",
      [](DeviceSuite& suite) {
        for (const ModelShape& m : models(suite.options())) {
          for (const RoutedTokens& routed : routed_tokens(m, tokens(suite.options()))) {
            Router<float>(suite, m, routed).run();
            Router<bf16>(suite, m, routed).run();
          }
        }
      });
}
