// SPDX-License-Identifier: Apache-2.0
// What the benches of the CUDA kernels share: options, data in device memory, the ceilings of this
// GPU measured in the same run, and a suite that verifies a case, times it and its peers, and
// prints one row.
//   bench::DeviceSuite suite("cuda_dispatch_bench", options, common.json);
//   suite.run({"dispatch Mixtral uniform", bytes, Unit::bytes, [&] { return launcher(...); },
//              [&] { return relative_error; }, 0.0, {rows}, {{"copy", suite.copy_of(bytes)}}});
// A case runs `--alike` times on outputs filled with NaN, and all their bytes must agree (twice, if
// they are many: the host compares at most kComparedBytes). Then each
// contender is timed between two events, over and over; before each time the L2 cache is filled
// with what nobody needs, by reading, so that no written line is left to go to memory meanwhile.
// The median counts. Launches are those that a stream capture records.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <espalier/core/random.hpp>
#include <espalier/cuda/gemm.hpp>

#include "cli/program.hpp"

namespace espalier::bench {

inline constexpr int kNoDevice = 77;  // the exit code that ctest reports as skipped

struct DeviceOptions {
  std::string only;  // cases whose name contains this
  int reps = 30, alike = 5;
  bool tiny = false;
};

inline void add_options(CLI::App& app, DeviceOptions& o) {
  app.add_option("--only", o.only, "Cases whose name contains this");
  app.add_option("--reps", o.reps, "Times of which the median counts, if there is time for them")
      ->check(CLI::Range(1, 1000));
  app.add_option("--alike", o.alike, "Runs that must give the same bytes")
      ->check(CLI::Range(1, 1000));
  app.add_flag("--tiny", o.tiny, "Sizes of a test: the times mean nothing");
}

/// Normals times `scale` in device memory; they repeat with a period that no row has.
template <Element T>
Tensor<T, Cuda> random_on_device(const Shape& shape, std::uint64_t seed, float scale = 1) {
  constexpr std::int64_t kPeriod = 65537;
  const Tensor<T, Cuda> t(shape);
  const std::int64_t n = t.numel(), first = std::min(n, kPeriod);
  Tensor<T> block(Shape{first});
  const Philox philox(seed);
  for (std::int64_t i = 0; i < first; ++i) {
    block[i] = static_cast<T>(scale * philox.normal(static_cast<std::uint64_t>(i)));
  }
  cuda::upload(t.bytes(), block.bytes(), static_cast<std::size_t>(first) * sizeof(T));
  for (std::int64_t done = first; done < n; done *= 2) {  // twice as many each time
    const auto bytes = static_cast<std::size_t>(std::min(done, n - done)) * sizeof(T);
    cuda::copy(t.bytes() + done * std::int64_t{sizeof(T)}, t.bytes(), bytes);
  }
  return t;
}

/// An array for a kernel: anything that a device tensor cannot hold.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values)
      : memory_(cuda::allocate(values.size() * sizeof(T))) {
    cuda::upload(memory_.get(), reinterpret_cast<const std::byte*>(values.data()),
                 values.size() * sizeof(T));
  }
  T* data() const { return reinterpret_cast<T*>(memory_.get()); }

 private:
  std::shared_ptr<std::byte> memory_;
};

template <Element T>
std::vector<T> host(const Tensor<T, Cuda>& t) {
  const Tensor<T> values(t.on_host());
  return {values.data(), values.data() + values.numel()};
}

/// The values of a device tensor, from row `begin` on.
inline std::vector<double> host_rows(const AnyTensor& t, std::int64_t begin, std::int64_t rows) {
  const Tensor<double> wide = converted<double>(t.rows(begin, begin + rows).on_host());
  return {wide.data(), wide.data() + wide.numel()};
}

/// The largest error relative to the largest number wanted; NaN is infinite.
inline double relative_error(const std::vector<double>& got, const std::vector<double>& want) {
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double error = std::abs(got[i] - want[i]);
    if (!(error <= worst)) worst = std::isfinite(error) ? error : HUGE_VAL;
    largest = std::max(largest, std::abs(want[i]));
  }
  return worst == 0 ? 0 : worst / largest;
}

enum class Unit { flops, bytes };

struct DeviceContender {
  std::string name;
  std::function<cudaError_t()> run;
};

struct DeviceCase {
  std::string name;
  double work;  // flops (a multiply-add counts as two) or bytes
  Unit unit;
  std::function<cudaError_t()> run;
  std::function<double()> error;  // after a run: how wrong it is
  double tolerance;
  std::vector<AnyTensor> outputs;  // `run` overwrites all of them
  std::vector<DeviceContender> peers = {};
  std::function<void()> prepare = nullptr;  // where `run` changes what it reads: sets that anew
};

class DeviceSuite {
 public:
  DeviceSuite(std::string name, const DeviceOptions& options, bool json)
      : name_(std::move(name)), options_(options), json_(json) {
    cuda::check(cudaGetDeviceProperties(&device_, 0), "cudaGetDeviceProperties");
    for (cudaEvent_t& e : events_) {
      cuda::check(cudaEventCreateWithFlags(&e, cudaEventDefault), "cudaEventCreateWithFlags");
    }
    const std::int64_t bytes = options.tiny ? 4096 : 4 * std::int64_t{device_.l2CacheSize};
    unrelated_ = random_on_device<float>({bytes / 4}, 99);
    sum_ = Tensor<double, Cuda>(Shape{1});
    sum_workspace_ = cuda::allocate(kernels::sum_of_squares_workspace_bytes(unrelated_.numel()));
  }
  ~DeviceSuite() {
    for (cudaEvent_t e : events_) cudaEventDestroy(e);
  }
  DeviceSuite(const DeviceSuite&) = delete;
  DeviceSuite& operator=(const DeviceSuite&) = delete;

  [[nodiscard]] const DeviceOptions& options() const { return options_; }
  [[nodiscard]] bool wants(const std::string& name) const {
    return name.find(options_.only) != std::string::npos;
  }

  /// A copy by the driver that reads and writes `bytes` in total.
  std::function<cudaError_t()> copy_of(double bytes) {
    const auto half = static_cast<std::size_t>(bytes / 2);
    if (copied_.numel() == 0 || copied_.size_bytes() < 2 * half) {
      copied_ = random_on_device<float>({static_cast<std::int64_t>(half / 2 + 1)}, 98);
    }
    return [this, half] {
      return cudaMemcpyAsync(copied_.bytes() + half, copied_.bytes(), half,
                             cudaMemcpyDeviceToDevice, cuda::stream());
    };
  }
  /// Bytes per second of a large copy, read and written.
  double copy_ceiling() {
    if (copy_rate_ == 0) {
      const double bytes = options_.tiny ? 4096 : 2.0 * double{1 << 30};
      copy_rate_ = bytes / time(copy_of(bytes)).median;
    }
    return copy_rate_;
  }
  /// Flops per second of a large bf16 product by cuBLAS.
  double product_ceiling() {
    if (product_rate_ == 0) {
      const std::int64_t n = options_.tiny ? 8 : 8192;
      const auto a = random_on_device<bf16>({n, n}, 1), b = random_on_device<bf16>({n, n}, 2);
      const Tensor<bf16, Cuda> c(Shape{n, n});
      const auto product = [&] {
        cuda::gemm(n, n, n, {a.bytes(), DType::bf16, n}, {b.bytes(), DType::bf16, n, true},
                   c.data(), n);
        return cudaSuccess;
      };
      product_rate_ = 2.0 * double(n) * double(n) * double(n) / time(product).median;
    }
    return product_rate_;
  }

  /// Verifies, times and prints. Nothing if not asked for.
  void run(const DeviceCase& c) {
    if (!wants(c.name)) return;
    if (!header_printed_) print_header();
    const int alike = verify(c);
    const std::size_t launches = count_launches(c);
    const Times ours = time(c.run, c.prepare);
    std::vector<double> peers;
    for (const DeviceContender& peer : c.peers) {
      peers.push_back(time(peer.run, c.prepare).median);
    }
    print_row(c, ours, launches, alike, peers);
  }

 private:
  static constexpr double kSecondsEach = 0.1;  // for all times of one contender
  static constexpr int kFewest = 3;
  static constexpr double kComparedBytes = 1e9;

  struct Times {
    double median, best;
  };

  void flush_cache() {
    ESP_CUDA(kernels::sum_of_squares(cuda::ptr(sum_), cuda::ptr(unrelated_), unrelated_.numel(),
                                     sum_workspace_.get(), cuda::stream()));
  }

  /// Also warms up. Returns how many runs were alike.
  int verify(const DeviceCase& c) const {
    std::size_t bytes_each = 1;
    for (const AnyTensor& t : c.outputs) bytes_each += t.size_bytes();
    const int affordable = static_cast<int>(kComparedBytes / static_cast<double>(bytes_each));
    const int runs = std::min(options_.alike, std::max(2, affordable));
    std::vector<std::string> first;
    for (int run = 0; run < runs; ++run) {
      for (const AnyTensor& t : c.outputs) {
        ESP_CUDA(cudaMemsetAsync(t.bytes(), 0xff, t.size_bytes(), cuda::stream()));
      }
      if (c.prepare) c.prepare();
      cuda::check(c.run(), c.name.c_str());
      cuda::synchronize();
      if (run == 0) {
        const double error = c.error();
        ESP_REQUIRE(error <= c.tolerance, Error, "bench: ", c.name, " is wrong by ", error,
                    "; tolerated are ", c.tolerance);
      }
      for (std::size_t i = 0; i < c.outputs.size(); ++i) {
        const AnyTensor host = c.outputs[i].on_host();
        const std::string bytes(reinterpret_cast<const char*>(host.bytes()), host.size_bytes());
        if (run == 0) {
          first.push_back(bytes);
        } else {
          ESP_REQUIRE(bytes == first[i], Error, "bench: ", c.name, ": run ", run + 1,
                      " gives other bytes than the first");
        }
      }
    }
    return runs;
  }

  static std::size_t count_launches(const DeviceCase& c) {
    cudaGraph_t graph = nullptr;
    cuda::check(cudaStreamBeginCapture(cuda::stream(), cudaStreamCaptureModeThreadLocal),
                "cudaStreamBeginCapture");
    const cudaError_t error = c.run();
    cuda::check(cudaStreamEndCapture(cuda::stream(), &graph), "cudaStreamEndCapture");
    cuda::check(error, c.name.c_str());
    std::size_t nodes = 0;
    cuda::check(cudaGraphGetNodes(graph, nullptr, &nodes), "cudaGraphGetNodes");
    cuda::check(cudaGraphDestroy(graph), "cudaGraphDestroy");
    return nodes;
  }

  double time_once(const std::function<cudaError_t()>& run, const std::function<void()>& prepare) {
    if (prepare) prepare();
    flush_cache();
    cuda::check(cudaEventRecord(events_[0], cuda::stream()), "cudaEventRecord");
    cuda::check(run(), "bench");
    cuda::check(cudaEventRecord(events_[1], cuda::stream()), "cudaEventRecord");
    cuda::check(cudaEventSynchronize(events_[1]), "cudaEventSynchronize");
    float ms = 0;
    cuda::check(cudaEventElapsedTime(&ms, events_[0], events_[1]), "cudaEventElapsedTime");
    return ms * 1e-3;
  }
  Times time(const std::function<cudaError_t()>& run,
             const std::function<void()>& prepare = nullptr) {
    const double once = time_once(run, prepare);  // warm
    const int affordable = static_cast<int>(kSecondsEach / std::max(once, 1e-9));
    const int reps = std::min(options_.reps, std::max(kFewest, affordable));
    std::vector<double> seconds;
    for (int i = 0; i < reps; ++i) seconds.push_back(time_once(run, prepare));
    std::sort(seconds.begin(), seconds.end());
    return {seconds[seconds.size() / 2], seconds[0]};
  }

  void print_header() {
    header_printed_ = true;
    int driver = 0;
    cuda::check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    const double copy = copy_ceiling() * 1e-9, product = product_ceiling() * 1e-12;
    if (json_) {
      fmt::print(
          "{{\"bench\": \"{}\", \"gpu\": \"{}\", \"driver\": {}, \"copy_gb_per_s\": {:.1f}, "
          "\"product_tflop_per_s\": {:.1f}}}\n",
          name_, device_.name, driver, copy, product);
      return;
    }
    fmt::print(
        "{}: {}, driver for CUDA {}.{}; copy {:.0f} GB/s, bf16 product by cuBLAS {:.0f} TFLOP/s; "
        "medians of {}\n",
        name_, device_.name, driver / 1000, driver % 1000 / 10, copy, product, options_.reps);
    fmt::print("{:44} {:>9} {:>9} {:>8} {:7} {:>7} {:>8}  peers: us, times slower\n", "case", "us",
               "min", "rate", "", "ceiling", "launches");
  }

  void print_row(const DeviceCase& c, const Times& ours, std::size_t launches, int alike,
                 const std::vector<double>& peers) {
    const bool flops = c.unit == Unit::flops;
    const double rate = c.work / ours.median;
    const double share = rate / (flops ? product_ceiling() : copy_ceiling());
    const double shown = rate * (flops ? 1e-12 : 1e-9);
    std::string behind;
    for (std::size_t i = 0; i < peers.size(); ++i) {
      const double us = peers[i] * 1e6, ratio = peers[i] / ours.median;
      behind += json_ ? fmt::format("{}\"{}\": {:.2f}", i > 0 ? ", " : "", c.peers[i].name, us)
                      : fmt::format("  {} {:.1f} ({:.2f})", c.peers[i].name, us, ratio);
    }
    if (json_) {
      fmt::print(
          "{{\"bench\": \"{}\", \"gpu\": \"{}\", \"case\": \"{}\", \"us\": {:.2f}, "
          "\"min_us\": {:.2f}, \"{}\": {:.2f}, \"of_ceiling\": {:.4f}, \"launches\": {}, "
          "\"alike\": {}, \"peers_us\": {{{}}}}}\n",
          name_, device_.name, c.name, ours.median * 1e6, ours.best * 1e6,
          flops ? "tflop_per_s" : "gb_per_s", shown, share, launches, alike, behind);
    } else {
      fmt::print("{:44} {:9.1f} {:9.1f} {:8.1f} {:7} {:7.3f} {:8}{}\n", c.name, ours.median * 1e6,
                 ours.best * 1e6, shown, flops ? "TFLOP/s" : "GB/s", share, launches, behind);
    }
    std::fflush(stdout);
  }

  std::string name_;
  DeviceOptions options_;
  bool json_, header_printed_ = false;
  cudaDeviceProp device_ = {};
  std::array<cudaEvent_t, 2> events_ = {};
  Tensor<float, Cuda> unrelated_;  // several times the L2 cache
  Tensor<double, Cuda> sum_;
  std::shared_ptr<std::byte> sum_workspace_;
  Tensor<float, Cuda> copied_;
  double copy_rate_ = 0, product_rate_ = 0;
};

/// The main of a bench: options, and exit code 77 where there is no GPU.
template <class Run>
int device_bench_main(int argc, char** argv, const char* name, const char* summary, Run&& run) {
  DeviceOptions o;
  return run_program(
      argc, argv, name, summary, [&](CLI::App& app) { add_options(app, o); },
      [&](const CommonOptions& common) {
        int devices = 0;
        if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
          fmt::print("skipped: no CUDA device\n");
          return kNoDevice;
        }
        DeviceSuite suite(name, o, common.json);
        run(suite);
        return 0;
      });
}

}  // namespace espalier::bench
