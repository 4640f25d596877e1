// SPDX-License-Identifier: Apache-2.0
// recompute() against the same program without it: every value and every gradient, bit by bit.
#include <espalier/autograd/recompute.hpp>
#include <espalier/ops/add.hpp>
#include <espalier/ops/dropout.hpp>
#include <espalier/ops/linear.hpp>
#include <espalier/ops/rms_norm.hpp>
#include <espalier/ops/scale.hpp>
#include <espalier/ops/sum.hpp>
#include <espalier/ops/swiglu.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

using V = Var<float>;
using Leaves = std::vector<V>;

V leaf(Shape shape, std::uint64_t seed, double scale_by = 1) {
  return parameter(make_tensor<float>(shape, normal(shape.numel(), seed, scale_by)));
}

/// The same values in leaves of their own.
Leaves copied(const Leaves& leaves) {
  Leaves copies;
  for (const V& v : leaves) copies.push_back(parameter(v.value().clone()));
  return copies;
}

/// Runs `program(leaves, wrap)` twice, where wrap is recompute() or a plain call, and compares the
/// root and all gradients.
template <class Program>
void same_as_without(const Leaves& leaves, const Program& program) {
  const auto kept = [](auto f, const auto&... inputs) { return f(inputs...); };
  const auto recomputed = [](auto f, const auto&... inputs) { return recompute(f, inputs...); };
  const Leaves plain = copied(leaves);
  const V want = program(plain, kept);
  backward(want);
  const V got = program(leaves, recomputed);
  backward(got);
  REQUIRE(same_bits(got.any(), want.any()));
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    CAPTURE(i);
    REQUIRE(static_cast<bool>(leaves[i].grad()) == static_cast<bool>(plain[i].grad()));
    if (plain[i].grad()) REQUIRE(same_bits(leaves[i].grad(), plain[i].grad()));
  }
}

/// x + W2 dropout(swiglu(W1 norm(x), W3 norm(x))).
V layer(const V& x, const Leaves& w, std::uint64_t stream) {
  const V n = rms_norm(x, w[0], 1e-5f);
  const V h = dropout(swiglu(linear(n, w[1]), linear(n, w[2])), 0.3f, 7, stream);
  return add(x, linear(h, w[3]));
}
Leaves layer_weights(std::int64_t h, std::int64_t f, std::uint64_t seed) {
  return {parameter(Tensor<float>({h}, 1.0f)), leaf({f, h}, seed, 0.3), leaf({f, h}, seed + 1, 0.3),
          leaf({h, f}, seed + 2, 0.3)};
}

}  // namespace

TEST_CASE("recompute: gradients of inputs and of captured parameters, with dropout",
          "[autograd][recompute]") {
  Leaves leaves = layer_weights(16, 24, 1);
  leaves.push_back(leaf({5, 16}, 9));
  same_as_without(leaves, [](const Leaves& l, auto wrap) {
    return sum(wrap([l](const V& x) { return layer(x, l, 3); }, l[4]));
  });
}

TEST_CASE("recompute: layers that share weights, an input, and a value from outside",
          "[autograd][recompute]") {
  // The weight norm l[0] is used within every layer, between them, and in what they start from: its
  // gradient is a sum of many terms, in one order.
  Leaves leaves = layer_weights(16, 24, 1);
  leaves.push_back(leaf({5, 16}, 9));
  same_as_without(leaves, [](const Leaves& l, auto wrap) {
    const V start = rms_norm(l[4], l[0], 1e-5f);
    V x = start;
    for (std::uint64_t i = 0; i < 3; ++i) {
      x = wrap([l, i, start](const V& in) { return add(layer(in, l, i), start); }, x);
      x = rms_norm(x, l[0], 1e-5f);
    }
    return sum(swiglu(x, start));
  });
}

TEST_CASE(
    "recompute: several outputs, of which some lead nowhere, come twice, or come from outside",
    "[autograd][recompute]") {
  const Leaves leaves = {leaf({33}, 1), leaf({33}, 2), leaf({33}, 3)};
  same_as_without(leaves, [](const Leaves& l, auto wrap) {
    const auto f = [l](const V& x) {
      const V a = swiglu(x, l[1]), b = add(a, l[2]), unused = scale(b, 5);
      const V constant(Tensor<float>({33}, 2.0f));
      return std::tuple{b, a, unused, a, x, constant};
    };
    const auto [b, a, unused, again, x, constant] = wrap(f, l[0]);
    return sum(add(add(swiglu(b, a), swiglu(again, x)), swiglu(a, constant)));
  });
  const auto one_of = recompute([&](const V& x) { return std::array{x, add(x, x)}; }, leaves[0]);
  REQUIRE(one_of[0].node() == leaves[0].node());
}

TEST_CASE("recompute: calls within calls", "[autograd][recompute]") {
  Leaves leaves = layer_weights(8, 12, 1);
  leaves.push_back(leaf({3, 8}, 9));
  same_as_without(leaves, [](const Leaves& l, auto wrap) {
    const auto inner = [l](const V& x) { return layer(x, l, 1); };
    const auto middle = [l, inner, wrap](const V& x) {
      return add(layer(wrap(inner, wrap(inner, x)), l, 2), x);
    };
    const auto outer = [middle, wrap](const V& x) { return scale(wrap(middle, x), 0.5); };
    return sum(wrap(outer, wrap(outer, l[4])));
  });
}

TEST_CASE("recompute: parts without a graph, or nothing to train", "[autograd][recompute]") {
  const Leaves leaves = {leaf({9}, 1), leaf({9}, 2)};
  same_as_without(leaves, [](const Leaves& l, auto wrap) {
    return sum(wrap(
        [l](const V& x) {
          V fixed;
          {
            const NoGrad no_grad;
            fixed = swiglu(x, l[1]);
          }
          REQUIRE(!fixed.requires_grad());
          return swiglu(fixed, l[0]);
        },
        l[0]));
  });
  int calls = 0;
  const auto f = [&calls](const V& x) { return ++calls, add(x, x); };
  const V constant(Tensor<float>({2}, 1.0f));
  REQUIRE(!recompute(f, constant).requires_grad());
  {
    const NoGrad no_grad;
    REQUIRE(!recompute(f, leaves[0]).requires_grad());
  }
  REQUIRE(calls == 2);
  backward(sum(recompute(f, leaves[0])), {.mode = GradMode::ignore});
  REQUIRE(calls == 3);  // no gradient is wanted: not run again
  const V y = sum(recompute(f, leaves[0]));
  {
    const NoGrad no_grad;  // of no concern to what backward recomputes
    backward(y);
  }
  REQUIRE(calls == 5);
}

TEST_CASE("recompute: the gradient of the formula", "[autograd][recompute]") {
  const std::vector<double> x = normal(11, 1);
  const auto formula = [](const auto& z) {
    auto total = z[0] * 0.0;
    for (const auto& v : z) {
      const auto s = v / (1.0 + std::exp(-v)) * v;
      total += 3.0 * s * s / (1.0 + std::exp(-s));
    }
    return total;
  };
  const auto a = parameter(make_tensor<double>({11}, x));
  const auto f = [](const Var<double>& z) {
    const auto s = swiglu(z, z);
    return scale(swiglu(s, s), 3);
  };
  backward(sum(recompute(f, a)));
  const Mismatch m = compare(to_vector(a.grad()), complex_step_grad(formula, x), 1e-13, 1e-12);
  INFO(m);
  REQUIRE(m.count == 0);
}

TEST_CASE("recompute: misuse is refused", "[autograd][recompute]") {
  const V a = leaf({4}, 1);
  std::int64_t n = 4;
  const V y = sum(recompute(
      [&n, a](const V&) {
        const V half(Tensor<float>(Shape{n}, 1.0f));
        return n == 4 ? swiglu(a, half) : swiglu(half, half);
      },
      a));
  n = 3;
  REQUIRE_THROWS_WITH(backward(y),
                      "recompute: value 0 of the function was [4], and [3] when run again; it "
                      "must compute the same each time");
  V leaked;
  (void)recompute([&leaked](const V& x) { return leaked = add(x, x); }, a);
  REQUIRE_THROWS_WITH(backward(leaked),
                      "backward: 'add' was computed inside recompute(); return its value from the "
                      "function to use it outside");
  const V once = sum(recompute([](const V& x) { return add(x, x); }, a));
  backward(once);
  REQUIRE_THROWS_WITH(backward(once),
                      "backward: the graph through 'sum' was already used; run the forward again");
}

TEST_CASE("recompute: a further layer costs the memory of its input", "[autograd][recompute]") {
  const std::int64_t rows = 64, h = 32, f = 128;
  const Leaves w = layer_weights(h, f, 1);
  const auto peak = [&](std::uint64_t layers, bool again) {
    for (const V& v : w) v.zero_grad();
    V y(make_tensor<float>({rows, h}, normal(rows * h, 5)));
    reset_pool_peak();
    const std::size_t before = pool_stats().in_use_bytes;
    for (std::uint64_t i = 0; i < layers; ++i) {
      const auto one = [&w, i](const V& in) { return layer(in, w, i); };
      y = again ? recompute(one, y) : one(y);
    }
    backward(sum(y));
    return pool_stats().peak_bytes - before;
  };
  const std::size_t between = rows * h * sizeof(float), inside = 3 * rows * f * sizeof(float);
  const std::size_t kept = peak(16, false) - peak(8, false);
  const std::size_t recomputed = peak(16, true) - peak(8, true);
  CAPTURE(kept, recomputed, between, inside);
  REQUIRE(kept >= 8 * (between + inside));
  REQUIRE(recomputed >= 8 * between);
  REQUIRE(recomputed <= 8 * between + 1024);
}
