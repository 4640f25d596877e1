// SPDX-License-Identifier: Apache-2.0
// Matrix products on the CPU against OpenBLAS (its OpenMP build, where installed) and oneDNN, on
// shapes of mixture models. Verified first, then timed in turns so that a noisy machine is noisy
// for all; the best of the repetitions counts. Peers are loaded at run time and may be missing.
//   gemm_bench [--isa avx512|avx2|plain] [--threads 2] [--reps 15] [--json]
// A grouped case runs a peer in a loop; bf16 weights are widened first for a peer, in its time.
#include <dlfcn.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <espalier/core/random.hpp>
#include <espalier/ops/cpu/gemm.hpp>

using namespace espalier;
using cpu::MatrixView;

namespace {

struct Case {
  std::string name;
  std::vector<std::int64_t> rows;  // one per problem
  std::int64_t n, k;
  bool a_transposed, b_transposed;
  DType weight;
};

std::vector<Case> cases() {
  const DType f32 = DType::f32, bf16 = DType::bf16;
  const std::vector<std::int64_t> uniform(8, 128), zipf = {377, 188, 126, 94, 75, 63, 54, 47},
                                                   one = {1024, 0, 0, 0, 0, 0, 0, 0};
  return {
      {"square", {512}, 512, 512, false, false, f32},
      {"square", {1024}, 1024, 1024, false, false, f32},
      {"square", {2048}, 2048, 2048, false, false, f32},
      {"x Wt", {512}, 576, 576, false, true, f32},
      {"x Wt", {512}, 1536, 576, false, true, f32},
      {"x Wt", {512}, 576, 1536, false, true, f32},
      {"x Wt", {32}, 1536, 576, false, true, f32},
      {"x Wt", {128}, 1536, 576, false, true, f32},
      {"logits", {512}, 49152, 576, false, true, f32},
      {"mixtral", {256}, 14336, 4096, false, true, f32},
      {"mixtral", {256}, 4096, 14336, false, true, f32},
      {"dX", {512}, 576, 1536, false, false, f32},
      {"dW", {1536}, 576, 512, true, false, f32},
      {"experts uniform", uniform, 1536, 576, false, true, f32},
      {"experts zipf", zipf, 1536, 576, false, true, f32},
      {"experts one-hot", one, 1536, 576, false, true, f32},
      {"experts down", zipf, 576, 1536, false, true, f32},
      {"experts 8 rows", std::vector<std::int64_t>(8, 8), 1536, 576, false, true, f32},
      {"lora down", {512}, 16, 576, false, true, f32},
      {"lora up", {512}, 576, 16, false, true, f32},
      {"one row", {1}, 1536, 576, false, true, f32},
      {"one row", {1}, 14336, 4096, false, true, f32},
      {"one row bf16", {1}, 14336, 4096, false, true, bf16},
      {"eight rows bf16", {8}, 14336, 4096, false, true, bf16},
      {"x Wt bf16", {512}, 1536, 576, false, true, bf16},
  };
}

using CblasSgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*,
                            int, float, float*, int);
using DnnlSgemm = int (*)(char, char, std::int64_t, std::int64_t, std::int64_t, float, const float*,
                          std::int64_t, const float*, std::int64_t, float, float*, std::int64_t);

template <class F>
F load(const std::vector<const char*>& libraries, const char* symbol) {
  for (const char* library : libraries) {
    if (void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL)) {
      if (void* f = dlsym(handle, symbol)) return reinterpret_cast<F>(f);
    }
  }
  fmt::print(stderr, "not installed: {}\n", symbol);
  return nullptr;
}

struct Data {
  std::vector<float> x, w, y;
  std::vector<bf16> narrow;
  std::vector<float> widened;
};

Data make_data(const Case& c, std::int64_t rows) {
  const auto groups = static_cast<std::int64_t>(c.rows.size());
  const Philox philox(1);
  const auto fill = [&](std::vector<float>& v, std::int64_t n) {
    v.resize(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = philox.uniform(i) - 0.5f;
  };
  Data d;
  fill(d.x, rows * c.k);
  fill(d.w, groups * c.n * c.k);
  d.y.resize(static_cast<std::size_t>(rows * c.n));
  if (c.weight == DType::bf16) {
    d.narrow.resize(d.w.size());
    for (std::size_t i = 0; i < d.w.size(); ++i) d.narrow[i] = bf16(d.w[i]);
    d.widened.resize(d.w.size());
  }
  return d;
}

void widen(Data& d) {
  parallel_for(static_cast<std::int64_t>(d.narrow.size()), 65536,
               [&](std::int64_t begin, std::int64_t end) {
                 simd::dispatch([&]<int W>() {
                   using V = simd::Native<float, W>;
                   std::int64_t i = begin;
                   for (; i + W <= end; i += W) V::load(&d.narrow[i]).store(&d.widened[i]);
                   for (; i < end; ++i) d.widened[i] = static_cast<float>(d.narrow[i]);
                 });
               });
}

void run_ours(const Case& c, Data& d) {
  std::vector<cpu::GemmProblem<float>> problems;
  std::int64_t row = 0, group = 0;
  for (const std::int64_t m : c.rows) {
    const std::int64_t at = group++ * c.n * c.k;
    const void* w = c.weight == DType::bf16 ? static_cast<const void*>(d.narrow.data() + at)
                                            : static_cast<const void*>(d.w.data() + at);
    problems.push_back(
        {m,
         c.n,
         c.k,
         {d.x.data() + row * c.k, DType::f32, c.a_transposed ? m : c.k, c.a_transposed},
         {w, c.weight, c.b_transposed ? c.k : c.n, c.b_transposed},
         d.y.data() + row * c.n,
         c.n});
    row += m;
  }
  cpu::gemm_batch<float>(problems);
}

/// Calls sgemm(transposed a, transposed b, m, n, k, a, lda, b, ldb, c, ldc) for each problem.
template <class Sgemm>
void run_peer(const Case& c, Data& d, Sgemm sgemm) {
  if (c.weight == DType::bf16) widen(d);
  const std::vector<float>& w = c.weight == DType::bf16 ? d.widened : d.w;
  std::int64_t row = 0, group = 0;
  for (const std::int64_t m : c.rows) {
    if (m > 0) {
      sgemm(c.a_transposed, c.b_transposed, m, c.n, c.k, d.x.data() + row * c.k,
            c.a_transposed ? m : c.k, w.data() + group * c.n * c.k, c.b_transposed ? c.k : c.n,
            d.y.data() + row * c.n, c.n);
    }
    row += m;
    ++group;
  }
}

/// Some elements against double sums; largest error relative to the sum of |terms|.
double verify(const Case& c, const Data& d) {
  double worst = 0;
  std::int64_t row = 0, group = 0;
  for (const std::int64_t m : c.rows) {
    for (std::int64_t s = 0; m > 0 && s < 200; ++s) {
      const std::int64_t i = s * 7919 % m, j = s * 104729 % c.n;
      double sum = 0, magnitude = 0;
      for (std::int64_t k = 0; k < c.k; ++k) {
        const double a = d.x[row * c.k + (c.a_transposed ? k * m + i : i * c.k + k)];
        const std::int64_t at = group * c.n * c.k + (c.b_transposed ? j * c.k + k : k * c.n + j);
        const double b = c.weight == DType::bf16 ? static_cast<float>(d.narrow[at]) : d.w[at];
        sum += a * b;
        magnitude += std::abs(a * b);
      }
      const double error = std::abs(d.y[(row + i) * c.n + j] - sum) / magnitude;
      if (!(error <= worst)) worst = error;
    }
    row += m;
    ++group;
  }
  return worst;
}

/// With one thread its own CPU time, which other programs on the machine disturb less.
double now() {
  timespec t;
  clock_gettime(num_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
double seconds(const std::function<void()>& f) {
  const double begin = now();
  f();
  return now() - begin;
}

/// Multiply-adds on registers by all threads: what the processor can do.
double peak_gflops() {
  constexpr std::int64_t kSteps = 2'000'000;
  double best = 1e30, lanes = 0;
  std::vector<float> sink(1024);
  for (int rep = 0; rep < 5; ++rep) {
    best = std::min(
        best, seconds([&] {
          parallel_for(num_threads(), 1, [&](std::int64_t thread, std::int64_t) {
            lanes = simd::dispatch([&]<int W>() -> double {
              using V = simd::Native<float, W>;
              const V a(sink[thread] + 0.999f), b(1e-3f);
              V c0(0.f), c1(1.f), c2(2.f), c3(3.f), c4(4.f), c5(5.f), c6(6.f), c7(7.f), c8(8.f),
                  c9(9.f);
              for (std::int64_t i = 0; i < kSteps; ++i) {
                c0 = fma(a, c0, b), c1 = fma(a, c1, b), c2 = fma(a, c2, b), c3 = fma(a, c3, b);
                c4 = fma(a, c4, b), c5 = fma(a, c5, b), c6 = fma(a, c6, b), c7 = fma(a, c7, b);
                c8 = fma(a, c8, b), c9 = fma(a, c9, b);
              }
              (c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8 + c9).store(&sink[32 * (thread + 1)]);
              return W;
            });
          });
        }));
  }
  return 2.0 * 10 * kSteps * lanes * num_threads() / best * 1e-9;
}

}  // namespace

int main(int argc, char** argv) {
  std::string isa, only;
  int threads = 0, reps = 15;
  bool json = false;
  CLI::App app{"Matrix products against OpenBLAS and oneDNN"};
  app.add_option("--isa", isa, "avx512, avx2 or plain; the peers are held to it too");
  app.add_option("--threads", threads, "default: all cores");
  app.add_option("--reps", reps, "repetitions, taken in turns");
  app.add_option("--only", only, "cases whose name contains this");
  app.add_flag("--json", json, "one JSON line per case");
  CLI11_PARSE(app, argc, argv);
  if (!isa.empty()) {
    setenv("ESPALIER_ISA", isa.c_str(), 1);
    setenv("OPENBLAS_CORETYPE",
           isa == "avx512" ? "SkylakeX"
           : isa == "avx2" ? "Haswell"
                           : "Core2",
           1);
    setenv("ONEDNN_MAX_CPU_ISA",
           isa == "avx512" ? "AVX512_CORE"
           : isa == "avx2" ? "AVX2"
                           : "SSE41",
           1);
  }
  set_num_threads(threads);

  const auto openblas = load<CblasSgemm>(
      {"/usr/lib/x86_64-linux-gnu/openblas-openmp/libopenblas.so.0", "libopenblas.so.0"},
      "cblas_sgemm");
  const auto onednn = load<DnnlSgemm>({"libdnnl.so.3", "libdnnl.so.2"}, "dnnl_sgemm");
  try {
    const double peak = peak_gflops();
    if (!json) {
      fmt::print("{} threads, {}; multiply-add peak {:.0f} GFLOP/s; best of {}\n", num_threads(),
                 name(cpu::isa()), peak, reps);
      fmt::print("{:16} {:>5} {:>6} {:>6} {:>9} {:>8} {:>8} {:>8} {:>7} {:>6}\n", "case", "m", "n",
                 "k", "us", "GFLOP/s", "OpenBLAS", "oneDNN", "ratio", "peak");
    }
    for (const Case& c : cases()) {
      if (c.name.find(only) == std::string::npos) continue;
      std::int64_t rows = 0;
      for (const std::int64_t m : c.rows) rows += m;
      Data d = make_data(c, rows);
      std::vector<std::function<void()>> contenders = {[&] { run_ours(c, d); }};
      contenders.push_back([&] {
        run_peer(c, d,
                 [&](bool ta, bool tb, auto m, auto n, auto k, const float* a, auto lda,
                     const float* b, auto ldb, float* y, auto ldc) {
                   const auto i = [](std::int64_t x) { return static_cast<int>(x); };
                   openblas(101, ta ? 112 : 111, tb ? 112 : 111, i(m), i(n), i(k), 1, a, i(lda), b,
                            i(ldb), 0, y, i(ldc));
                 });
      });
      contenders.push_back([&] {
        run_peer(c, d,
                 [&](bool ta, bool tb, auto m, auto n, auto k, const float* a, auto lda,
                     const float* b, auto ldb, float* y, auto ldc) {
                   onednn(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, 1, a, lda, b, ldb, 0, y, ldc);
                 });
      });
      const bool present[] = {true, openblas != nullptr, onednn != nullptr};
      double best[] = {1e30, 1e30, 1e30};
      for (int which = 0; which < 3; ++which) {
        if (!present[which]) continue;
        std::fill(d.y.begin(), d.y.end(), std::nanf(""));
        contenders[which]();
        const double error = verify(c, d);
        if (!(error <= 1e-6)) {
          fmt::print(stderr, "{}: contender {} is wrong by {}\n", c.name, which, error);
          return 1;
        }
      }
      const double flops = 2.0 * static_cast<double>(rows * c.n * c.k);
      for (int rep = 0; rep < reps; ++rep) {
        for (int which = 0; which < 3; ++which) {
          if (!present[which]) continue;
          // Small cases are timed over several calls, about 100 us.
          const int calls = static_cast<int>(std::clamp(2e7 / flops, 1.0, 100.0));
          best[which] = std::min(best[which], seconds([&] {
                                                for (int i = 0; i < calls; ++i) contenders[which]();
                                              }) / calls);
        }
      }
      const double ratio = std::min(best[1], best[2]) / best[0];
      const auto rate = [&](double s) { return s < 1e29 ? flops / s * 1e-9 : 0.0; };
      fmt::print(
          fmt::runtime(
              json ? "{{\"case\":\"{}\",\"m\":{},\"n\":{},\"k\":{},\"us\":{:.1f},\"gflops\":{:.1f},"
                     "\"openblas\":{:.1f},\"onednn\":{:.1f},\"ratio\":{:.3f},\"peak\":{:.3f}}}\n"
                   : "{:16} {:5} {:6} {:6} {:9.1f} {:8.1f} {:8.1f} {:8.1f} {:7.2f} {:6.2f}\n"),
          c.name, rows, c.n, c.k, best[0] * 1e6, rate(best[0]), rate(best[1]), rate(best[2]), ratio,
          rate(best[0]) / peak);
      std::fflush(stdout);
    }
  } catch (const Error& e) {
    fmt::print(stderr, "gemm_bench: {}\n", e.what());
    return 1;
  }
}
