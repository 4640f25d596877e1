// SPDX-License-Identifier: Apache-2.0
// Causal grouped-query attention, forward and backward over packed segments, and decoding, one row
// against a long cache:
//   attention_bench [--set small,large] [--type f32,bf16] [--isa avx2] [--only NAME] [--reps 15]
// `small` has the heads of SmolLM2-135M, `large` those of Mixtral 8x7B. Passes are set beside the
// best f32 matrix product of the run, and only what a row sees counts: 4 P flops a pair of a row
// and a key forward (two products), 10 P backward (five). Decoding is set beside a copy that reads
// and writes as many bytes as the keys and values have.
#include <algorithm>

#include <cli/program.hpp>

#include <espalier/ops/cpu/attention.hpp>
#include <espalier/ops/cpu/attention_backward.hpp>
#include <espalier/ops/cpu/gemm.hpp>

#include "bench.hpp"

namespace {

using namespace espalier;

using Options = bench::SizedOptions;

struct Heads {
  std::int64_t heads, kv_heads, head_dim;
};

/// Best f32 product of square matrices, in flop/s.
double gemm_ceiling() {
  constexpr std::int64_t kSize = 2048;
  const auto a = bench::random({kSize, kSize}, 1), b = bench::random({kSize, kSize}, 2);
  const Tensor<float> c(Shape{kSize, kSize});
  const double best = bench::best_seconds(7, [&] {
    cpu::gemm<float>(kSize, kSize, kSize, {a.data(), DType::f32, kSize},
                     {b.data(), DType::f32, kSize}, c.data(), kSize);
  });
  return 2.0 * kSize * kSize * kSize / best;
}

/// `segments` sequences with their own keys; the last rows of each are queries.
template <class T>
struct Problem {
  Heads z;
  std::int64_t segments, q_rows, kv_rows;
  cpu::AttentionHeads h{z.heads, z.kv_heads, z.head_dim};
  Tensor<T> q = bench::random<T>({segments * q_rows, z.heads, z.head_dim}, 1);
  Tensor<T> k = bench::random<T>({segments * kv_rows, z.kv_heads, z.head_dim}, 2);
  Tensor<T> v = bench::random<T>({segments * kv_rows, z.kv_heads, z.head_dim}, 3);
  Tensor<T> dy = bench::random<T>({segments * q_rows, z.heads, z.head_dim}, 4);
  Tensor<T> y{q.shape()}, dq{q.shape()}, dk{k.shape()}, dv{v.shape()};
  Tensor<acc_t<T>> log_sum{Shape{segments * q_rows, z.heads}};

  void forward() const {
    std::vector<cpu::AttentionSegment<T>> work;
    for (std::int64_t s = 0; s < segments; ++s) {
      const std::int64_t on_q = s * q_rows * h.q_stride(), on_kv = s * kv_rows * h.kv_stride();
      work.push_back({q.data() + on_q, k.data() + on_kv, v.data() + on_kv, y.data() + on_q, q_rows,
                      kv_rows, log_sum.data() + s * q_rows * z.heads});
    }
    cpu::attention_forward<T>(work, h);
  }
  void backward() const {
    std::vector<cpu::AttentionBackwardSegment<T>> work;
    for (std::int64_t s = 0; s < segments; ++s) {
      const std::int64_t on_q = s * q_rows * h.q_stride(), on_kv = s * kv_rows * h.kv_stride();
      work.push_back({q.data() + on_q, k.data() + on_kv, v.data() + on_kv, y.data() + on_q,
                      dy.data() + on_q, log_sum.data() + s * q_rows * z.heads, dq.data() + on_q,
                      dk.data() + on_kv, dv.data() + on_kv, q_rows});
    }
    cpu::attention_backward<T>(work, h);
  }
  double pairs() const {
    const auto last = static_cast<double>(kv_rows), rows = static_cast<double>(q_rows);
    return static_cast<double>(segments * z.heads) * rows * (last - (rows - 1) / 2);
  }
  double kv_bytes() const { return static_cast<double>(2 * k.size_bytes()); }
};

template <class T>
double dot(const T* a, const T* b, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    sum += static_cast<double>(static_cast<acc_t<T>>(a[i])) *
           static_cast<double>(static_cast<acc_t<T>>(b[i]));
  }
  return sum;
}

/// Largest error of the last row's first head, forward or backward, by plain loops in double.
template <class T>
double error_of(const Problem<T>& p, bool backward) {
  const std::int64_t width = p.z.head_dim, first = (p.segments - 1) * p.kv_rows;
  const std::int64_t at = (p.q.shape(0) - 1) * p.h.q_stride();
  const auto key = [&](const Tensor<T>& t, std::int64_t j) {
    return t.data() + (first + j) * p.h.kv_stride();
  };
  std::vector<double> weights(p.kv_rows), want(width);
  double largest = -1e300, sum = 0, mean = 0;
  for (std::int64_t j = 0; j < p.kv_rows; ++j) {
    weights[j] = dot(p.q.data() + at, key(p.k, j), width) / std::sqrt(static_cast<double>(width));
    largest = std::max(largest, weights[j]);
  }
  for (double& w : weights) sum += w = std::exp(w - largest);
  for (std::int64_t j = 0; j < p.kv_rows; ++j) {
    weights[j] /= sum;
    if (backward) mean += weights[j] * dot(p.dy.data() + at, key(p.v, j), width);
  }
  for (std::int64_t j = 0; j < p.kv_rows; ++j) {
    const double of_key = backward
                              ? weights[j] * (dot(p.dy.data() + at, key(p.v, j), width) - mean) /
                                    std::sqrt(static_cast<double>(width))
                              : weights[j];
    const T* from = key(backward ? p.k : p.v, j);
    for (std::int64_t c = 0; c < width; ++c) {
      want[c] += of_key * static_cast<double>(static_cast<acc_t<T>>(from[c]));
    }
  }
  double worst = 0;
  const T* got = (backward ? p.dq : p.y).data() + at;
  for (std::int64_t c = 0; c < width; ++c) {
    const double error = std::abs(static_cast<double>(static_cast<acc_t<T>>(got[c])) - want[c]);
    if (!(error <= worst)) worst = std::isnan(error) ? HUGE_VAL : error;
  }
  return worst;
}

template <class T>
double tolerance() {
  return sizeof(T) == 2 ? 1e-2 : 1e-5;
}

template <class T>
void bench_passes(bench::Suite& suite, const std::string& prefix, const Heads& z,
                  std::int64_t segments, std::int64_t rows, double ceiling) {
  const std::string name = prefix + fmt::format("{} x {} rows", segments, rows);
  if (!suite.wants(name) && !suite.wants(name + " backward")) return;
  const Problem<T> p{z, segments, rows, rows};
  const double per_product = 2.0 * static_cast<double>(z.head_dim) * p.pairs();
  suite.run({name,
             2 * per_product,
             bench::Unit::flops,
             ceiling,
             {{"espalier", [&] { p.forward(); }}},
             [&](const std::string&) { return error_of(p, false); },
             tolerance<T>()});
  p.forward();
  suite.run({name + " backward",
             5 * per_product,
             bench::Unit::flops,
             ceiling,
             {{"espalier", [&] { p.backward(); }}},
             [&](const std::string&) { return error_of(p, true); },
             tolerance<T>()});
}

template <class T>
void bench_decoding(bench::Suite& suite, const std::string& prefix, const Heads& z,
                    std::int64_t segments, std::int64_t keys) {
  const std::string name = prefix + fmt::format("decode {} x {} keys", segments, keys);
  if (!suite.wants(name)) return;
  const Problem<T> p{z, segments, 1, keys};
  suite.run({name,
             p.kv_bytes(),
             bench::Unit::bytes,
             suite.copy_ceiling(p.kv_bytes()),
             {{"espalier", [&] { p.forward(); }}},
             [&](const std::string&) { return error_of(p, false); },
             tolerance<T>()});
}

template <class T>
void bench_type(bench::Suite& suite, const Options& o, const std::string& type, double ceiling) {
  if (!o.wants_type(type)) return;
  for (const std::string& set : o.sets) {
    const bool small = set == "small";
    const Heads z = small ? Heads{9, 3, 64} : Heads{32, 8, 128};
    const std::string prefix = fmt::format("{} {} ", type, set);
    bench_passes<T>(suite, prefix, z, small ? 32 : 8, 64, ceiling);
    bench_passes<T>(suite, prefix, z, 1, 512, ceiling);
    bench_passes<T>(suite, prefix, z, 1, 2048, ceiling);
    bench_decoding<T>(suite, prefix, z, 1, 512);
    bench_decoding<T>(suite, prefix, z, 1, 4096);
    bench_decoding<T>(suite, prefix, z, 4, 16384);
  }
}

void run(const Options& o, const CommonOptions& common) {
  bench::Suite suite("attention_bench", {}, o.common, common.json);
  const double ceiling = gemm_ceiling();
  if (!common.json) fmt::print("best f32 matrix product: {:.0f} GFLOP/s\n", ceiling * 1e-9);
  bench_type<float>(suite, o, "f32", ceiling);
  bench_type<bf16>(suite, o, "bf16", ceiling);
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "attention_bench", "Times attention: whole passes and decoding.",
      [&](CLI::App& app) { bench::add_options(app, o); },
      [&](const CommonOptions& common) {
        bench::force_isa(o.common.isa);
        run(o, common);
      });
}
