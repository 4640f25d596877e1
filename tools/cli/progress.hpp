// SPDX-License-Identifier: Apache-2.0
// Progress on stderr: on a terminal one bar that rewrites itself, with rate and time left;
// otherwise a line every few seconds. Tables on stdout: columns as wide as their widest cell,
// numbers to the right. Neither is for more than one thread at a time.
#pragma once

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "cli/print.hpp"

namespace espalier {

/// "1:02:03", "4:05"
[[nodiscard]] inline std::string format_duration(double seconds) {
  const auto s = static_cast<std::int64_t>(std::clamp(seconds, 0.0, 1e9) + 0.5);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

/// "512 B", "1.50 GB": decimal units, as disks and checkpoints are sold.
[[nodiscard]] inline std::string format_bytes(double bytes) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  std::size_t unit = 0;
  while (bytes >= 1000.0 && unit + 1 < std::size(units)) {
    bytes /= 1000.0;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.2f} {}", bytes, units[unit]);
}

/// What is odd about a checkpoint, a line each on stderr.
inline void print_warnings(const char* program, const std::vector<std::string>& warnings) {
  for (const std::string& w : warnings) print(stderr, "{}: warning: {}\n", program, w);
}

class Progress {
 public:
  /// `total` <= 0: not known, so no bar and no time left. Rates are in `unit` per second.
  Progress(std::string label, std::int64_t total, std::string unit)
      : label_(std::move(label)),
        unit_(std::move(unit)),
        total_(total),
        terminal_(isatty(STDERR_FILENO) == 1),
        begin_(Clock::now()),
        shown_(begin_) {}
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Work that an earlier run did: it counts as done, but not for the rate.
  void start_at(std::int64_t done) { done_ = first_ = done; }
  /// `done` in all, with a short note such as "loss 1.234".
  void update(std::int64_t done, std::string note = {}) {
    done_ = done;
    note_ = std::move(note);
    const auto now = Clock::now();
    if (now - shown_ < (terminal_ ? std::chrono::milliseconds(100) : std::chrono::seconds(5)))
      return;
    shown_ = now;
    show();
  }
  void add(std::int64_t more, std::string note = {}) { update(done_ + more, std::move(note)); }
  /// The last line: what was done, and how long it took.
  void finish() {
    if (finished_) return;
    finished_ = true;
    if (terminal_) std::fputs("\r\x1b[K", stderr);
    print(stderr, "{}: {} {} in {}{}{}\n", label_, done_, unit_, format_duration(seconds()),
          rate_text(), note_.empty() ? "" : ", " + note_);
  }
  /// Takes the bar off the screen, so that another line can be printed.
  void clear() {
    if (terminal_ && !finished_) std::fputs("\r\x1b[K", stderr);
  }

 private:
  using Clock = std::chrono::steady_clock;
  double seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }
  double rate() const {
    const double s = seconds();
    return s > 0 ? static_cast<double>(done_ - first_) / s : 0.0;
  }
  std::string rate_text() const {
    const double r = rate();
    return r > 0 ? fmt::format(", {:.{}f} {}/s", r, r < 10 ? 2 : 0, unit_) : std::string();
  }
  std::string text() const {
    std::string line = fmt::format("{}/{} {}{}", done_, total_, unit_, rate_text());
    if (total_ <= 0) line = fmt::format("{} {}{}", done_, unit_, rate_text());
    if (total_ > 0 && rate() > 0) {
      line += ", " + format_duration(static_cast<double>(total_ - done_) / rate()) + " left";
    }
    return note_.empty() ? line : line + ", " + note_;
  }
  void show() const {
    if (!terminal_) {
      print(stderr, "{}: {}\n", label_, text());
      return;
    }
    winsize window = {};
    const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0;
    const std::size_t columns = known ? window.ws_col : 80;
    std::string line = label_ + " ";
    if (total_ > 0) {
      constexpr std::int64_t kWidth = 24;
      const auto full =
          static_cast<std::size_t>(std::clamp(done_, std::int64_t{0}, total_) * kWidth / total_);
      line += "[" + std::string(full, '#') + std::string(kWidth - full, '.') + "] ";
    }
    line += text();
    if (line.size() >= columns) line.resize(columns - 1);
    std::fputs(("\r" + escape_controls(line) + "\x1b[K").c_str(), stderr);
    std::fflush(stderr);
  }

  std::string label_, unit_, note_;
  std::int64_t total_, done_ = 0, first_ = 0;
  bool terminal_, finished_ = false;
  Clock::time_point begin_, shown_;
};

class Table {
 public:
  explicit Table(const std::vector<std::string>& header) { rows_.push_back(printable(header)); }
  void add_row(const std::vector<std::string>& cells) {
    rows_.push_back(printable(cells));
    rows_.back().resize(rows_[0].size());
  }
  /// Columns whose cells all begin like a number go to the right.
  [[nodiscard]] std::string text() const {
    std::string out;
    for (const auto& row : rows_) {
      std::string line;
      for (std::size_t c = 0; c < row.size(); ++c) {
        const std::string padding(width(c) - characters(row[c]), ' ');
        line += numeric(c) ? padding + row[c] : row[c] + padding;
        line += "  ";
      }
      line.erase(line.find_last_not_of(' ') + 1);
      out += line + '\n';
    }
    return out;
  }
  void print(std::FILE* file = stdout) const { fmt::print(file, "{}", text()); }

 private:
  static std::vector<std::string> printable(std::vector<std::string> cells) {
    for (std::string& cell : cells) cell = escape_controls(cell);
    return cells;
  }
  static std::size_t characters(const std::string& s) {  // UTF-8: all but continuation bytes
    return static_cast<std::size_t>(std::count_if(s.begin(), s.end(), [](char ch) {
      return (static_cast<unsigned char>(ch) & 0xc0) != 0x80;
    }));
  }
  std::size_t width(std::size_t column) const {
    std::size_t widest = 0;
    for (const auto& row : rows_) widest = std::max(widest, characters(row[column]));
    return widest;
  }
  bool numeric(std::size_t column) const {
    for (std::size_t r = 1; r < rows_.size(); ++r) {
      const std::string& cell = rows_[r][column];
      const std::size_t at = cell.find_first_not_of("+-.");
      const bool digit = at != std::string::npos && cell[at] >= '0' && cell[at] <= '9';
      if (!digit && !cell.empty() && cell != "-" && cell != "nan" && cell != "inf") return false;
    }
    return rows_.size() > 1;
  }

  std::vector<std::vector<std::string>> rows_;
};

}  // namespace espalier
