// SPDX-License-Identifier: Apache-2.0
// Reads whole files, and writes files that appear whole or not at all.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/file.hpp is host-only; include it from a .cpp"
#endif

#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/io/temporary.hpp>

namespace espalier::io {

/// Writes under a temporary name beside the target, and renames on commit(). Every write, flush and
/// close is checked, so a full disk is an error.
class AtomicFile {
 public:
  ESP_INLINE explicit AtomicFile(std::filesystem::path path)
      : path_(std::move(path)), temporary_(path_) {
    buffer_.reserve(kBufferBytes);
  }
  AtomicFile(AtomicFile&& other) noexcept
      : path_(std::move(other.path_)),
        temporary_(std::move(other.temporary_)),
        buffer_(std::move(other.buffer_)),
        written_bytes_(other.written_bytes_) {}
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile() {
    if (!temporary_.path.empty()) ::unlink(temporary_.path.c_str());
  }

  ESP_INLINE void write(const void* data, std::size_t bytes) {
    written_bytes_ += bytes;
    if (buffer_.size() + bytes > kBufferBytes) flush();
    if (bytes >= kBufferBytes) {
      write_through(static_cast<const char*>(data), bytes);
    } else if (bytes > 0) {
      const char* first = static_cast<const char*>(data);
      buffer_.insert(buffer_.end(), first, first + bytes);
    }
  }
  void write(std::string_view text) { write(text.data(), text.size()); }

  /// Bytes written so far, on disk or not.
  std::size_t written_bytes() const { return written_bytes_; }
  const std::filesystem::path& path() const { return path_; }

  /// Makes the complete file durable and renames it to its final name.
  ESP_INLINE void commit() {
    flush();
    if (!detail::sync(temporary_.fd.get())) detail::throw_errno(path_, "write");
    if (::rename(temporary_.path.c_str(), path_.c_str()) != 0) detail::throw_errno(path_, "create");
    temporary_.path.clear();
    if (!temporary_.fd.close()) detail::throw_errno(path_, "write");
    detail::sync_folder(path_.parent_path());
  }

 private:
  static constexpr std::size_t kBufferBytes = 1 << 20;

  void flush() {
    write_through(buffer_.data(), buffer_.size());
    buffer_.clear();
  }
  void write_through(const char* data, std::size_t bytes) {
    while (bytes > 0) {
      const ssize_t n = ::write(temporary_.fd.get(), data, std::min<std::size_t>(bytes, 1 << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) detail::throw_errno(path_, "write");
      if (n == 0) detail::throw_errno(path_, "write", ENOSPC);
      data += n;
      bytes -= static_cast<std::size_t>(n);
    }
  }

  std::filesystem::path path_;
  detail::TemporaryFile temporary_;
  std::vector<char> buffer_;
  std::size_t written_bytes_ = 0;
};

ESP_INLINE void write_text(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

/// Creates the folder and its parents as needed.
ESP_INLINE void create_folders(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) detail::throw_errno(folder, "create", error.value());
}

/// Reads a file, or a pipe that this process was given (/dev/stdin, /dev/fd/N).
/// @throws IoError for what cannot be read, and for a folder, a device, a socket or a named pipe
[[nodiscard]] ESP_INLINE std::string read_text(const std::filesystem::path& path) {
  struct stat info {};
  const detail::FileDescriptor fd = detail::open_to_read(path, info, detail::is_own_pipe(path));
  std::string text;
  for (std::size_t have = 0;;) {
    // The size is a hint only: pipes have none, and files grow.
    text.resize(std::max(have + 65536, static_cast<std::size_t>(info.st_size) + 1));
    const ssize_t n = ::read(fd.get(), text.data() + have, text.size() - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) detail::throw_errno(path, "read");
    have += static_cast<std::size_t>(n);
    if (n == 0) {
      text.resize(have);
      return text;
    }
  }
}

}  // namespace espalier::io
