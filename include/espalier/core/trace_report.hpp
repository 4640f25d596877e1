// SPDX-License-Identifier: Apache-2.0
// A trace as a table, and as a file for chrome://tracing and ui.perfetto.dev (Trace Event Format,
// JSON, complete events "X", times in microseconds).
#pragma once

#include <cstdarg>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include <espalier/core/error.hpp>
#include <espalier/core/trace.hpp>

namespace espalier::trace {

/// Peak rates of the machine; 0: unknown. Measured by cpu::ceilings() (ops/cpu/ceilings.hpp).
struct Ceilings {
  double flops = 0;         // per second, f32 matrix product
  double narrow_flops = 0;  // per second, bf16 matrix product
  double bytes = 0;         // per second, copy between large arrays, read + written
};

/// The lower bound on the time by the peak rates, divided by the time taken. Above 1: the bytes
/// came from caches. 0: unknown.
[[nodiscard]] inline double of_ceiling(const Work& work, const Ceilings& c) {
  if (work.seconds <= 0) return 0;
  const double wide = work.flops - work.narrow_flops;
  double compute = 0, memory = 0;
  if (c.flops > 0) compute += wide / c.flops;
  if (c.narrow_flops > 0) compute += work.narrow_flops / c.narrow_flops;
  if (c.bytes > 0) memory = work.bytes / c.bytes;
  return std::max(compute, memory) / work.seconds;
}

namespace detail {
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
inline void
append(std::string& text, const char* format, ...) {
  char line[256];
  va_list values;
  va_start(values, format);
  std::vsnprintf(line, sizeof line, format, values);
  va_end(values);
  text += line;
}

ESP_ON_DEMAND inline void append_row(std::string& text, const std::string& name, std::int64_t calls,
                                     const Work& work, double total, const Ceilings& ceilings) {
  append(text, "%-28s %7lld %10.3f %6.1f %%", name.c_str(), static_cast<long long>(calls),
         1e3 * work.seconds, 100 * work.seconds / total);
  append(text, " %10.2f %9.1f", 1e-6 * work.bytes, 1e-6 * work.flops);
  append(text, " %7.1f %8.1f", 1e-9 * work.bytes / work.seconds, 1e-9 * work.flops / work.seconds);
  const double fraction = of_ceiling(work, ceilings);
  if (fraction > 0) append(text, " %7.2f", fraction);
  text += '\n';
}

ESP_ON_DEMAND inline std::string json_string(const char* name, const char* suffix) {
  std::string text = "\"";
  for (const char* part : {name, suffix}) {
    for (; *part != '\0'; ++part) {
      const auto c = static_cast<unsigned char>(*part);
      if (c == '"' || c == '\\') text += '\\';
      if (c >= 0x20) text += *part;
    }
  }
  return text + '"';
}
}  // namespace detail

/// One line per op, longest first, then the time outside of ops.
ESP_ON_DEMAND [[nodiscard]] inline std::string table(const Report& report,
                                                     const Ceilings& ceilings = {}) {
  std::string text;
  detail::append(text, "%-28s %7s %10s %8s %10s %9s %7s %8s", "op", "calls", "ms", "share", "MB",
                 "Mflop", "GB/s", "GFLOP/s");
  text += of_ceiling({1, 1, 1, 0}, ceilings) > 0 ? " ceiling\n" : "\n";
  Work sum;
  std::int64_t calls = 0;
  const double total = std::max(report.seconds, 1e-9);
  for (const Row& row : report.rows) {
    detail::append_row(text, row.name, row.calls, row, total, ceilings);
    calls += row.calls;
    sum.seconds += row.seconds;
    sum.bytes += row.bytes;
    sum.flops += row.flops;
    sum.narrow_flops += row.narrow_flops;
  }
  const double outside = std::max(report.seconds - sum.seconds, 0.0);
  detail::append(text, "%-28s %7s %10.3f %6.1f %%\n", "outside ops", "", 1e3 * outside,
                 100 * outside / total);
  sum.seconds = total;
  detail::append_row(text, "all", calls, sum, total, ceilings);
  if (ceilings.flops > 0) {
    detail::append(text, "ceilings: %.0f GFLOP/s f32", 1e-9 * ceilings.flops);
    if (ceilings.narrow_flops > 0) {
      detail::append(text, ", %.0f GFLOP/s bf16", 1e-9 * ceilings.narrow_flops);
    }
    detail::append(text, ", %.1f GB/s copied; above 1: from caches\n", 1e-9 * ceilings.bytes);
  }
  return text;
}

/// @throws IoError naming the path.
ESP_ON_DEMAND inline void write_chrome(const Report& report, const std::string& path) {
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "w"));
  ESP_REQUIRE(file != nullptr, IoError, "trace: cannot write ", path);
  std::fputs("{\"displayTimeUnit\": \"ms\", \"traceEvents\": [", file.get());
  const char* separator = "\n";
  for (const Event& e : report.events) {
    std::fprintf(file.get(),
                 "%s{\"name\": %s, \"ph\": \"X\", \"pid\": 1, \"tid\": 1, \"ts\": %.3f, "
                 "\"dur\": %.3f, \"args\": {\"bytes\": %.0f, \"flops\": %.0f}}",
                 separator, detail::json_string(e.name, e.suffix).c_str(), 1e6 * e.begin,
                 1e6 * e.seconds, e.bytes, e.flops);
    separator = ",\n";
  }
  std::fputs("\n]}\n", file.get());
  const bool good = std::ferror(file.get()) == 0;
  ESP_REQUIRE(std::fclose(file.release()) == 0 && good, IoError, "trace: cannot write ", path);
}

}  // namespace espalier::trace
