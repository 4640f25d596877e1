// SPDX-License-Identifier: Apache-2.0
// Forward and backward of the ops around the matrix products, on f32 and bf16:
//   ops_bench [--set small,large] [--type f32,bf16] [--isa avx2] [--only NAME] [--reps 15]
// `small` is a layer of SmolLM2-135M on 512 tokens, most of whose tensors stay in the caches;
// `large` is one of Mixtral 8x7B, whose tensors come from memory. An op that is bounded by memory
// is set beside a copy that reads and writes as many bytes in all; one that is bounded by
// arithmetic beside the best matrix product of its type. Bytes are those of operands and results,
// each once.
#include <algorithm>

#include <cli/program.hpp>

#include <espalier/ops/attention.hpp>
#include <espalier/ops/cpu/ceilings.hpp>
#include <espalier/ops/dropout.hpp>
#include <espalier/ops/linear_cross_entropy.hpp>
#include <espalier/ops/reference/rms_norm.hpp>
#include <espalier/ops/reference/rope.hpp>
#include <espalier/ops/reference/swiglu.hpp>
#include <espalier/ops/rms_norm.hpp>
#include <espalier/ops/rope.hpp>
#include <espalier/ops/swiglu.hpp>

#include "bench.hpp"

namespace {

using namespace espalier;
using Numbers = std::vector<double>;

using Options = bench::SizedOptions;

struct Sizes {
  std::string name;
  std::int64_t tokens, hidden, heads, kv_heads, head_dim, ffn, vocab, gate_tokens, head_tokens;
};

std::vector<Sizes> sizes(const Options& o) {
  std::vector<Sizes> wanted;
  for (const Sizes& s : {Sizes{"small", 512, 576, 9, 3, 64, 1536, 49152, 512, 512},
                         Sizes{"large", 16384, 4096, 32, 8, 128, 14336, 32000, 4096, 256}}) {
    if (o.wants_set(s.name)) wanted.push_back(s);
  }
  return wanted;
}

constexpr std::int64_t kVerified = 2;  // rows

Numbers first_rows(const AnyTensor& t) {
  const std::int64_t rows = std::min(kVerified, t.shape(0));
  const Tensor<double> wide = converted<double>(t.rows(0, rows));
  return {wide.data(), wide.data() + wide.numel()};
}

/// The largest error relative to the largest number.
double error_of(const AnyTensor& got, const Numbers& want) {
  const Numbers numbers = first_rows(got);
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double error = std::abs(numbers[i] - want[i]);
    if (!(error <= worst)) worst = error;
    largest = std::max(largest, std::abs(want[i]));
  }
  return worst / largest;
}

template <FloatElement T>
class Ops {
 public:
  using V = Var<T>;

  Ops(bench::Suite& suite, const Sizes& s, double product_ceiling)
      : suite_(suite), s_(s), product_ceiling_(product_ceiling) {}

  void run() {
    norm();
    gate();
    turn();
    drop();
    attend();
    decode();
    head();
  }

 private:
  static constexpr double kTolerance = sizeof(T) == 2 ? 1e-2 : 1e-5;
  static constexpr double kBytes = sizeof(T);

  std::string title(const std::string& op) const {
    return fmt::format("{} {} {}", op, name(dtype_of<T>::value), s_.name);
  }
  double ceiling(double work, bench::Unit unit) {
    return unit == bench::Unit::bytes ? suite_.copy_ceiling(work) : product_ceiling_;
  }
  bool wants(const std::string& op) const {
    return suite_.wants(title(op)) || suite_.wants(title(op + " backward"));
  }

  /// The op without a graph, and the sweep back through it. `want` gives the first rows of y and of
  /// the gradient of leaves[0] for the gradient `dy` of y.
  struct Want {
    Numbers y, dx;
  };
  void pair(const std::string& op, bench::Unit unit, double forward, double backward_work,
            const std::vector<AnyVar>& leaves, const std::function<V()>& f,
            const std::function<Want(const Numbers& dy)>& want = nullptr) {
    V y = f();
    const Tensor<T> dy = bench::random<T>(y.shape(), 9);
    const auto error = [&](bool of_gradient) -> std::function<double(const std::string&)> {
      if (!want) return nullptr;
      return [&, of_gradient](const std::string&) {
        const Want w = want(first_rows(dy));
        return of_gradient ? error_of(leaves[0].grad(), w.dx) : error_of(y.any(), w.y);
      };
    };
    const auto alone = [&] {
      const NoGrad no_grad;
      y = f();
    };
    suite_.run({title(op),
                forward,
                unit,
                ceiling(forward, unit),
                {{"espalier", alone, [&] { y = V(); }}},
                error(false),
                kTolerance});
    const auto again = [&] {
      for (const AnyVar& leaf : leaves) leaf.zero_grad();
      y = f();
    };
    suite_.run({title(op + " backward"),
                backward_work,
                unit,
                ceiling(backward_work, unit),
                {{"espalier", [&] { backward(y, dy); }, again}},
                error(true),
                kTolerance});
  }

  V leaf(const Shape& shape, std::uint64_t seed) const {
    return parameter(bench::random<T>(shape, seed));
  }

  void norm() {
    if (!wants("rms_norm")) return;
    const V x = leaf({s_.tokens, s_.hidden}, 1);
    const auto w = parameter(bench::random<acc_t<T>>({s_.hidden}, 2));
    const double bytes = kBytes * static_cast<double>(x.any().numel());
    pair(
        "rms_norm", bench::Unit::bytes, 2 * bytes, 3 * bytes, {x, w},
        [=] { return rms_norm(x, w, 1e-5f); },
        [=](const Numbers& dy) -> Want {
          const Numbers xs = first_rows(x.any()), ws = [&] {
            const auto wide = converted<double>(w.any());
            return Numbers(wide.data(), wide.data() + wide.numel());
          }();
          return {reference::rms_norm(xs, ws, 1e-5),
                  reference::rms_norm_backward(dy, xs, ws, 1e-5).dx};
        });
  }

  void gate() {
    if (!wants("swiglu")) return;
    const V g = leaf({s_.gate_tokens, s_.ffn}, 3), up = leaf({s_.gate_tokens, s_.ffn}, 4);
    const double bytes = kBytes * static_cast<double>(g.any().numel());
    pair(
        "swiglu", bench::Unit::bytes, 3 * bytes, 5 * bytes, {g, up}, [=] { return swiglu(g, up); },
        [=](const Numbers& dy) -> Want {
          const Numbers gs = first_rows(g.any()), us = first_rows(up.any());
          return {reference::swiglu(gs, us), reference::swiglu_backward(dy, gs, us).dgate};
        });
  }

  void turn() {
    if (!wants("rope")) return;
    const V q = leaf({s_.tokens, s_.heads, s_.head_dim}, 5);
    Tensor<std::int32_t> positions(Shape{s_.tokens});
    for (std::int64_t i = 0; i < s_.tokens; ++i) positions[i] = static_cast<std::int32_t>(i);
    const double bytes = kBytes * static_cast<double>(q.any().numel());
    const std::vector<std::int32_t> first(positions.data(), positions.data() + kVerified);
    pair(
        "rope", bench::Unit::bytes, 2 * bytes, 2 * bytes, {q},
        [=] { return rope(q, positions, 1e4); },
        [=, this](const Numbers& dy) -> Want {
          const auto turned = [&](const Numbers& from, double direction) {
            return reference::rope(from, first, s_.heads, s_.head_dim, 1e4, direction);
          };
          return {turned(first_rows(q.any()), 1), turned(dy, -1)};
        });
  }

  void drop() {
    if (!wants("dropout")) return;
    const V x = leaf({s_.tokens, s_.hidden}, 1);
    const double bytes = kBytes * static_cast<double>(x.any().numel());
    pair("dropout", bench::Unit::bytes, 2 * bytes, 2 * bytes, {x},
         [=] { return dropout(x, 0.1f, 1, 2); });
  }

  // Keys that a row does not see are not counted: 2 products forward, 5 backward.
  void attend() {
    if (!wants("attention")) return;
    const std::int64_t n = std::min<std::int64_t>(s_.tokens, 2048);
    const V q = leaf({n, s_.heads, s_.head_dim}, 5), k = leaf({n, s_.kv_heads, s_.head_dim}, 6),
            v = leaf({n, s_.kv_heads, s_.head_dim}, 7);
    const double product = static_cast<double>(n * (n + 1) * s_.heads * s_.head_dim);
    pair("attention", bench::Unit::flops, 2 * product, 5 * product, {q, k, v}, [=] {
      return attention(q, k, v, {0, n});
    });
  }

  void decode() {
    if (!suite_.wants(title("attention of 1 row"))) return;
    const std::int64_t n = 4096;
    const auto k = bench::random<T>({n, s_.kv_heads, s_.head_dim}, 8), v = k.clone();
    const auto q = bench::random<T>({1, s_.heads, s_.head_dim}, 10);
    const Tensor<T> y(q.shape());
    const double bytes = 2 * kBytes * static_cast<double>(k.numel());
    const cpu::AttentionHeads heads{s_.heads, s_.kv_heads, s_.head_dim};
    const auto attend_one = [&] {
      cpu::attention_forward<T>({{q.data(), k.data(), v.data(), y.data(), 1, n, nullptr}}, heads);
    };
    suite_.run({title("attention of 1 row"),
                bytes,
                bench::Unit::bytes,
                suite_.copy_ceiling(bytes),
                {{"espalier", attend_one}}});
  }

  void head() {
    const std::int64_t n = s_.head_tokens;
    const V x = leaf({n, s_.hidden}, 1);
    const AnyVar w(bench::random<T>({s_.vocab, s_.hidden}, 12));
    Tensor<std::int32_t> targets(Shape{n});
    for (std::int64_t i = 0; i < n; ++i)
      targets[i] = static_cast<std::int32_t>(i * 7919 % s_.vocab);
    const double flops = 2.0 * static_cast<double>(n * s_.hidden) * static_cast<double>(s_.vocab);
    const auto add = [&](const std::string& op, double products, const std::function<void()>& f) {
      if (!suite_.wants(title(op))) return;
      suite_.run(
          {title(op), products * flops, bench::Unit::flops, product_ceiling_, {{"espalier", f}}});
    };
    add("cross entropy", 1, [&] {
      const NoGrad no_grad;
      (void)linear_cross_entropy(x, w, targets);
    });
    add("cross entropy with dx", 2, [&] { (void)linear_cross_entropy(x, w, targets); });
    add("log probs", 1, [&] { (void)linear_log_probs(x.value(), w.any(), targets); });
    const Tensor<acc_t<T>> logits(Shape{n, s_.vocab});
    add("  their product alone", 1, [&] {
      cpu::gemm<acc_t<T>>(n, s_.vocab, s_.hidden, detail::matrix(x.any()),
                          detail::matrix(w.any(), true), logits.data(), s_.vocab);
    });
  }

  bench::Suite& suite_;
  Sizes s_;
  double product_ceiling_;
};

void run(const Options& o, const CommonOptions& common) {
  bench::Suite suite("ops_bench", {}, o.common, common.json);
  const trace::Ceilings best = cpu::measure_ceilings();
  for (const Sizes& s : sizes(o)) {
    if (o.wants_type("f32")) Ops<float>(suite, s, best.flops).run();
    if (o.wants_type("bf16")) Ops<bf16>(suite, s, best.narrow_flops).run();
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "ops_bench", "Times the ops around the matrix products of a layer.",
      [&](CLI::App& app) { bench::add_options(app, o); },
      [&](const CommonOptions& common) {
        bench::force_isa(o.common.isa);
        run(o, common);
      });
}
