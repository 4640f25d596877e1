// SPDX-License-Identifier: Apache-2.0
// A log file of lines. Each line is written to the system at once, and is in the file completely or
// not at all: a killed process loses none. A power cut loses the lines since `sync`, or of the last
// second. Opening
// truncates an incomplete last line that a killed process left. One process writes at a time.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/append_log.hpp is host-only; include it from a .cpp"
#endif

#include <sys/file.h>

#include <chrono>

#include <espalier/io/file.hpp>

namespace espalier::io {

class AppendLog {
 public:
  /// Opens the file, or creates it.
  /// @throws IoError also if another process is writing it
  ESP_INLINE explicit AppendLog(std::filesystem::path path)
      : path_(std::move(path)), file_(path_, O_RDWR | O_APPEND | O_CREAT, "open") {
    if (::flock(file_.get(), LOCK_EX | LOCK_NB) != 0) {
      ESP_REQUIRE(errno != EWOULDBLOCK, IoError, path_.string(),
                  ": another run is writing it; wait for it or choose another output folder");
      detail::throw_errno(path_, "lock");
    }
    const std::string text = read_text(path_);
    const std::size_t end = text.rfind('\n');
    lines_ = text.substr(0, end == text.npos ? 0 : end + 1);
    size_ = static_cast<off_t>(lines_.size());
    if (lines_.size() < text.size() && ::ftruncate(file_.get(), size_) != 0) {
      detail::throw_errno(path_, "write");
    }
  }

  /// The complete lines that the file held when it was opened.
  const std::string& lines() const { return lines_; }

  /// Appends `line` and a line feed.
  /// @throws IoError if that fails; the file then ends with the previous line
  ESP_INLINE void append(std::string line) {
    line += '\n';
    for (std::size_t done = 0; done < line.size();) {
      const ssize_t n = ::write(file_.get(), line.data() + done, line.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        const int code = n < 0 ? errno : ENOSPC;
        (void)!::ftruncate(file_.get(), size_);
        detail::throw_errno(path_, "write", code);
      }
      done += static_cast<std::size_t>(n);
    }
    size_ += static_cast<off_t>(line.size());
    if (std::chrono::steady_clock::now() - synced_ >= std::chrono::seconds(1)) sync();
  }

  /// Waits until all lines are on the disk. @throws IoError
  ESP_INLINE void sync() {
    synced_ = std::chrono::steady_clock::now();
    if (!detail::sync(file_.get())) detail::throw_errno(path_, "write");
  }

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  detail::FileDescriptor file_;
  std::string lines_;
  off_t size_ = 0;
  std::chrono::steady_clock::time_point synced_ = {};
};

}  // namespace espalier::io
