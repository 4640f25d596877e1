// SPDX-License-Identifier: Apache-2.0
// Causal grouped-query attention in bf16 over packed segments, forward and backward, beside the
// plain implementation; and decoding: one row of each of 16 sequences against the keys of its
// cache, which is bounded by memory.
//   cuda_attention_bench [--only NAME] [--reps 30] [--alike 5] [--json]
#include <espalier/kernels/attention.hpp>
#include <espalier/kernels/attention_plain.hpp>

#include "shapes.hpp"

namespace {

using namespace espalier;
using namespace espalier::bench;
using T = bf16;
using K = __nv_bfloat16;
using Segment = kernels::AttentionSegment<K>;

/// S segments of L keys, of which the last Q are rows.
class Attention {
 public:
  Attention(DeviceSuite& suite, const ModelShape& m, int segments, std::int64_t q_rows,
            std::int64_t kv_rows)
      : suite_(suite),
        sizes_{segments * q_rows, segments, m.heads, m.kv_heads, m.head_dim, 0},
        q_rows_(q_rows),
        kv_rows_(kv_rows),
        suffix_(fmt::format(" bf16 {} {}x{}", m.name, segments, kv_rows)),
        segments_(list()) {}

  void forward() {
    const double flops = kernels::attention_forward_flops(pairs(), sizes_.heads, sizes_.head_dim);
    suite_.run({"attention" + suffix_,
                flops,
                Unit::flops,
                [&] { return launch_forward(); },
                [&] { return error_of_rows(); },
                2e-2,
                {y_, log_sum_},
                {{"plain", [&] {
                    return kernels::attention_plain_forward(cuda::ptr(y_), cuda::ptr(log_sum_),
                                                            cuda::ptr(q_), segments_.data(), sizes_,
                                                            cuda::stream());
                  }}}});
  }
  void decode() {
    const double bytes =
        kernels::attention_forward_bytes(sizes_, sizes_.segments * kv_rows_, sizeof(T));
    suite_.run({"decoding" + suffix_,
                bytes,
                Unit::bytes,
                [&] { return launch_forward(); },
                [&] { return error_of_rows(); },
                2e-2,
                {y_, log_sum_},
                {{"copy", suite_.copy_of(bytes)}}});
  }
  void backward() {
    cuda::check(launch_forward(), "attention_forward");
    const Tensor<T, Cuda> dq(q_.shape()), dk(k_.shape()), dv(k_.shape());
    const Tensor<float, Cuda> dot(log_sum_.shape());
    const double flops = kernels::attention_backward_flops(pairs(), sizes_.heads, sizes_.head_dim);
    const auto with = [&](auto launcher) {
      return launcher({cuda::ptr(dq), cuda::ptr(dk), cuda::ptr(dv), cuda::ptr(dot), cuda::ptr(dy_),
                       cuda::ptr(y_), cuda::ptr(log_sum_), cuda::ptr(q_)},
                      segments_.data(), sizes_, cuda::stream());
    };
    suite_.run({"attention backward" + suffix_,
                flops,
                Unit::flops,
                [&] { return with(kernels::attention_backward<K>); },
                [&] { return error_of_gradients(dq, dk, dv); },
                5e-2,
                {dq, dk, dv},
                {{"plain", [&] { return with(kernels::attention_plain_backward<K>); }}}});
  }

 private:
  std::vector<Segment> list() const {
    std::vector<Segment> all;
    for (int s = 0; s < sizes_.segments; ++s) {
      const std::int64_t at = s * kv_rows_ * sizes_.kv_heads * sizes_.head_dim;
      all.push_back({cuda::ptr(k_) + at, cuda::ptr(v_) + at, s * q_rows_, q_rows_, kv_rows_});
    }
    return all;
  }
  double pairs() const { return sizes_.segments * kernels::attention_pairs(q_rows_, kv_rows_); }
  cudaError_t launch_forward() const {
    return kernels::attention_forward(cuda::ptr(y_), cuda::ptr(log_sum_), cuda::ptr(q_),
                                      segments_.data(), sizes_, cuda::stream());
  }

  /// Head a of row i of the last segment, with its keys: softmax weights, and what follows.
  struct Row {
    std::vector<double> q, dy, y, weights;
  };
  std::vector<double> head(const Tensor<T, Cuda>& t, std::int64_t row, int a) const {
    const auto all = host_rows(t, row, 1);
    const std::int64_t p = sizes_.head_dim;
    return {all.begin() + a * p, all.begin() + (a + 1) * p};
  }
  static double dot(const std::vector<double>& a, const std::vector<double>& b) {
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  }
  struct Keys {
    std::vector<std::vector<double>> k, v;
  };
  Keys keys(int g) const {
    const std::int64_t p = sizes_.head_dim, first = (sizes_.segments - 1) * kv_rows_;
    const auto k = host_rows(k_, first, kv_rows_), v = host_rows(v_, first, kv_rows_);
    Keys keys;
    for (std::int64_t j = 0; j < kv_rows_; ++j) {
      const std::int64_t at = (j * sizes_.kv_heads + g) * p;
      keys.k.emplace_back(k.begin() + at, k.begin() + at + p);
      keys.v.emplace_back(v.begin() + at, v.begin() + at + p);
    }
    return keys;
  }
  Row row(std::int64_t i, int a, const Keys& keys) const {
    const std::int64_t at = (sizes_.segments - 1) * q_rows_ + i;
    Row r{head(q_, at, a), head(dy_, at, a), std::vector<double>(sizes_.head_dim), {}};
    const std::int64_t seen = kv_rows_ - q_rows_ + i + 1;
    double top = -HUGE_VAL, sum = 0;
    for (std::int64_t j = 0; j < seen; ++j) {
      r.weights.push_back(dot(r.q, keys.k[j]) / std::sqrt(double(sizes_.head_dim)));
      top = std::max(top, r.weights.back());
    }
    for (double& w : r.weights) sum += w = std::exp(w - top);
    for (std::int64_t j = 0; j < seen; ++j) {
      r.weights[j] /= sum;
      for (int c = 0; c < sizes_.head_dim; ++c) r.y[c] += r.weights[j] * keys.v[j][c];
    }
    return r;
  }
  double error_of_rows() const {
    const int a = sizes_.heads - 1;
    const Keys of_head = keys(sizes_.kv_heads - 1);
    std::vector<double> got, want;
    for (const std::int64_t i : sample_rows(q_rows_)) {
      for (const double v : head(y_, (sizes_.segments - 1) * q_rows_ + i, a)) got.push_back(v);
      for (const double v : row(i, a, of_head).y) want.push_back(v);
    }
    return relative_error(got, want);
  }
  /// dq of sampled rows; dk and dv of the last keys, which few rows see.
  double error_of_gradients(const Tensor<T, Cuda>& dq, const Tensor<T, Cuda>& dk,
                            const Tensor<T, Cuda>& dv) const {
    const int g = sizes_.kv_heads - 1, shared = sizes_.heads / sizes_.kv_heads;
    const double scale = 1 / std::sqrt(double(sizes_.head_dim));
    const Keys of_head = keys(g);
    const std::int64_t first = (sizes_.segments - 1) * kv_rows_, last = kv_rows_ - 1;
    std::vector<double> got, want;
    for (const std::int64_t i : sample_rows(q_rows_)) {
      const Row r = row(i, sizes_.heads - 1, of_head);
      std::vector<double> d(r.q.size());
      for (std::size_t j = 0; j < r.weights.size(); ++j) {
        const double ds = r.weights[j] * (dot(r.dy, of_head.v[j]) - dot(r.dy, r.y));
        for (std::size_t c = 0; c < d.size(); ++c) d[c] += scale * ds * of_head.k[j][c];
      }
      for (const double v : head(dq, first + i, sizes_.heads - 1)) got.push_back(v);
      want.insert(want.end(), d.begin(), d.end());
    }
    double worst = relative_error(got, want);
    std::vector<double> want_dk(sizes_.head_dim), want_dv(sizes_.head_dim);
    for (int a = g * shared; a < (g + 1) * shared; ++a) {
      const Row r = row(last, a, of_head);
      const double w = r.weights[last], ds = w * (dot(r.dy, of_head.v[last]) - dot(r.dy, r.y));
      for (int c = 0; c < sizes_.head_dim; ++c) {
        want_dk[c] += scale * ds * r.q[c];
        want_dv[c] += w * r.dy[c];
      }
    }
    worst = std::max(worst, relative_error(head(dk, first + last, g), want_dk));
    return std::max(worst, relative_error(head(dv, first + last, g), want_dv));
  }

  DeviceSuite& suite_;
  kernels::AttentionSizes sizes_;
  std::int64_t q_rows_, kv_rows_;
  std::string suffix_;
  std::int64_t kv_width_ = std::int64_t{sizes_.kv_heads} * sizes_.head_dim,
               width_ = std::int64_t{sizes_.heads} * sizes_.head_dim;
  Tensor<T, Cuda> q_ = random_on_device<T>({sizes_.rows, width_}, 1);
  Tensor<T, Cuda> k_ = random_on_device<T>({sizes_.segments * kv_rows_, kv_width_}, 2);
  Tensor<T, Cuda> v_ = random_on_device<T>({sizes_.segments * kv_rows_, kv_width_}, 3);
  Tensor<T, Cuda> dy_ = random_on_device<T>({sizes_.rows, width_}, 4);
  Tensor<T, Cuda> y_{q_.shape()};
  Tensor<float, Cuda> log_sum_{Shape{sizes_.rows, sizes_.heads}};
  DeviceArray<Segment> segments_;
};

}  // namespace

int main(int argc, char** argv) {
  return device_bench_main(argc, argv, "cuda_attention_bench", "Times attention on a GPU.",
                           [](DeviceSuite& suite) {
                             const bool tiny = suite.options().tiny;
                             for (const ModelShape& m : models(suite.options())) {
                               for (const int segments : {1, 8}) {
                                 const std::int64_t length = tiny ? 24 / segments : 4096 / segments;
                                 Attention packed(suite, m, segments, length, length);
                                 packed.forward();
                                 packed.backward();
                               }
                               Attention(suite, m, tiny ? 2 : 16, 1, tiny ? 33 : 4096).decode();
                             }
                           });
}
