// SPDX-License-Identifier: Apache-2.0
// Tracing: start, run, stop, read the report (core/trace_report.hpp prints it).
//   espalier::trace::start();  step();  const auto report = espalier::trace::stop();
// Every op records forward and backward, with bytes read and written and floating-point operations.
// A nested scope has its own row and is subtracted from the outer one, so the rows add up to the
// traced time. When tracing is off, a scope costs one branch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <espalier/core/clock.hpp>
#include <espalier/core/inline.hpp>

namespace espalier::trace {

/// Totals of all scopes of one name, nested scopes excluded.
struct Work {
  double seconds = 0;
  double bytes = 0;         // read and written
  double flops = 0;         // a multiply-add counts as two
  double narrow_flops = 0;  // those of `flops` done with 2-byte operands
};
struct Row : Work {
  std::string name;
  std::int64_t calls = 0;
};
struct Event {
  const char *name, *suffix;
  double begin, seconds;  // since the start, nested scopes included
  double bytes, flops;
};
struct Report {
  double seconds = 0;         // from start to stop
  std::vector<Row> rows;      // longest first
  std::vector<Event> events;  // in the order in which they ended
  std::int64_t dropped = 0;   // events after the first kMaxEvents; rows count them
};

inline constexpr std::size_t kMaxEvents = 1 << 20;

class Scope;

namespace detail {
struct Recorder {
  struct Total {
    const char *name, *suffix;
    std::int64_t calls = 0;
    Work work;
  };
  double begin = monotonic_seconds();
  std::vector<Total> totals;
  std::vector<Event> events;
  std::int64_t dropped = 0;
  Scope* scope = nullptr;  // the innermost open one

  void add(const char* name, const char* suffix, const Work& work) {
    Total& total = total_of(name, suffix);
    ++total.calls;
    total.work.seconds += work.seconds;
    total.work.bytes += work.bytes;
    total.work.flops += work.flops;
    total.work.narrow_flops += work.narrow_flops;
  }
  Total& total_of(const char* name, const char* suffix) {
    for (Total& t : totals) {
      if (std::strcmp(t.name, name) == 0 && std::strcmp(t.suffix, suffix) == 0) return t;
    }
    totals.push_back({name, suffix, 0, {}});
    return totals.back();
  }
};
inline constinit thread_local Recorder* recorder = nullptr;
}  // namespace detail

inline bool enabled() {
  return detail::recorder != nullptr;
}

/// Times a piece of code. `name` and `suffix` must outlive the tracing (string literals do).
class Scope {
 public:
  explicit Scope(const char* name, const char* suffix = "") {
    if (enabled()) open(name, suffix);
  }
  ~Scope() {
    if (recorder_ != nullptr) close();
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  friend void count(double flops, double bytes, bool narrow);
  friend void declare(double flops, double bytes, bool narrow);
  friend void estimate_bytes(double bytes);

  void open(const char* name, const char* suffix) {
    recorder_ = detail::recorder;
    name_ = name;
    suffix_ = suffix;
    outer_ = std::exchange(recorder_->scope, this);
    begin_ = monotonic_seconds();
  }
  void close() {
    const double seconds = monotonic_seconds() - begin_;
    // Tracing may have ended or restarted within the scope.
    if (recorder_ != detail::recorder || recorder_->scope != this) return;
    recorder_->scope = outer_;
    if (outer_ != nullptr) outer_->inner_seconds_ += seconds;
    if (work_.bytes == 0) work_.bytes = estimated_bytes_;
    work_.seconds = seconds - inner_seconds_;
    recorder_->add(name_, suffix_, work_);
    if (recorder_->events.size() < kMaxEvents) {
      recorder_->events.push_back(
          {name_, suffix_, begin_ - recorder_->begin, seconds, work_.bytes, work_.flops});
    } else {
      ++recorder_->dropped;
    }
  }

  detail::Recorder* recorder_ = nullptr;
  const char *name_ = nullptr, *suffix_ = nullptr;
  Scope* outer_ = nullptr;
  double inner_seconds_ = 0, estimated_bytes_ = 0;
  bool declared_ = false;
  Work work_;
  double begin_ = 0;
};

/// Adds to the innermost open scope of this thread. `narrow`: flops on 2-byte operands.
inline void count(double flops, double bytes, bool narrow = false) {
  if (!enabled()) return;
  if (Scope* scope = detail::recorder->scope; scope != nullptr && !scope->declared_) {
    scope->work_.flops += flops;
    scope->work_.bytes += bytes;
    if (narrow) scope->work_.narrow_flops += flops;
  }
}
/// Sets the total of the scope: counts of its parts, some of which may run on other threads, are
/// not added. Without `bytes` the estimate stays.
inline void declare(double flops, double bytes = 0, bool narrow = false) {
  if (!enabled()) return;
  count(flops, bytes, narrow);
  if (Scope* scope = detail::recorder->scope) scope->declared_ = true;
}
/// Estimated bytes of the scope, used if nothing counts them.
inline void estimate_bytes(double bytes) {
  if (!enabled()) return;
  if (Scope* scope = detail::recorder->scope) scope->estimated_bytes_ = bytes;
}

/// Stops tracing; returns an empty report if it was off.
ESP_ON_DEMAND [[nodiscard]] ESP_INLINE Report stop() {
  Report report;
  const std::unique_ptr<detail::Recorder> recorder(std::exchange(detail::recorder, nullptr));
  if (!recorder) return report;
  report.seconds = monotonic_seconds() - recorder->begin;
  for (const auto& t : recorder->totals) {
    std::size_t place = report.rows.size();
    report.rows.emplace_back();
    for (; place > 0 && report.rows[place - 1].seconds < t.work.seconds; --place) {
      report.rows[place] = std::move(report.rows[place - 1]);
    }
    report.rows[place] = {t.work, std::string(t.name) + t.suffix, t.calls};
  }
  report.events = std::move(recorder->events);
  report.dropped = recorder->dropped;
  return report;
}
/// Starts tracing the calling thread, which must be the one that runs the ops. Drops earlier
/// records.
ESP_ON_DEMAND inline void start() {
  (void)stop();
  detail::recorder = new detail::Recorder;
}

}  // namespace espalier::trace
