// SPDX-License-Identifier: Apache-2.0
// Where the time goes: switch tracing on, run, print the table.
//   espalier::trace::start();  step();  for (const auto& row : espalier::trace::stop()) ...
// Every op records its forward and its backward; a scope inside another is counted in its own row
// and taken off the outer one, so the rows add up to the traced time.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace espalier::trace {

struct Row {
  std::string name;
  std::int64_t calls = 0;
  double seconds = 0;  // without the scopes inside
  double flops = 0;
  double bytes = 0;
};

namespace detail {
struct State {
  bool on = false;
  std::vector<Row> rows;
  double inner_seconds = 0;  // time of finished scopes inside the current one
};
inline thread_local State state;
}  // namespace detail

inline bool enabled() {
  return detail::state.on;
}
/// For the calling thread, which is the one that runs the ops.
inline void start() {
  detail::state = {};
  detail::state.on = true;
}
/// The rows, longest first.
[[nodiscard]] inline std::vector<Row> stop() {
  std::vector<Row> rows = std::move(detail::state.rows);
  detail::state = {};
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.seconds > b.seconds; });
  return rows;
}

class Scope {
 public:
  explicit Scope(const char* name, const char* suffix = "", double flops = 0, double bytes = 0)
      : on_(enabled()) {
    if (!on_) return;
    name_ = name;
    name_ += suffix;
    flops_ = flops;
    bytes_ = bytes;
    outer_inner_ = std::exchange(detail::state.inner_seconds, 0.0);
    begin_ = Clock::now();
  }
  ~Scope() {
    if (!on_) return;
    const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
    auto& rows = detail::state.rows;
    auto row =
        std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.name == name_; });
    if (row == rows.end()) row = rows.insert(rows.end(), Row{name_, 0, 0, 0, 0});
    ++row->calls;
    row->seconds += seconds - detail::state.inner_seconds;
    row->flops += flops_;
    row->bytes += bytes_;
    detail::state.inner_seconds = outer_inner_ + seconds;
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  bool on_;
  std::string name_;
  double flops_ = 0, bytes_ = 0, outer_inner_ = 0;
  Clock::time_point begin_;
};

}  // namespace espalier::trace
