// SPDX-License-Identifier: Apache-2.0
// Criteria against dense loops in double over the same files: two checkpoints, an adapter with
// ranks and scales of its own, and the accumulator of activations.
#include <espalier/hub/adapter.hpp>
#include <espalier/prune/activation_scores.hpp>
#include <espalier/prune/adapter.hpp>
#include <espalier/prune/criteria.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/make_tensor.hpp"
#include "support/temporary_folder.hpp"
#include "synthetic_checkpoint.hpp"

using namespace espalier;
using namespace espalier::prune;
using espalier::test::compare;
using espalier::test::expert_prefix;
using espalier::test::message_of;
using espalier::test::moe_prefix;
using espalier::test::normal;

namespace {

using Matrix = std::vector<double>;

Matrix weights(const hub::Checkpoint& c, const std::string& module) {
  return test::to_vector(c.tensor(module + ".weight"));
}

/// The same LoRA as on disk, put together densely: W + s B A.
Matrix dense_delta(const io::Adapter& adapter, const std::string& module, std::size_t out,
                   std::size_t in, double scale) {
  Matrix delta(out * in, 0.0);
  const io::LoraFactors f = adapter.find(module);
  if (!f) return delta;
  const auto a = test::to_vector(f.a), b = test::to_vector(f.b);
  const std::size_t rank = a.size() / in;
  for (std::size_t i = 0; i < out; ++i) {
    for (std::size_t j = 0; j < in; ++j) {
      for (std::size_t k = 0; k < rank; ++k) {
        delta[i * in + j] += scale * b[i * rank + k] * a[k * in + j];
      }
    }
  }
  return delta;
}

double norm(const Matrix& m) {
  double sum = 0;
  for (const double v : m) sum += v * v;
  return std::sqrt(sum);
}
Matrix minus(const Matrix& a, const Matrix& b) {
  Matrix d(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) d[i] = a[i] - b[i];
  return d;
}
Matrix row(const Matrix& m, std::size_t r, std::size_t columns) {
  return {m.begin() + static_cast<std::ptrdiff_t>(r * columns),
          m.begin() + static_cast<std::ptrdiff_t>((r + 1) * columns)};
}

/// The definitions, from whole matrices before and after.
template <class Before, class After>
double dumb_score(const std::string& criterion, std::size_t l, int e, const Before& before,
                  const After& after) {
  constexpr std::size_t kHidden = 16;
  if (criterion.starts_with("router")) {
    const Matrix x = row(before(moe_prefix(l) + "gate"), static_cast<std::size_t>(e), kHidden);
    const Matrix y = row(after(moe_prefix(l) + "gate"), static_cast<std::size_t>(e), kHidden);
    if (criterion == "router_norm_drift") return std::abs(norm(y) - norm(x));
    return criterion == "router_norm" ? norm(y) : norm(minus(y, x));
  }
  Matrix x, y;
  for (const char* part : {"w1", "w2", "w3"}) {
    const Matrix p = before(expert_prefix(l, e) + part), q = after(expert_prefix(l, e) + part);
    x.insert(x.end(), p.begin(), p.end());
    y.insert(y.end(), q.begin(), q.end());
  }
  if (criterion == "expert_norm") return norm(y);
  const double delta = norm(minus(y, x));
  return criterion == "expert_delta" ? delta : delta / norm(x);
}

template <class Before, class After>
void check_all(const ModelPair& models, const Before& before, const After& after, double rtol) {
  const WeightNorms norms = weight_norms(models, {});
  for (const Criterion& c : kCriteria) {
    if (c.kind != CriterionKind::tuning && c.kind != CriterionKind::weights) continue;
    const LayerScores scores = weight_scores(c.name, norms);
    REQUIRE(scores.size() == 3);
    for (std::size_t l = 0; l < scores.size(); ++l) {
      REQUIRE(scores[l].size() == 6);
      std::vector<double> want;
      for (int e = 0; e < 6; ++e) want.push_back(dumb_score(c.name, l, e, before, after));
      const auto m = compare(scores[l], want, 1e-13, rtol);
      INFO(c.name << " layer " << l << ": " << m);
      CHECK(m.count == 0);
    }
  }
}

/// Adapts the routers, w1 of every expert, and w2 of some; with a rank and an alpha of its own for
/// expert 4 of layer 1.
void write_lora(const std::filesystem::path& folder, bool rslora) {
  io::AdapterConfig config;
  config.r = 3;
  config.alpha = 5;
  config.rslora = rslora;
  config.target_modules = {"gate", "w1", "w2"};
  config.rank_pattern = {{"layers.1.block_sparse_moe.experts.4.w[12]", 2}};
  config.alpha_pattern = {{".*\\.experts\\.4\\.w1", 7.5}, {"gate", 2}};
  std::vector<std::pair<std::string, AnyTensor>> tensors;
  std::uint64_t seed = 100;
  const auto add = [&](const std::string& module, std::int64_t out, std::int64_t in) {
    const std::int64_t rank = config.rank_of(module);
    tensors.emplace_back(module + ".lora_A.weight",
                         test::make_tensor<float>(Shape{rank, in}, normal(rank * in, ++seed, 0.3)));
    tensors.emplace_back(
        module + ".lora_B.weight",
        test::make_tensor<float>(Shape{out, rank}, normal(out * rank, ++seed, 0.3)));
  };
  for (std::size_t l = 0; l < 3; ++l) {
    add(moe_prefix(l) + "gate", 6, 16);
    for (int e = 0; e < 6; ++e) {
      add(expert_prefix(l, e) + "w1", 24, 16);
      if (e % 2 == 0) add(expert_prefix(l, e) + "w2", 16, 24);
    }
  }
  io::write_adapter(folder, config, tensors);
}

/// By hand, what the config above says.
double lora_scale(const std::string& module, bool rslora) {
  const bool special = module.find("layers.1.block_sparse_moe.experts.4") != std::string::npos;
  const double rank = special ? 2 : 3;
  double alpha = 5;
  if (module.ends_with("experts.4.w1")) alpha = 7.5;
  if (module.ends_with("gate")) alpha = 2;
  return alpha / (rslora ? std::sqrt(rank) : rank);
}

}  // namespace

TEST_CASE("criteria: two checkpoints, against dense double loops") {
  test::TemporaryFolder folder;
  const DType tuned_type = GENERATE(DType::bf16, DType::f32);
  test::write_synthetic(folder / "base", test::synthetic_config());
  test::write_synthetic(folder / "tuned", test::synthetic_config(), tuned_type, 1 << 20, 1);
  const hub::Checkpoint base(folder / "base"), tuned(folder / "tuned");
  check_same_model(base, tuned);
  check_all(
      {base, &tuned, nullptr}, [&](const std::string& m) { return weights(base, m); },
      [&](const std::string& m) { return weights(tuned, m); }, 1e-12);
}

TEST_CASE("criteria: an adapter with rank and alpha patterns, against the dense product") {
  test::TemporaryFolder folder;
  const bool rslora = GENERATE(false, true);
  test::write_synthetic(folder / "base", test::synthetic_config());
  write_lora(folder / "adapter", rslora);
  const hub::Checkpoint base(folder / "base");
  const io::Adapter adapter = io::read_adapter(folder / "adapter");
  hub::check_adapter_fits(adapter, base.config(), "adapter");
  const auto after = [&](const std::string& module) {
    Matrix w = weights(base, module);
    const auto& shape = base.at(module + ".weight").shape;
    const Matrix d = dense_delta(adapter, module, static_cast<std::size_t>(shape[0]),
                                 static_cast<std::size_t>(shape[1]), lora_scale(module, rslora));
    for (std::size_t i = 0; i < w.size(); ++i) w[i] += d[i];
    return w;
  };
  check_all(
      {base, nullptr, &adapter}, [&](const std::string& m) { return weights(base, m); }, after,
      1e-11);
}

TEST_CASE("criteria: the same bits for any number of threads and any other criteria asked for") {
  test::TemporaryFolder folder;
  test::write_synthetic(folder / "base", test::synthetic_config());
  write_lora(folder / "adapter", false);
  const hub::Checkpoint base(folder / "base");
  const io::Adapter adapter = io::read_adapter(folder / "adapter");
  const ModelPair models{base, nullptr, &adapter};
  set_num_threads(1);
  const WeightNorms one = weight_norms(models, {});
  for (const int threads : {2, 5}) {
    set_num_threads(threads);
    std::int64_t calls = 0;
    const WeightNorms more = weight_norms(models, {true, true, false, [&](std::int64_t n) {
                                                     ++calls;
                                                     CHECK(n == calls);
                                                   }});
    CHECK(calls == 3 + 3 * 6 * 3);
    for (const char* name : {"router_delta", "router_norm", "expert_delta", "expert_norm"}) {
      CHECK(weight_scores(name, more) == weight_scores(name, one));
    }
  }
  set_num_threads(2);
  const WeightNorms only = weight_norms(models, {false, true, true, {}});
  CHECK(weight_scores("expert_delta", only) == weight_scores("expert_delta", one));
}

TEST_CASE("criteria: a rotated router row has a delta and no drift") {
  WeightNorms norms;
  norms.router = {{{4.0, 4.0, 8.0}, {4.0, 9.0, 1.0}}};
  CHECK(weight_scores("router_norm_drift", norms) == LayerScores{{0, 1}});
  CHECK(weight_scores("router_delta", norms) == LayerScores{{std::sqrt(8.0), 1}});
  norms.experts = {{{0, 0, 0}, {4, 1, 1}}};  // an expert of zeros that did not change
  CHECK(weight_scores("expert_delta_relative", norms) == LayerScores{{0, 0.5}});
}

TEST_CASE("criteria: random is seeded, uniform, and the same everywhere") {
  DecoderConfig c;
  c.num_hidden_layers = 64;
  c.mixture.experts = 64;
  const LayerScores a = random_scores(hub::mixture_of(c), 7),
                    b = random_scores(hub::mixture_of(c), 8);
  CHECK(a == random_scores(hub::mixture_of(c), 7));
  CHECK(a != b);
  double sum = 0, low = 1, high = 0;
  for (const auto& layer : a) {
    for (const double v : layer) {
      sum += v;
      low = std::min(low, v);
      high = std::max(high, v);
    }
  }
  CHECK(std::abs(sum / 4096 - 0.5) < 0.02);
  CHECK((low >= 0 && low < 0.01 && high < 1 && high > 0.99));
}

TEST_CASE("criteria: a tuned checkpoint of another size is refused by key") {
  test::TemporaryFolder folder;
  DecoderConfig other = test::synthetic_config();
  other.mixture.experts = 4;
  test::write_synthetic(folder / "base", test::synthetic_config());
  test::write_synthetic(folder / "tuned", other);
  const hub::Checkpoint base(folder / "base"), tuned(folder / "tuned");
  CHECK(
      message_of<FormatError>([&] { check_same_model(base, tuned); }, folder.path()) ==
      "tuned: the number of experts is 4, but 6 in base; expected a fine-tuned version of the same "
      "model");
}

TEMPLATE_TEST_CASE("activation scores: every criterion against its definition", "", float, double) {
  constexpr std::int64_t kExperts = 4, kHidden = 37;
  const std::vector<std::vector<std::int64_t>> batches = {{0, 3, 3, 40, 42}, {0, 0, 0, 1, 9}};
  ActivationScores scores(2, kExperts);
  std::vector<std::vector<std::vector<double>>> gates(2), outputs(2);  // [layer][batch]
  std::uint64_t seed = 0;
  for (const auto& offsets : batches) {
    for (std::size_t layer = 0; layer < 2; ++layer) {
      const std::int64_t rows = offsets.back();
      std::vector<TestType> g, o;
      gates[layer].push_back(normal(rows, ++seed));
      outputs[layer].push_back(normal(rows * kHidden, ++seed));
      for (double& v : gates[layer].back()) v = std::abs(v);
      for (const double v : gates[layer].back()) g.push_back(static_cast<TestType>(v));
      for (const double v : outputs[layer].back()) o.push_back(static_cast<TestType>(v));
      scores.add<TestType>(static_cast<std::int64_t>(layer), offsets, g, o, kHidden);
    }
  }
  for (const char* name :
       {"frequency", "soft_frequency", "ean", "reap", "man", "msan", "max_activation"}) {
    const auto got = scores.scores(name);
    for (std::size_t layer = 0; layer < 2; ++layer) {
      for (std::size_t e = 0; e < kExperts; ++e) {
        double n = 0, soft = 0, ean = 0, reap = 0, square = 0, largest = 0;
        for (std::size_t b = 0; b < batches.size(); ++b) {
          for (auto r = batches[b][e]; r < batches[b][e + 1]; ++r) {
            double norm2 = 0;
            for (std::int64_t i = 0; i < kHidden; ++i) {
              const double v = outputs[layer][b][static_cast<std::size_t>(r * kHidden + i)];
              norm2 += v * v;
              largest = std::max(largest, std::abs(v));
            }
            const double g = gates[layer][b][static_cast<std::size_t>(r)];
            n += 1;
            soft += g;
            ean += std::sqrt(norm2);
            reap += g * std::sqrt(norm2);
            square += norm2;
          }
        }
        const std::string c = name;
        const double want = c == "frequency"        ? n
                            : c == "soft_frequency" ? soft
                            : c == "ean"            ? ean
                            : c == "max_activation" ? largest
                            : n == 0                ? 0
                            : c == "reap"           ? reap / n
                            : c == "man"            ? ean / n
                                                    : square / n;
        INFO(name << " layer " << layer << " expert " << e);
        CHECK(std::abs(got[layer][e] - want) <= 1e-12 * std::abs(want));
      }
    }
  }
  CHECK(scores.scores("reap")[0][1] == 0);  // no token reached it
}

TEST_CASE("activation scores: wrong sizes are refused, a NaN is not swallowed") {
  ActivationScores scores(1, 2);
  const std::vector<float> gates{0.5f, 0.5f}, outputs{1, 2, 3, 4}, short_outputs{1, 2};
  const std::vector<std::int64_t> offsets{0, 1, 2}, short_offsets{0, 2};
  CHECK_THROWS_WITH(scores.add<float>(0, short_offsets, gates, outputs, 2),
                    "activation_scores: 2 offsets over 2 rows for 2 experts");
  CHECK_THROWS_WITH(scores.add<float>(0, offsets, gates, short_outputs, 2),
                    "activation_scores: outputs has 2 values, expected 2 x 2");
  CHECK_THROWS_WITH(scores.scores("reep"), "activation_scores: unknown criterion \"reep\"");
  const std::vector<float> with_nan{1, std::nanf(""), 3, 4};
  scores.add<float>(0, offsets, gates, with_nan, 2);
  for (const char* name : {"ean", "reap", "man", "msan", "max_activation"}) {
    CHECK(std::isnan(scores.scores(name)[0][0]));
    CHECK_FALSE(std::isnan(scores.scores(name)[0][1]));
  }
}

TEST_CASE("prune_adapter: pairs of dropped experts go, kept ones are renumbered, router rows too") {
  test::TemporaryFolder folder;
  write_lora(folder / "adapter", false);
  test::write_bytes(folder / "adapter/README.md", "read me");
  const io::Adapter before = io::read_adapter(folder / "adapter");
  const Plan plan{{{0, 2, 5}, {1, 3, 4}, {3, 4, 5}}, {}};
  write_pruned_adapter(folder / "adapter", before, ExpertNames(families::mixtral()), plan,
                       folder / "out");
  const io::Adapter after = io::read_adapter(folder / "out");
  DecoderConfig small = test::synthetic_config();
  small.mixture.experts = 3;
  hub::check_adapter_fits(after, small, "out");
  CHECK(test::read_bytes(folder / "out/README.md") == "read me");
  CHECK(read_plan(folder / "out" / kPlanFile).keep == plan.keep);
  std::size_t expected = 0;
  for (std::size_t l = 0; l < 3; ++l) {
    const auto old_b = test::to_vector(before.find(moe_prefix(l) + "gate").b);
    const auto new_b = test::to_vector(after.find(moe_prefix(l) + "gate").b);
    std::vector<double> want_b;
    for (int k = 0; k < 3; ++k) {
      const int e = plan.keep[l][static_cast<std::size_t>(k)];
      want_b.insert(want_b.end(), old_b.begin() + e * 3, old_b.begin() + (e + 1) * 3);
      for (const char* part : {"w1", "w2"}) {
        const io::LoraFactors x = before.find(expert_prefix(l, e) + part);
        const io::LoraFactors y = after.find(expert_prefix(l, k) + part);
        REQUIRE(static_cast<bool>(x) == static_cast<bool>(y));
        if (!x) continue;
        ++expected;
        CHECK(test::same_bits(x.a, y.a));
        CHECK(test::same_bits(x.b, y.b));
        CHECK(x.scale == y.scale);  // patterns named experts by number, and follow them
      }
    }
    CHECK(new_b == want_b);
    ++expected;
  }
  CHECK(after.modules.size() == expected);
  // Expert 4 of layer 1 is expert 2 now and keeps its own rank.
  CHECK(after.find(expert_prefix(1, 2) + "w1").a.shape(0) == 2);
}

TEST_CASE("prune_adapter: without patterns the config is carried byte for byte") {
  test::TemporaryFolder folder;
  io::AdapterConfig config;
  config.r = 2;
  config.target_modules = {"gate"};
  io::write_adapter(folder / "a", config,
                    {{moe_prefix(0) + "gate.lora_A.weight", Tensor<float>(Shape{2, 4}, 1.0f)},
                     {moe_prefix(0) + "gate.lora_B.weight", Tensor<float>(Shape{3, 2}, 2.0f)}});
  const std::string text = "  " + test::read_bytes(folder / "a/adapter_config.json");
  test::write_bytes(folder / "a/adapter_config.json", text);
  const io::Adapter adapter = io::read_adapter(folder / "a");
  write_pruned_adapter(folder / "a", adapter, ExpertNames(families::mixtral()), {{{0, 2}}, {}},
                       folder / "b");
  CHECK(test::read_bytes(folder / "b/adapter_config.json") == text);
  CHECK(message_of<FormatError>([&] {
          (void)prune_adapter(adapter, ExpertNames(families::mixtral()), {{{0, 3}}, {}});
        }) == "model.layers.0.block_sparse_moe.gate: lora_B is [3, 2], the plan keeps expert 3");
}
