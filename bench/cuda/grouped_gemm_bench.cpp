// SPDX-License-Identifier: Apache-2.0
// The matrix products of an expert layer in bf16: up [R, H] to [R, F], down, their gradients of
// inputs (nn) and of weights (tn, into f32); first by the implementation that is taken without a
// workspace, then by wgmma, where the GPU has it. Peers are a loop of cuBLAS over the experts that
// have rows, with sizes that the host knows, and, on uniform loads, the plain implementation.
//   cuda_grouped_gemm_bench [--only NAME] [--reps 30] [--alike 5] [--json]
#include <espalier/kernels/grouped_gemm.hpp>
#include <espalier/kernels/grouped_gemm_plain.hpp>
#include <espalier/kernels/grouped_gemm_wgmma.hpp>

#include "shapes.hpp"

namespace {

using namespace espalier;
using namespace espalier::bench;
using K = __nv_bfloat16;

/// c of group g, or its rows, is a (rows) times b: by layout as in grouped_gemm.hpp.
enum class Layout { nt, nn, tn };

class Product {
 public:
  /// `n` and `k` are those of nt and nn; for tn c_g is [n, k], a [R, n], b [R, k].
  Product(DeviceSuite& suite, const ModelShape& m, const RoutedTokens& routed, std::string what,
          Layout layout, std::int64_t n, std::int64_t k)
      : suite_(suite),
        routed_(routed),
        layout_(layout),
        groups_(m.experts),
        n_(n),
        k_(k),
        title_(fmt::format("{} {} {}", what, m.name, routed.name)) {}

  void run() {
    if (suite_.wants(title_)) time(title_, [this] { return ours(); });
  }
  void run_wgmma() {
    if (!suite_.wants(title_ + " wgmma")) return;
    allocate();
    if (wgmma() == cudaErrorNotSupported) return;
    time(title_ + " wgmma", [this] { return wgmma(); });
  }

 private:
  void time(const std::string& title, const std::function<cudaError_t()>& product) {
    allocate();
    const bool tn = layout_ == Layout::tn;
    std::vector<DeviceContender> peers = {{"cuBLAS loop", [this] { return cublas_loop(); }}};
    if (routed_.name == "uniform") peers.push_back({"plain", [this] { return plain(); }});
    suite_.run({title,
                kernels::grouped_gemm_flops(routed_.rows(), n_, k_),
                Unit::flops,
                product,
                [this] { return error(); },
                tn ? 1e-4 : 1e-2,
                {tn ? AnyTensor(c_of_groups_) : AnyTensor(c_)},
                peers});
  }

  void allocate() {
    if (workspace_) return;
    const std::int64_t r = routed_.rows();
    workspace_ = std::make_unique<DeviceArray<char>>(
        std::vector<char>(kernels::grouped_gemm_workspace(groups_)));
    if (layout_ == Layout::tn) {
      a_ = random_on_device<bf16>({r, n_}, 1, 0.5f);
      b_rows_ = random_on_device<bf16>({r, k_}, 2, 0.5f);
      c_of_groups_ = Tensor<float, Cuda>(Shape{groups_ * n_, k_});
      std::vector<float*> to;
      for (int g = 0; g < groups_; ++g) to.push_back(cuda::ptr(c_of_groups_) + g * n_ * k_);
      c_pointers_ = std::make_unique<DeviceArray<float*>>(to);
    } else {
      a_ = random_on_device<bf16>({r, k_}, 1, 0.5f);
      b_ = random_on_device<bf16>({groups_ * n_, k_}, 2, 0.02f);
      c_ = Tensor<bf16, Cuda>(Shape{r, n_});
      std::vector<const K*> from;
      for (int g = 0; g < groups_; ++g) from.push_back(cuda::ptr(b_) + g * n_ * k_);
      b_pointers_ = std::make_unique<DeviceArray<const K*>>(from);
    }
  }

  template <class NT, class NN, class TN>
  cudaError_t launch(NT nt, NN nn, TN tn) const {
    const std::int32_t* offsets = routed_.offsets.data();
    const K* a = cuda::ptr(a_);
    if (layout_ == Layout::tn) {
      const K* b = cuda::ptr(b_rows_);
      return tn(c_pointers_->data(), a, b, offsets, groups_, n_, k_, 1.0f, 0.0f, cuda::stream());
    }
    const auto rows = [&](auto f) {
      return f(cuda::ptr(c_), a, b_pointers_->data(), offsets, groups_, routed_.rows(), n_, k_,
               1.0f, 0.0f, cuda::stream());
    };
    return layout_ == Layout::nt ? rows(nt) : rows(nn);
  }
#define ESP_CALL(f) [](auto... arguments) { return kernels::f(arguments...); }
#define ESP_IMPLEMENTATION(prefix)                       \
  launch(ESP_CALL(prefix##_rows<kernels::GemmForm::nt>), \
         ESP_CALL(prefix##_rows<kernels::GemmForm::nn>), ESP_CALL(prefix##_tn))
  cudaError_t ours() const {
    return ESP_IMPLEMENTATION(grouped_gemm);
  }
  cudaError_t plain() const {
    return ESP_IMPLEMENTATION(grouped_gemm_plain);
  }

  cudaError_t wgmma() const {
#define ESP_CALL_WITH_WORKSPACE(f) \
  [&](auto... arguments) { return kernels::f(arguments..., workspace_->data()); }
    return launch(ESP_CALL_WITH_WORKSPACE(grouped_gemm_wgmma_rows<kernels::GemmForm::nt>),
                  ESP_CALL_WITH_WORKSPACE(grouped_gemm_wgmma_rows<kernels::GemmForm::nn>),
                  ESP_CALL_WITH_WORKSPACE(grouped_gemm_wgmma_tn));
  }

  cudaError_t cublas_loop() const {
    const auto& offsets = routed_.routing.offsets;
    for (int g = 0; g < groups_; ++g) {
      const std::int64_t first = offsets[g], rows = offsets[g + 1] - first;
      if (layout_ == Layout::tn) {
        float* const c = c_of_groups_.data() + g * n_ * k_;
        cuda::gemm(n_, k_, rows, {a_.data() + first * n_, DType::bf16, n_, true},
                   {b_rows_.data() + first * k_, DType::bf16, k_}, c, k_);
      } else if (rows > 0) {
        const bool transposed = layout_ == Layout::nt;
        cuda::gemm(rows, n_, k_, {a_.data() + first * k_, DType::bf16, k_},
                   {b_.data() + g * n_ * k_, DType::bf16, transposed ? k_ : n_, transposed},
                   c_.data() + first * n_, n_);
      }
    }
    return cudaSuccess;
  }

  /// Some elements against double sums, relative to the root of the sum of squared terms.
  double error() const {
    double worst = 0;
    const auto check = [&](double got, const std::vector<double>& a, const std::vector<double>& b) {
      double sum = 0, squares = 0;
      for (std::size_t i = 0; i < a.size(); ++i) {
        sum += a[i] * b[i];
        squares += a[i] * a[i] * b[i] * b[i];
      }
      const double e = std::abs(got - sum) / std::max(std::sqrt(squares), std::abs(sum));
      if (!(e <= worst) && !(sum == 0 && got == 0)) worst = std::isnan(e) ? HUGE_VAL : e;
    };
    if (layout_ == Layout::tn) {
      check_weights(check);
    } else {
      check_rows(check);
    }
    return worst;
  }
  template <class Check>
  void check_rows(const Check& check) const {
    const auto& offsets = routed_.routing.offsets;
    for (const std::int64_t row : sample_rows(routed_.rows())) {
      const auto g = std::upper_bound(offsets.begin(), offsets.end(), row) - offsets.begin() - 1;
      const auto a = host_rows(a_, row, 1), c = host_rows(c_, row, 1);
      for (const std::int64_t j : {std::int64_t{0}, n_ - 1}) check(c[j], a, column(g, j));
    }
  }
  std::vector<double> column(std::int64_t g, std::int64_t j) const {
    if (layout_ == Layout::nt) return host_rows(b_, g * n_ + j, 1);
    const Tensor<bf16> b(b_.rows(g * n_, (g + 1) * n_).on_host());  // [K, N] in this memory
    std::vector<double> values;
    for (std::int64_t l = 0; l < k_; ++l) values.push_back(static_cast<float>(b[l * n_ + j]));
    return values;
  }
  template <class Check>
  void check_weights(const Check& check) const {
    const auto& offsets = routed_.routing.offsets;
    for (const std::int64_t g : sample_rows(groups_)) {
      const std::int64_t first = offsets[g], rows = offsets[g + 1] - first;
      const Tensor<bf16> a(a_.rows(first, first + rows).on_host()),
          b(b_rows_.rows(first, first + rows).on_host());
      for (const std::int64_t i : sample_rows(n_)) {
        const auto c = host_rows(c_of_groups_, g * n_ + i, 1);
        for (const std::int64_t j : sample_rows(k_)) {
          std::vector<double> x, y;
          for (std::int64_t r = 0; r < rows; ++r) {
            x.push_back(static_cast<float>(a[r * n_ + i]));
            y.push_back(static_cast<float>(b[r * k_ + j]));
          }
          check(c[j], x, y);
        }
      }
    }
  }

  DeviceSuite& suite_;
  const RoutedTokens& routed_;
  Layout layout_;
  int groups_;
  std::int64_t n_, k_;
  std::string title_;
  Tensor<bf16, Cuda> a_, b_, b_rows_, c_;
  Tensor<float, Cuda> c_of_groups_;
  std::unique_ptr<DeviceArray<const K*>> b_pointers_;
  std::unique_ptr<DeviceArray<float*>> c_pointers_;
  std::unique_ptr<DeviceArray<char>> workspace_;
};

}  // namespace

int main(int argc, char** argv) {
  return device_bench_main(
      argc, argv, "cuda_grouped_gemm_bench", "Times the matrix products of experts on a GPU.",
      [](DeviceSuite& suite) {
        for (const bool wgmma : {false, true}) {
          for (const ModelShape& m : models(suite.options())) {
            for (const RoutedTokens& routed : routed_tokens(m, tokens(suite.options()))) {
              const auto time = [&](const char* what, Layout layout, std::int64_t n,
                                    std::int64_t k) {
                Product product(suite, m, routed, what, layout, n, k);
                if (wgmma) {
                  product.run_wgmma();
                } else {
                  product.run();
                }
              };
              time("up nt", Layout::nt, m.ffn, m.hidden);
              time("down nt", Layout::nt, m.hidden, m.ffn);
              time("up dX nn", Layout::nn, m.hidden, m.ffn);
              time("down dX nn", Layout::nn, m.ffn, m.hidden);
              time("up dW tn", Layout::tn, m.ffn, m.hidden);
            }
          }
        }
      });
}
