// SPDX-License-Identifier: Apache-2.0
// What every bench shares, on Google Benchmark: options, random data, the ceilings of this machine
// measured in the same run, and a suite that verifies a case, times all who compete in it by
// repetitions in random order (a noisy machine is noisy for all), and prints one row.
//   bench::Suite suite("gemm_bench", {"OpenBLAS", "oneDNN"}, options, json);
//   suite.run({"square 512", flops, bench::Unit::flops, suite.multiply_add_ceiling(),
//              {{"espalier", [&] { ... }}, {"OpenBLAS", [&] { ... }}},
//              [&](const std::string& who) { return relative_error; }, 1e-6});
// The best of the repetitions counts. The first contender is ours, the others are its peers.
#pragma once

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <espalier/core/random.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/simd.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier::bench {

struct Options {
  std::string isa;   // empty: the best that the processor has
  std::string only;  // cases whose name contains this
  int reps = 15;
};

inline void add_options(CLI::App& app, Options& o) {
  app.add_option("--isa", o.isa, "Instruction set that we and the peers are held to");
  app.add_option("--only", o.only, "Cases whose name contains this");
  app.add_option("--reps", o.reps, "Repetitions, of which the best counts")
      ->check(CLI::Range(1, 1000));
}

/// Beside them, for benches of sizes and element types.
struct SizedOptions {
  Options common;
  std::vector<std::string> sets = {"small", "large"}, types = {"f32", "bf16"};

  bool wants_set(const std::string& set) const {
    return std::find(sets.begin(), sets.end(), set) != sets.end();
  }
  bool wants_type(const std::string& type) const {
    return std::find(types.begin(), types.end(), type) != types.end();
  }
};

inline void add_options(CLI::App& app, SizedOptions& o) {
  add_options(app, o.common);
  app.add_option("--set", o.sets, "Sizes: small, large")
      ->delimiter(',')
      ->check(CLI::IsMember({"small", "large"}));
  app.add_option("--type", o.types, "Element types: f32, bf16")
      ->delimiter(',')
      ->check(CLI::IsMember({"f32", "bf16"}));
}

/// Call before anything asks for the instruction set and before a peer is loaded: `isa`, or the
/// best that the processor has if it is empty, for us and for the peers. OpenBLAS is told which
/// kernels those are, for it takes a processor that is younger than itself for one of 2004.
inline void force_isa(const std::string& isa) {
  if (!isa.empty()) setenv("ESPALIER_ISA", isa.c_str(), 1);
  const std::string held_to = isa.empty() ? std::string(cpu::name(cpu::best_isa())) : isa;
  const bool plain = held_to == "plain", avx2 = held_to == "avx2", avx512 = held_to == "avx512";
  setenv("OPENBLAS_CORETYPE", plain ? "Core2" : avx2 ? "Haswell" : "SkylakeX", 1);
  unsetenv("OPENBLAS_L2_SIZE");  // a smaller cache makes its blocks smaller
  setenv("ONEDNN_MAX_CPU_ISA", plain ? "SSE41" : avx2 ? "AVX2" : avx512 ? "AVX512_CORE" : "ALL", 1);
}

/// Normals, the same for the same seed; they repeat, since drawing more would take longer than the
/// bench itself.
template <class T = float>
Tensor<T> random(const Shape& shape, std::uint64_t seed) {
  constexpr std::int64_t kPeriod = 65537;
  Tensor<T> t(shape);
  const Philox philox(seed);
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    t[i] =
        i < kPeriod ? static_cast<T>(philox.normal(static_cast<std::uint64_t>(i))) : t[i - kPeriod];
  }
  return t;
}

template <class F>
double seconds(F&& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}
template <class F>
double best_seconds(int reps, F&& f) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < reps; ++i) best = std::min(best, seconds(f));
  return best;
}

/// Multiply-adds of f32 on registers by all threads, in flop/s: what the processor can do.
inline double measure_multiply_add() {
  constexpr std::int64_t kSteps = 1'000'000;
  int lanes = 0;
  std::vector<float> sink(32 * static_cast<std::size_t>(num_threads() + 1));
  const double best = best_seconds(7, [&] {
    parallel_for(num_threads(), 1, [&](std::int64_t thread, std::int64_t) {
      simd::dispatch([&]<int W>() {
        using V = simd::Native<float, W>;
        const V a(sink[thread] + 0.999f), b(1e-3f);
        V c0(0.f), c1(1.f), c2(2.f), c3(3.f), c4(4.f), c5(5.f), c6(6.f), c7(7.f), c8(8.f), c9(9.f);
        for (std::int64_t i = 0; i < kSteps; ++i) {
          c0 = fma(a, c0, b), c1 = fma(a, c1, b), c2 = fma(a, c2, b), c3 = fma(a, c3, b);
          c4 = fma(a, c4, b), c5 = fma(a, c5, b), c6 = fma(a, c6, b), c7 = fma(a, c7, b);
          c8 = fma(a, c8, b), c9 = fma(a, c9, b);
        }
        (c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8 + c9).store(&sink[32 * (thread + 1)]);
      });
    });
  });
  simd::dispatch([&]<int W>() { lanes = W; });
  return 2.0 * 10 * kSteps * lanes * num_threads() / best;
}

/// A copy by all threads that reads and writes `bytes` in total, in byte/s. 1 GiB: the memory;
/// fewer: the caches that so many bytes come from.
inline double measure_copy(double bytes) {
  const auto n = std::max<std::int64_t>(static_cast<std::int64_t>(bytes / 8), 1);
  const Tensor<float> from(Shape{n}, 1.0f), to(Shape{n});
  const std::int64_t grain = std::clamp<std::int64_t>(n / (4 * num_threads()), 1 << 12, 1 << 18);
  const auto copy = [&] {
    parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
      std::memcpy(to.data() + begin, from.data() + begin,
                  4 * static_cast<std::size_t>(end - begin));
    });
  };
  copy();
  return 8.0 * static_cast<double>(n) / best_seconds(15, copy);
}

enum class Unit { flops, bytes };

struct Contender {
  std::string name;
  std::function<void()> run;                // empty: not installed, or refuses this case
  std::function<void()> prepare = nullptr;  // before each run, not timed
};

struct Case {
  std::string name;
  double work;  // flops (a multiply-add counts as two) or bytes
  Unit unit;
  double ceiling;                     // work per second at best; 0: not known
  std::vector<Contender> contenders;  // ours first
  // After one run of a contender: how wrong it is. Without it nothing is verified.
  std::function<double(const std::string& contender)> error = nullptr;
  double tolerance = 0;
};

class Suite {
 public:
  /// `peers` names the columns behind ours.
  Suite(std::string name, std::vector<std::string> peers, const Options& options, bool json)
      : name_(std::move(name)), peers_(std::move(peers)), options_(options), json_(json) {
    std::vector<std::string> text = {name_, "--benchmark_enable_random_interleaving=true"};
    std::vector<char*> argv = {text[0].data(), text[1].data(), nullptr};
    int argc = 2;
    benchmark::Initialize(&argc, argv.data());
  }
  ~Suite() { benchmark::Shutdown(); }
  Suite(const Suite&) = delete;
  Suite& operator=(const Suite&) = delete;

  double multiply_add_ceiling() {
    if (multiply_add_ == 0) multiply_add_ = measure_multiply_add();
    return multiply_add_;
  }
  double copy_ceiling(double bytes) {
    double& rate = copies_[bytes];
    if (rate == 0) rate = measure_copy(bytes);
    return rate;
  }
  [[nodiscard]] bool wants(const std::string& name) const {
    return name.find(options_.only) != std::string::npos;
  }

  /// Verifies, times and prints; returns the best seconds of ours. Nothing if not asked for.
  double run(const Case& c) {
    if (!wants(c.name)) return 0;
    if (!header_printed_) print_header();
    benchmark::ClearRegisteredBenchmarks();
    for (const Contender& who : c.contenders) {
      if (!who.run) continue;
      register_contender(who, verified_seconds(c, who));
    }
    Collector collector;
    benchmark::RunSpecifiedBenchmarks(&collector, "all");
    print_row(c, collector.best);
    return collector.best[c.contenders.front().name];
  }

 private:
  /// Keeps the best repetition of each contender.
  struct Collector : benchmark::BenchmarkReporter {
    std::map<std::string, double> best;
    bool ReportContext(const Context&) override { return true; }
    void ReportRuns(const std::vector<Run>& runs) override {
      for (const Run& r : runs) {
        if (r.run_type != Run::RT_Iteration) continue;
        const double s = r.real_accumulated_time / static_cast<double>(r.iterations);
        const auto [at, added] = best.try_emplace(r.run_name.function_name, s);
        if (!added) at->second = std::min(at->second, s);
      }
    }
  };

  /// Also warms up: seconds of the second run.
  static double verified_seconds(const Case& c, const Contender& who) {
    double elapsed = 0;
    for (int i = 0; i < 2; ++i) {
      if (who.prepare) who.prepare();
      elapsed = seconds(who.run);
      if (i > 0 || !c.error) continue;
      const double error = c.error(who.name);
      ESP_REQUIRE(error <= c.tolerance, Error, "bench: ", c.name, ": ", who.name, " is wrong by ",
                  error, "; tolerated are ", c.tolerance);
    }
    return elapsed;
  }

  void register_contender(const Contender& who, double once) const {
    constexpr double kRepetitionSeconds = 1e-3;  // short ones are timed over several calls
    const auto calls = std::clamp(kRepetitionSeconds / std::max(once, 1e-9), 1.0, 1000.0);
    const auto body = [run = who.run, prepare = who.prepare](benchmark::State& state) {
      for (auto _ : state) {
        if (prepare) prepare();
        state.SetIterationTime(seconds(run));
      }
    };
    benchmark::RegisterBenchmark(who.name.c_str(), body)
        ->UseManualTime()
        ->Iterations(static_cast<benchmark::IterationCount>(calls))
        ->Repetitions(options_.reps);
  }

  void print_header() {
    header_printed_ = true;
    if (json_) return;
    fmt::print("{}: {} threads, {}, best of {}; multiply-adds {:.0f} GFLOP/s, copy {:.1f} GB/s\n",
               name_, num_threads(), cpu::name(cpu::isa()), options_.reps,
               multiply_add_ceiling() * 1e-9, copy_ceiling(double{1 << 30}) * 1e-9);
    fmt::print("{:34} {:>10} {:>8} {:>7} {:>7}", "case", "us", "rate", "", "ceiling");
    for (const std::string& peer : peers_) fmt::print(" {:>10}", peer);
    fmt::print("{}\n", peers_.empty() ? "" : "  ratio");
  }

  void print_row(const Case& c, const std::map<std::string, double>& best) const {
    const double ours = best.at(c.contenders.front().name);
    const double rate = c.work / ours, share = c.ceiling > 0 ? rate / c.ceiling : 0;
    double fastest = std::numeric_limits<double>::infinity();
    std::string row, peers;
    for (const std::string& peer : peers_) {
      const auto at = best.find(peer);
      if (at != best.end()) fastest = std::min(fastest, at->second);
      row += at == best.end() ? fmt::format(" {:>10}", "-")
                              : fmt::format(" {:10.1f}", c.work / at->second * 1e-9);
      if (at != best.end()) {
        peers += fmt::format("{}\"{}\": {:.2f}", peers.empty() ? "" : ", ", peer,
                             c.work / at->second * 1e-9);
      }
    }
    const bool compared = std::isfinite(fastest);
    const double ratio = compared ? fastest / ours : 0;
    if (json_) {
      fmt::print(
          "{{\"bench\": \"{}\", \"isa\": \"{}\", \"threads\": {}, \"case\": \"{}\", \"us\": "
          "{:.2f}, "
          "\"{}\": {:.2f}, \"ceiling\": {:.2f}, \"peers\": {{{}}}, \"ratio\": {:.3f}}}\n",
          name_, cpu::name(cpu::isa()), num_threads(), c.name, ours * 1e6,
          c.unit == Unit::flops ? "gflop_per_s" : "gb_per_s", rate * 1e-9, c.ceiling * 1e-9, peers,
          ratio);
    } else {
      fmt::print("{:34} {:10.1f} {:8.1f} {:7} {:>7}{}{}\n", c.name, ours * 1e6, rate * 1e-9,
                 c.unit == Unit::flops ? "GFLOP/s" : "GB/s",
                 c.ceiling > 0 ? fmt::format("{:.2f}", share) : "-", row,
                 compared ? fmt::format("  {:5.2f}", ratio) : "");
    }
    std::fflush(stdout);
  }

  std::string name_;
  std::vector<std::string> peers_;
  Options options_;
  bool json_, header_printed_ = false;
  double multiply_add_ = 0;
  std::map<double, double> copies_;
};

}  // namespace espalier::bench
