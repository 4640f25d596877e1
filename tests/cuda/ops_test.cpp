// SPDX-License-Identifier: Apache-2.0
// Every op on the device Cuda against the same op on the CPU: values, gradients, messages. Where
// the kernels run in the simulator, the host cannot read device memory.
#include <espalier/cuda.hpp>

#include "cuda/both_devices.hpp"
#include "support/router_rules.hpp"

using namespace espalier;
using namespace espalier::test;

#define DEVICE_TYPES float, bf16

TEMPLATE_TEST_CASE("device Cuda: add, mul, scale and swiglu as on the CPU", "[cuda]",
                   DEVICE_TYPES) {
  using T = TestType;
  const Shape shape{5, 33};
  on_both_devices<T>({shape, shape},
                     [](auto a, auto b) { return add(scale(mul(a, b), 0.5), swiglu(a, b)); });
}

TEMPLATE_TEST_CASE("device Cuda: rms_norm as on the CPU", "[cuda]", DEVICE_TYPES) {
  using T = TestType;
  on_both_devices<T>({{7, 40}}, [](auto x) {
    using D = typename decltype(x.value())::device_type;
    const Var<float, D> w(to<D>(make_tensor<float>({40}, normal(40, 9))));
    return rms_norm(x, w, 1e-5f);
  });
}

TEMPLATE_TEST_CASE("device Cuda: rope as on the CPU", "[cuda]", DEVICE_TYPES) {
  const Tensor<std::int32_t> positions({4}, std::vector<std::int32_t>{0, 5, 1, 300});
  on_both_devices<TestType>({{4, 3, 8}}, [&](auto x) { return rope(x, positions, 10000.0); });
  RopeConfig config{.dims = 6};
  config.interleaved = GENERATE(false, true);
  config.scaling = RopeConfig::Scaling::yarn;
  config.factor = 4;
  config.original_positions = 64;
  config.attention_factor = 1.2;
  on_both_devices<TestType>({{4, 3, 9}}, [&](auto x) { return rope(x, positions, config); });
  CHECK_THROWS_WITH(rope(Var<float, Cuda>(Tensor<float, Cuda>({4, 1, 4})), positions, config),
                    Catch::Contains("rope: dims is 6, x is [4, 1, 4]"));
}

TEMPLATE_TEST_CASE("device Cuda: mask_columns as on the CPU", "[cuda]", DEVICE_TYPES) {
  on_both_devices<TestType>({{4, 3}}, [&](auto x) { return mask_columns(x, {true, false, true}); });
}

TEST_CASE("device Cuda: embedding as on the CPU, with its gradient", "[cuda]") {
  const Tensor<std::int32_t> ids({5}, std::vector<std::int32_t>{3, 0, 3, 1, 3});
  on_both_devices<float>({{4, 9}}, [&](auto table) {
    using D = typename decltype(table.value())::device_type;
    return embedding<float, D>(ids, table);
  });
  CHECK_THROWS_WITH((embedding<float, Cuda>(ids, Var<float, Cuda>(Tensor<float, Cuda>({3, 2})))),
                    Catch::Contains("id 3 at position 0, the table has 3 rows"));
}

TEST_CASE("device Cuda: cast there and back", "[cuda]") {
  on_both_devices<float>({{4, 9}}, [&](auto x) { return cast<float>(cast<bf16>(x)); });
}

TEST_CASE("device Cuda: copies to the device and back, more than the pinned buffers hold",
          "[cuda]") {
  std::vector<Tensor<float>> sent;
  std::vector<Tensor<float, Cuda>> there;
  for (const std::int64_t n : {1, 5'000'000, 3, 4'194'304, 77}) {
    sent.push_back(Tensor<float>(Shape{n}));
    for (std::int64_t i = 0; i < n; ++i) sent.back()[i] = static_cast<float>(i * 7 % 1000003);
    there.push_back(to<Cuda>(sent.back()));
  }
  for (std::size_t i = 0; i < sent.size(); ++i) REQUIRE(same_bits(to<Cpu>(there[i]), sent[i]));
}

TEST_CASE("device Cuda: a tensor of the host is refused", "[cuda]") {
  const AnyTensor host = Tensor<float>({2}, 1.0f);
  CHECK_THROWS_WITH((Tensor<float, Cuda>(host)),
                    Catch::Contains("lives on cpu, asked for on cuda"));
  CHECK_THROWS_WITH(add(Var<float, Cuda>(Tensor<float, Cuda>({2}, 1.0f)),
                        Var<float, Cuda>(Tensor<float, Cuda>({3}, 1.0f))),
                    Catch::Contains("add: a is [2], b is [3]"));
}

TEMPLATE_TEST_CASE("device Cuda: a routed layer as on the CPU, with gradients", "[cuda]",
                   DEVICE_TYPES) {
  using T = TestType;
  const auto products = GENERATE(cuda::ExpertProducts::kernels, cuda::ExpertProducts::cublas_loop);
  cuda::expert_products() = products;
  for (const bool renormalize : {true, false}) {
    on_both_devices<T>({{9, 6}, {9, 5}, {6, 6}}, [&](auto x, auto logits, auto trained) {
      using D = typename decltype(x.value())::device_type;
      const auto routed = router_top_k(logits, {.top_k = 2, .renormalize = renormalize});
      std::vector<AnyVar> experts;
      for (std::uint64_t e = 0; e < 5; ++e) {
        experts.emplace_back(to<D>(make_tensor<T>({6, 6}, normal_of<T>(36, 20 + e))));
      }
      experts[2] = trained;
      const auto rows =
          grouped_linear(dispatch(x, routed.routing), experts, routed.routing.offsets);
      return combine(rows, routed.weights, routed.routing);
    });
  }
  cuda::expert_products() = cuda::ExpertProducts::kernels;
}

TEMPLATE_TEST_CASE("device Cuda: the weights of a router as on the CPU by each rule", "[cuda]",
                   DEVICE_TYPES) {
  using T = TestType;
  for (const RouterCase& c : router_cases(12, 3, 3, 2)) {
    CAPTURE(c.name);
    const AnyTensor bias = make_tensor<bf16>({12}, normal_of<bf16>(12, 6, 0.3));
    std::vector<Tensor<std::int32_t>> chosen;
    on_both_devices<T>({{9, 12}}, [&](auto logits) {
      const auto routed = router_top_k(logits, c.rule, c.bias ? bias : AnyTensor());
      chosen.push_back(on_host(routed.routing).chosen);
      return routed.weights;
    });
    REQUIRE(same_bits(chosen.at(0), chosen.at(1)));
  }
  CHECK_THROWS_WITH(router_top_k(Var<T, Cuda>(Tensor<T, Cuda>({2, 3}, T{1})), {.groups = 2}),
                    Catch::Contains("3 experts in 2 groups"));
}

TEMPLATE_TEST_CASE("device Cuda: linear with LoRA and dropout as on the CPU", "[cuda]",
                   DEVICE_TYPES) {
  using T = TestType;
  on_both_devices<T>({{7, 12}}, [](auto x) {
    using D = typename decltype(x.value())::device_type;
    const auto on = [](Shape shape, std::uint64_t seed, auto type) {
      using E = decltype(type);
      return to<D>(make_tensor<E>(shape, normal_of<E>(shape.numel(), seed)));
    };
    const AnyVar w(on({10, 12}, 3, T{}));
    const LoraPair pair{parameter(on({4, 12}, 4, float{})), parameter(on({10, 4}, 5, float{}))};
    return grouped_linear<T, D>(x, {w}, one_group<D>(7), {pair}, 0.5, dropout(x, 0.25f, 1, 2));
  });
}

// Ranks and widths of the tensor-core implementation where T has 2 bytes, and of none.
TEMPLATE_TEST_CASE("device Cuda: experts with LoRA as on the CPU, gradients of a pair with them",
                   "[cuda]", DEVICE_TYPES) {
  using T = TestType;
  const bool in_f32 = GENERATE(false, true);  // as some checkpoints store them
  for (const auto& sizes : {std::pair<std::int64_t, std::int64_t>{16, 8}, {6, 3}}) {
    const std::int64_t width = sizes.first, rank = sizes.second;
    on_both_devices<T>({{9, width}, {rank, width}, {24, rank}}, [&](auto x, auto a, auto b) {
      using D = typename decltype(x.value())::device_type;
      const auto on = [](Shape shape, std::uint64_t seed, auto type) {
        using E = decltype(type);
        return to<D>(make_tensor<E>(shape, normal_of<E>(shape.numel(), seed)));
      };
      const auto routed = router_top_k(Var<T, D>(on({9, 5}, 30, T{})), {.top_k = 2});
      std::vector<AnyVar> experts;
      std::vector<LoraPair> pairs;
      for (std::uint64_t e = 0; e < 5; ++e) {
        const Shape shape{24, width};
        experts.push_back(in_f32 ? AnyVar(on(shape, 20 + e, float{}))
                                 : AnyVar(on(shape, 20 + e, T{})));
        pairs.push_back({parameter(on({rank, width}, 40 + e, float{})),
                         parameter(on({24, rank}, 50 + e, float{}))});
      }
      pairs[2] = {a, b};
      const auto rows =
          grouped_linear(dispatch(x, routed.routing), experts, routed.routing.offsets, pairs, 0.5);
      return combine(rows, routed.weights, routed.routing);
    });
  }
}

TEMPLATE_TEST_CASE("device Cuda: attention of packed segments as on the CPU", "[cuda]",
                   DEVICE_TYPES) {
  on_both_devices<TestType>({{9, 4, 8}, {9, 2, 8}, {9, 2, 8}}, [](auto q, auto k, auto v) {
    return attention(q, k, v, {0, 5, 5, 9}, 3);
  });
}

TEMPLATE_TEST_CASE("device Cuda: attention with sinks as on the CPU, with their gradient", "[cuda]",
                   DEVICE_TYPES) {
  on_both_devices<TestType>({{9, 4, 8}, {9, 2, 8}, {4}}, [](auto q, auto kv, auto sinks) {
    return attention(q, kv, kv, {0, 5, 5, 9}, 3, sinks);
  });
  on_both_devices<TestType>({{9, 4, 8}, {9, 2, 8}}, [](auto q, auto kv) {
    using D = typename decltype(q.value())::device_type;
    const AnyVar frozen(to<D>(make_tensor<float>({4}, normal(4, 9))));
    return attention(q, kv, kv, {0, 9}, 0, frozen);
  });
  const Var<float, Cuda> x(Tensor<float, Cuda>({4, 2, 8}, 1.0f));
  CHECK_THROWS_WITH(attention(x, x, x, {0, 4}, 0, AnyVar(Tensor<float, Cuda>({3}, 1.0f))),
                    Catch::Contains("attention: sinks is [3], expected [2]"));
}

TEMPLATE_TEST_CASE("device Cuda: attention with sinks of segments that continue caches", "[cuda]",
                   DEVICE_TYPES) {
  using T = TestType;
  const cpu::AttentionHeads heads{4, 2, 8, 0};
  const auto q = make_tensor<T>({5, 4, 8}, normal_of<T>(160, 1));
  const auto k = make_tensor<T>({9, 2, 8}, normal_of<T>(144, 2));
  const auto v = make_tensor<T>({9, 2, 8}, normal_of<T>(144, 3));
  const auto sinks = make_tensor<T>({4}, normal_of<T>(4, 4));
  const auto work = [&](const T* qs, const T* ks, const T* vs, T* ys) {
    return std::vector<cpu::AttentionSegment<T>>{{qs, ks, vs, ys, 3, 5},
                                                 {qs + 96, ks, vs, ys + 96, 2, 9}};
  };
  const Tensor<T> want(q.shape());
  cpu::attention_forward<T>(work(q.data(), k.data(), v.data(), want.data()), heads, sinks);
  const auto on_q = to<Cuda>(q), on_k = to<Cuda>(k), on_v = to<Cuda>(v);
  const Tensor<T, Cuda> got(q.shape());
  cached_attention<Cuda>(work(on_q.data(), on_k.data(), on_v.data(), got.data()), heads,
                         to<Cuda>(sinks));
  require_close_runs(to_vector(to<Cpu>(got)), to_vector(want), dtype_of<T>::value);
}

TEST_CASE("device Cuda: cross entropy with a trained head, log-probabilities", "[cuda]") {
  const Tensor<std::int32_t> targets({5}, std::vector<std::int32_t>{3, -1, 0, 10, 3});
  on_both_devices<float>({{5, 6}, {11, 6}},
                         [&](auto x, auto w) { return linear_cross_entropy(x, w, targets); });
  const auto x = make_tensor<float>({5, 6}, normal(30, 1)),
             w = make_tensor<float>({11, 6}, normal(66, 2));
  const auto want = linear_log_probs(x, w, targets);
  const auto got = linear_log_probs(to<Cuda>(x), to<Cuda>(w), targets);
  require_close_runs(to_vector(got.log_prob), to_vector(want.log_prob), DType::f32);
  REQUIRE(same_bits(got.argmax, want.argmax));
}

TEST_CASE("device Cuda: load-balancing loss of two layers as on the CPU", "[cuda]") {
  on_both_devices<float>({{9, 6}, {9, 6}}, [](auto a, auto b) {
    using D = typename decltype(a.value())::device_type;
    return load_balancing_loss<float, D>({a, b}, 2);
  });
}

#ifndef ESP_ON_GPU
TEST_CASE("device Cuda: no block of memory is left behind", "[cuda]") {
  const std::size_t before = simulator::DeviceMemory::instance().blocks_in_use();
  on_both_devices<float>({{9, 6}}, [](auto x) { return swiglu(x, scale(x, 2.0)); });
  REQUIRE(simulator::DeviceMemory::instance().blocks_in_use() == before);
}
#endif
