// SPDX-License-Identifier: Apache-2.0
// Traces a part of a program in one line:
//   const espalier::TraceSession session("step.json");
// When it goes out of scope, the table of ops goes to stderr, with fractions of what the machine
// can do, and the trace to the file, for chrome://tracing or ui.perfetto.dev.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <utility>

#include <espalier/ops/cpu/ceilings.hpp>

namespace espalier {

/// Fractions are of products in T (and in bf16).
template <FloatElement T>
class BasicTraceSession {
 public:
  /// To the file that the environment variable ESPALIER_TRACE names; without it, does nothing.
  BasicTraceSession() : BasicTraceSession(std::string(from_environment())) {}
  /// An empty path does nothing. Within another session, this one does nothing either.
  /// @throws IoError when the file cannot be written.
  explicit BasicTraceSession(std::string path) : path_(std::move(path)) {
    if (path_.empty() || trace::enabled()) return;
    trace::write_chrome({}, path_);  // a path that cannot be written should show now
    on_ = true;
    trace::start();
  }
  ~BasicTraceSession() {
    if (!on_) return;
    try {
      const trace::Report report = trace::stop();
      trace::write_chrome(report, path_);
      std::fputs(trace::table(report, cpu::measure_ceilings<T>()).c_str(), stderr);
      std::fprintf(stderr, "trace: %s\n", path_.c_str());
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s\n", e.what());
    }
  }
  BasicTraceSession(const BasicTraceSession&) = delete;
  BasicTraceSession& operator=(const BasicTraceSession&) = delete;

 private:
  static const char* from_environment() {
    const char* path = std::getenv("ESPALIER_TRACE");
    return path != nullptr ? path : "";
  }

  std::string path_;
  bool on_ = false;
};
using TraceSession = BasicTraceSession<float>;

}  // namespace espalier
