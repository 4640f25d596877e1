// SPDX-License-Identifier: Apache-2.0
// Forward and backward of the ops around the matrix products, at the sizes of a layer:
//   ops_bench [--tokens 512] [--hidden 576] [--heads 9] [--kv-heads 3] [--head-dim 64]
//             [--ffn 1536] [--vocab 49152] [--reps 15]
// Each is set beside what bounds it, measured in the same run: a copy that moves as many bytes, or
// the best matrix product of the run. The cases take turns, and the best of the repetitions counts.
#include <algorithm>
#include <chrono>
#include <cli/program.hpp>
#include <cstring>
#include <functional>

#include <espalier/ops/attention.hpp>
#include <espalier/ops/dropout.hpp>
#include <espalier/ops/linear_cross_entropy.hpp>
#include <espalier/ops/rms_norm.hpp>
#include <espalier/ops/rope.hpp>
#include <espalier/ops/swiglu.hpp>

namespace {

using namespace espalier;

struct Options {
  std::int64_t tokens = 512, hidden = 576, heads = 9, kv_heads = 3, head_dim = 64, ffn = 1536,
               vocab = 49152;
  int reps = 15;
  std::string only;
};

struct Case {
  std::string name;
  double work;                    // bytes, or multiply-adds counted as two
  bool bytes;                     // bounded by the memory, not by arithmetic
  std::function<void()> prepare;  // not timed
  std::function<void()> run;
  double best_us = 1e30;
};

double seconds(const std::function<void()>& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

Tensor<float> random(Shape shape, std::uint64_t seed) {
  constexpr std::int64_t kPeriod = 65537;  // drawing more would take longer than the bench
  Tensor<float> t(shape);
  const Philox philox(seed);
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    t[i] = i < kPeriod ? philox.normal(static_cast<std::uint64_t>(i)) : t[i - kPeriod];
  }
  return t;
}

using V = Var<float>;

/// A pair of cases: the op without a graph, and the sweep back through it. Gradients are dropped
/// between the repetitions, or the sweep would also add up those of `leaves`.
void add_op(std::vector<Case>& cases, const std::string& name, bool bytes, double forward_work,
            double backward_work, const std::vector<V>& leaves, std::function<V()> op) {
  cases.push_back({name, forward_work, bytes, [] {},
                   [op] {
                     const NoGrad no_grad;
                     (void)op();
                   }});
  const auto y = std::make_shared<V>();
  const auto seed = std::make_shared<Tensor<float>>();
  cases.push_back({name + " backward", backward_work, bytes,
                   [=] {
                     for (const V& leaf : leaves) leaf.zero_grad();
                     *y = op();
                     if (!*seed) *seed = random(y->shape(), 9);
                   },
                   [y, seed] { backward(*y, *seed); }});
}

void add_copy(std::vector<Case>& cases, double bytes) {
  const auto n = static_cast<std::int64_t>(bytes / 8);
  const auto from = random({n}, 1), to = random({n}, 2);
  cases.push_back({fmt::format("copy {:.1f} MB", bytes * 1e-6), bytes, true, [] {},
                   [=] {
                     parallel_for(n, 1 << 15, [&](std::int64_t begin, std::int64_t end) {
                       std::memcpy(to.data() + begin, from.data() + begin, (end - begin) * 4);
                     });
                   }});
}

void add_gemm(std::vector<Case>& cases, std::int64_t m, std::int64_t n, std::int64_t k) {
  const auto a = random({m, k}, 1), b = random({n, k}, 2), c = random({m, n}, 3);
  cases.push_back({fmt::format("gemm {}x{}x{}", m, n, k), 2.0 * static_cast<double>(m * n * k),
                   false, [] {},
                   [=] {
                     cpu::gemm<float>(m, n, k, {a.data(), DType::f32, k},
                                      {b.data(), DType::f32, k, true}, c.data(), n);
                   }});
}

std::vector<Case> make_cases(const Options& o) {
  std::vector<Case> cases;
  const std::int64_t n = o.tokens;
  const double wide = 4.0 * static_cast<double>(n * o.ffn);
  const double normal = 4.0 * static_cast<double>(n * o.hidden);
  const double q_bytes = 4.0 * static_cast<double>(n * o.heads * o.head_dim);
  add_copy(cases, 3 * wide);
  add_copy(cases, 2 * normal);
  add_gemm(cases, n, o.ffn, o.hidden);
  add_gemm(cases, n, o.hidden, o.ffn);

  const V x = parameter(random({n, o.hidden}, 1)), w = parameter(random({o.hidden}, 2));
  add_op(cases, "rms_norm", true, 2 * normal, 3 * normal, {x, w},
         [=] { return rms_norm(x, w, 1e-5f); });
  const V gate = parameter(random({n, o.ffn}, 3)), up = parameter(random({n, o.ffn}, 4));
  add_op(cases, "swiglu", true, 3 * wide, 5 * wide, {gate, up}, [=] { return swiglu(gate, up); });
  const V q = parameter(random({n, o.heads, o.head_dim}, 5));
  const V k = parameter(random({n, o.kv_heads, o.head_dim}, 6));
  const V v = parameter(random({n, o.kv_heads, o.head_dim}, 7));
  Tensor<std::int32_t> positions(Shape{n});
  for (std::int64_t i = 0; i < n; ++i) positions[i] = static_cast<std::int32_t>(i);
  add_op(cases, "rope", true, 2 * q_bytes, 2 * q_bytes, {q},
         [=] { return rope(q, positions, 1e4); });
  add_op(cases, "dropout", true, 2 * normal, 2 * normal, {x},
         [=] { return dropout(x, 0.1f, 1, 2); });
  // Keys that a row does not see are not counted: 2 products forward, 5 backward.
  const double product = static_cast<double>(n * (n + 1) * o.heads * o.head_dim);
  add_op(cases, "attention", false, 2 * product, 5 * product, {q, k, v}, [=] {
    return attention(q, k, v, {0, n});
  });

  const auto cache_k = random({4096, o.kv_heads, o.head_dim}, 8);
  const auto cache_v = random({4096, o.kv_heads, o.head_dim}, 9);
  const auto one = random({1, o.heads, o.head_dim}, 10), y = random({1, o.heads, o.head_dim}, 11);
  const cpu::AttentionHeads heads{o.heads, o.kv_heads, o.head_dim};
  cases.push_back(
      {"attention, 1 row of 4096", 8.0 * static_cast<double>(cache_k.numel()), true, [] {},
       [=] {
         cpu::attention_forward<float>(
             {{one.data(), cache_k.data(), cache_v.data(), y.data(), 1, 4096, nullptr}}, heads);
       }});

  const AnyVar frozen(random({o.vocab, o.hidden}, 12));
  Tensor<std::int32_t> targets(Shape{n});
  for (std::int64_t i = 0; i < n; ++i) targets[i] = static_cast<std::int32_t>(i * 7919 % o.vocab);
  const double head = 2.0 * static_cast<double>(n * o.hidden) * static_cast<double>(o.vocab);
  cases.push_back({"cross entropy", head, false, [] {},
                   [=] {
                     const NoGrad no_grad;
                     (void)linear_cross_entropy(x, frozen, targets);
                   }});
  cases.push_back({"cross entropy with dx", 2 * head, false, [] {},
                   [=] { (void)linear_cross_entropy(x, frozen, targets); }});
  cases.push_back({"log probs", head, false, [] {},
                   [=] { (void)linear_log_probs(x.value(), frozen.any(), targets); }});
  return cases;
}

void run(const Options& o, const CommonOptions& common) {
  std::vector<Case> cases = make_cases(o);
  if (!o.only.empty()) {
    std::erase_if(cases, [&](const Case& c) {
      const bool baseline = c.name.rfind("copy", 0) == 0 || c.name.rfind("gemm", 0) == 0;
      return !baseline && c.name.find(o.only) == std::string::npos;
    });
  }
  for (int rep = 0; rep < o.reps; ++rep) {
    for (Case& c : cases) {
      c.prepare();
      c.best_us = std::min(c.best_us, seconds(c.run) * 1e6);
    }
  }
  double copy = 0, product = 0;  // the best rates, in work per us
  for (const Case& c : cases) {
    if (c.name.rfind("copy", 0) == 0) copy = std::max(copy, c.work / c.best_us);
    if (c.name.rfind("gemm", 0) == 0) product = std::max(product, c.work / c.best_us);
  }
  if (common.json) {
    fmt::print("{{\"threads\": {}, \"isa\": \"{}\", \"cases\": [", num_threads(),
               cpu::name(cpu::isa()));
    for (const Case& c : cases) {
      fmt::print("{}{{\"case\": \"{}\", \"us\": {:.1f}, \"{}\": {:.2f}, \"share\": {:.3f}}}",
                 &c == cases.data() ? "" : ", ", c.name, c.best_us, c.bytes ? "gb_per_s" : "gflops",
                 c.work / c.best_us * 1e-3, c.work / c.best_us / (c.bytes ? copy : product));
    }
    fmt::print("]}}\n");
    return;
  }
  fmt::print("{} threads, {}, best of {}; share: of the copy or of the product\n", num_threads(),
             cpu::name(cpu::isa()), o.reps);
  fmt::print("{:26} {:>10} {:>10} {:>8}\n", "case", "us", "rate", "share");
  for (const Case& c : cases) {
    fmt::print("{:26} {:10.1f} {:10.1f} {:8} {:5.2f}\n", c.name, c.best_us,
               c.work / c.best_us * 1e-3, c.bytes ? "GB/s" : "GFLOP/s",
               c.work / c.best_us / (c.bytes ? copy : product));
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return espalier::run_program(
      argc, argv, "ops_bench", "Times the ops around the matrix products of a layer.",
      [&](CLI::App& app) {
        const auto size = CLI::Range(std::int64_t{1}, std::int64_t{1} << 30);
        app.add_option("--tokens", o.tokens, "Rows")->check(size);
        app.add_option("--hidden", o.hidden, "Width of the residual stream")->check(size);
        app.add_option("--heads", o.heads, "Query heads")->check(size);
        app.add_option("--kv-heads", o.kv_heads, "Key and value heads")->check(size);
        app.add_option("--head-dim", o.head_dim, "Width of a head")->check(size);
        app.add_option("--ffn", o.ffn, "Width inside an expert")->check(size);
        app.add_option("--vocab", o.vocab, "Tokens in the vocabulary")->check(size);
        app.add_option("--reps", o.reps, "Repetitions")->check(size);
        app.add_option("--only", o.only, "Cases whose name contains this, and the baselines");
      },
      [&](const espalier::CommonOptions& common) { run(o, common); });
}
