// SPDX-License-Identifier: Apache-2.0
// Matrix products on the CPU against OpenBLAS and oneDNN, on shapes of mixture models:
//   gemm_bench [--isa amx|avx512_bf16|avx512|avx2|plain] [--threads 2] [--reps 15] [--only NAME]
//   [--json]
// A grouped case runs a peer in a loop over the experts. A peer that does not take the types of a
// case widens the narrow operands to f32 first, in its time.
#include <cmath>

#include <espalier/ops/cpu/gemm.hpp>

#include "bench.hpp"
#include "cli/program.hpp"
#include "gemm_peers.hpp"

namespace {

using namespace espalier;
using bench::Product;

struct Shape3 {
  std::string name;
  std::vector<std::int64_t> rows;  // one per problem
  std::int64_t n, k;
  bool a_transposed = false, b_transposed = true;
  DType a_type = DType::f32, b_type = DType::f32;
};

std::vector<Shape3> shapes() {
  const DType bf16 = DType::bf16, f16 = DType::f16;
  const std::vector<std::int64_t> uniform(8, 128), zipf = {377, 188, 126, 94, 75, 63, 54, 47},
                                                   one = {1024, 0, 0, 0, 0, 0, 0, 0}, eights(8, 8);
  std::vector<Shape3> all = {
      {"square", {512}, 512, 512, false, false},
      {"square", {1024}, 1024, 1024, false, false},
      {"square", {2048}, 2048, 2048, false, false},
      {"x Wt", {512}, 576, 576},
      {"x Wt", {512}, 1536, 576},
      {"x Wt", {512}, 576, 1536},
      {"x Wt", {32}, 1536, 576},
      {"x Wt", {64}, 1536, 576},
      {"x Wt", {128}, 1536, 576},
      {"x Wt", {256}, 1536, 576},
      {"logits", {512}, 49152, 576},
      {"mixtral", {256}, 14336, 4096},
      {"mixtral", {256}, 4096, 14336},
      {"dX", {512}, 576, 1536, false, false},
      {"dW", {1536}, 576, 512, true, false},
      {"experts uniform", uniform, 1536, 576},
      {"experts zipf", zipf, 1536, 576},
      {"experts one-hot", one, 1536, 576},
      {"experts down", zipf, 576, 1536},
      {"experts 8 rows", eights, 1536, 576},
      {"lora down", {512}, 16, 576},
      {"lora up", {512}, 576, 16},
      {"one row", {1}, 1536, 576},
      {"one row", {1}, 14336, 4096},
  };
  for (const DType weight : {bf16, f16}) {  // activations in f32
    for (const Shape3& s : std::vector<Shape3>{{"x Wt", {512}, 1536, 576},
                                               {"one row", {1}, 14336, 4096},
                                               {"eight rows", {8}, 14336, 4096}}) {
      all.push_back(s);
      all.back().b_type = weight;
    }
  }
  for (const Shape3& s : std::vector<Shape3>(all.begin(), all.begin() + 24)) {
    all.push_back(s);
    all.back().a_type = all.back().b_type = bf16;
  }
  return all;
}

std::string title(const Shape3& s) {
  std::int64_t rows = 0;
  for (const std::int64_t m : s.rows) rows += m;
  std::string types;
  if (s.b_type != DType::f32) types = fmt::format(" {}*{}", name(s.a_type), name(s.b_type));
  return fmt::format("{} {}x{}x{}{}", s.name, rows, s.n, s.k, types);
}

/// Operands, and every problem of the case as a product.
struct Data {
  AnyTensor a, b;
  Tensor<float> c;
  Tensor<float> a_wide, b_wide;  // what a peer widens to
  std::vector<Product> products;
};

AnyTensor random_of(DType dtype, std::int64_t n, std::uint64_t seed) {
  return visit_dtype<float, bf16, f16>(
      "bench", dtype, [&]<class T>() -> AnyTensor { return bench::random<T>(Shape{n}, seed); });
}

Data make_data(const Shape3& s) {
  std::int64_t rows = 0, row = 0, group = 0;
  for (const std::int64_t m : s.rows) rows += m;
  const auto groups = static_cast<std::int64_t>(s.rows.size());
  Data d;
  d.a = random_of(s.a_type, rows * s.k, 1);
  d.b = random_of(s.b_type, groups * s.n * s.k, 2);
  d.c = Tensor<float>(Shape{rows * s.n});
  if (s.a_type != DType::f32) d.a_wide = Tensor<float>(d.a.shape());
  if (s.b_type != DType::f32) d.b_wide = Tensor<float>(d.b.shape());
  const auto at = [](const AnyTensor& t, std::int64_t i) {
    return t.bytes() + i * static_cast<std::int64_t>(size_of(t.dtype()));
  };
  for (const std::int64_t m : s.rows) {
    if (m > 0) {
      d.products.push_back({m, s.n, s.k, at(d.a, row * s.k), at(d.b, group * s.n * s.k),
                            d.c.data() + row * s.n, s.a_transposed, s.b_transposed, s.a_type,
                            s.b_type, DType::f32});
    }
    row += m;
    ++group;
  }
  return d;
}

void run_ours(const Data& d) {
  static std::vector<cpu::GemmProblem<float>> problems;
  problems.clear();
  for (const Product& p : d.products) {
    problems.push_back({p.m,
                        p.n,
                        p.k,
                        {p.a, p.a_type, p.a_transposed ? p.m : p.k, p.a_transposed},
                        {p.b, p.b_type, p.b_transposed ? p.k : p.n, p.b_transposed},
                        static_cast<float*>(p.c),
                        p.n});
  }
  cpu::gemm_batch<float>(problems);
}

void widen(const AnyTensor& from, const Tensor<float>& to) {
  visit_dtype<bf16, f16>("bench", from.dtype(), [&]<class T>() {
    const T* x = reinterpret_cast<const T*>(from.bytes());
    parallel_for(to.numel(), 65536, [&](std::int64_t begin, std::int64_t end) {
      simd::dispatch([&]<int W>() {
        using V = simd::Native<float, W>;
        std::int64_t i = begin;
        for (; i + W <= end; i += W) V::load(x + i).store(to.data() + i);
        for (; i < end; ++i) to.data()[i] = static_cast<float>(x[i]);
      });
    });
  });
}

/// All products of the case with one peer, on widened operands if `wide`; empty if it refuses one.
bench::RunProduct run_peer(const Data& d, bench::RunProduct (*peer)(const Product&), bool wide) {
  const bool widens_a = wide && bool{d.a_wide}, widens_b = wide && bool{d.b_wide};
  std::vector<bench::RunProduct> runs;
  for (Product p : d.products) {
    const auto index = [](const void* at, const AnyTensor& t) {
      return (static_cast<const std::byte*>(at) - t.bytes()) /
             static_cast<std::int64_t>(size_of(t.dtype()));
    };
    if (widens_a) p.a = d.a_wide.data() + index(p.a, d.a), p.a_type = DType::f32;
    if (widens_b) p.b = d.b_wide.data() + index(p.b, d.b), p.b_type = DType::f32;
    runs.push_back(peer(p));
    if (!runs.back()) return nullptr;
  }
  return [&d, runs, widens_a, widens_b] {
    if (widens_a) widen(d.a, d.a_wide);
    if (widens_b) widen(d.b, d.b_wide);
    for (const auto& run : runs) run();
  };
}

double element(const void* data, DType dtype, std::int64_t i) {
  double value = 0;
  visit_dtype<float, bf16, f16>("bench", dtype, [&]<class T>() {
    value = static_cast<double>(static_cast<float>(static_cast<const T*>(data)[i]));
  });
  return value;
}

/// Some elements against double sums: the largest error relative to the sum of |terms|. Leaves NaN
/// behind for the next contender.
double error_of(const Data& d) {
  double worst = 0;
  for (const Product& p : d.products) {
    float* const c = static_cast<float*>(p.c);
    for (std::int64_t s = 0; s < 100; ++s) {
      const std::int64_t i = s * 7919 % p.m, j = s * 104729 % p.n;
      double sum = 0, magnitude = 0;
      for (std::int64_t k = 0; k < p.k; ++k) {
        const double a = element(p.a, p.a_type, p.a_transposed ? k * p.m + i : i * p.k + k);
        const double b = element(p.b, p.b_type, p.b_transposed ? j * p.k + k : k * p.n + j);
        sum += a * b;
        magnitude += std::abs(a * b);
      }
      const double error = std::abs(c[i * p.n + j] - sum) / magnitude;
      if (!(error <= worst)) worst = error;
    }
  }
  for (std::int64_t i = 0; i < d.c.numel(); ++i) d.c.data()[i] = std::nanf("");
  return worst;
}

void run(const bench::Options& o, const CommonOptions& common) {
  if (!common.json) fmt::print("OpenBLAS: {}\n", bench::openblas_core());
  bench::Suite suite("gemm_bench", {"OpenBLAS", "sgemm", "matmul"}, o, common.json);
  for (const Shape3& s : shapes()) {
    if (!suite.wants(title(s))) continue;
    const Data d = make_data(s);
    double flops = 0;
    for (const Product& p : d.products) flops += 2.0 * static_cast<double>(p.m * p.n * p.k);
    bench::RunProduct matmul = run_peer(d, bench::onednn_matmul, false);
    if (!matmul) matmul = run_peer(d, bench::onednn_matmul, true);
    suite.run({title(s),
               flops,
               bench::Unit::flops,
               suite.multiply_add_ceiling(),
               {{"espalier", [&] { run_ours(d); }},
                {"OpenBLAS", run_peer(d, bench::openblas_sgemm, true)},
                {"sgemm", run_peer(d, bench::onednn_sgemm, true)},
                {"matmul", matmul}},
               [&](const std::string&) { return error_of(d); },
               1e-6});
  }
}

}  // namespace

int main(int argc, char** argv) {
  bench::Options o;
  return run_program(
      argc, argv, "gemm_bench", "Times matrix products against OpenBLAS and oneDNN.",
      [&](CLI::App& app) { bench::add_options(app, o); },
      [&](const CommonOptions& common) {
        bench::force_isa(o.isa);
        run(o, common);
      });
}
