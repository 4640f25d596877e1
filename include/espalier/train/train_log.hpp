// SPDX-License-Identifier: Apache-2.0
// train_log.jsonl: one object per optimizer step, on the disk as soon as the step is done. Opening
// it writes it anew from the steps that are known to be done, so a torn last line, or steps after
// the checkpoint that a run goes on from, are gone.
#pragma once

#ifdef __CUDACC__
#error "espalier/train/train_log.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <vector>

#include <espalier/io/file.hpp>
#include <espalier/io/json.hpp>

namespace espalier::train {

class TrainLog {
 public:
  TrainLog(const std::filesystem::path& path, const std::vector<io::Json>& done) : path_(path) {
    std::string text;
    for (const io::Json& entry : done) text += io::dump(entry) + '\n';
    io::write_text(path, text);
    file_ = io::detail::FileDescriptor(path, O_WRONLY | O_APPEND, "open");
    size_ = static_cast<off_t>(text.size());
    entries_ = done;
  }

  /// @throws IoError when the disk is full; the file then ends with the last whole line.
  void append(io::Json entry) {
    const std::string line = io::dump(entry) + '\n';
    for (std::size_t done = 0; done < line.size();) {
      const ssize_t n = ::write(file_.get(), line.data() + done, line.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        const int code = n < 0 ? errno : ENOSPC;
        (void)!::ftruncate(file_.get(), size_);
        io::detail::throw_errno(path_, "write", code);
      }
      done += static_cast<std::size_t>(n);
    }
    size_ += static_cast<off_t>(line.size());
    entries_.push_back(std::move(entry));
  }

  const std::vector<io::Json>& entries() const { return entries_; }

 private:
  std::filesystem::path path_;
  io::detail::FileDescriptor file_;
  off_t size_ = 0;
  std::vector<io::Json> entries_;
};

}  // namespace espalier::train
