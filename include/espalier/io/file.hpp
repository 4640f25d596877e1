// SPDX-License-Identifier: Apache-2.0
// Atomic files. `AtomicFile` and `AtomicFolder` write under a temporary name beside the target and
// rename on commit(). Every write, flush and close is checked, so a full disk is an error.
// `MappedFile` reads through mmap.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/file.hpp is host-only; include it from a .cpp"
#endif

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>

namespace espalier::io {

namespace detail {

/// "/path/x: cannot write: No space left on device; free some space and run again"
[[noreturn]] inline void throw_errno(const std::filesystem::path& path, const char* what,
                                     int code = errno) {
  const char* advice = "";
  if (code == ENOSPC || code == EDQUOT) advice = "; free some space and run again";
  if (code == EACCES || code == EPERM) advice = "; check its permissions";
  throw IoError(espalier::detail::concat(
      {path.string(), ": cannot ", what, ": ", std::strerror(code), advice}));
}

class FileDescriptor {
 public:
  FileDescriptor() = default;
  FileDescriptor(const std::filesystem::path& path, int flags, const char* what)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    if (fd_ < 0) throw_errno(path, what);
  }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  bool close() { return ::close(std::exchange(fd_, -1)) == 0; }

 private:
  int fd_ = -1;
};

/// Makes a rename in `folder` durable. Some file systems refuse; that is ignored.
inline void sync_folder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

inline std::filesystem::path temporary_sibling(std::filesystem::path path) {
  path += ".tmp-" + std::to_string(::getpid());
  return path;
}

}  // namespace detail

class AtomicFile {
 public:
  ESP_INLINE explicit AtomicFile(std::filesystem::path path)
      : path_(std::move(path)),
        temporary_(detail::temporary_sibling(path_)),
        fd_(temporary_, O_WRONLY | O_CREAT | O_TRUNC, "create") {
    buffer_.reserve(kBufferBytes);
  }
  AtomicFile(AtomicFile&& other) noexcept
      : path_(std::move(other.path_)),
        temporary_(std::exchange(other.temporary_, {})),
        fd_(std::move(other.fd_)),
        buffer_(std::move(other.buffer_)),
        written_bytes_(other.written_bytes_) {}
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile() {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
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
    if (::fsync(fd_.get()) != 0 && errno != EINVAL && errno != ENOTSUP) {
      detail::throw_errno(path_, "write");
    }
    if (!fd_.close()) detail::throw_errno(path_, "write");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) detail::throw_errno(path_, "create");
    temporary_.clear();
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
      const ssize_t n = ::write(fd_.get(), data, std::min<std::size_t>(bytes, 1 << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) detail::throw_errno(path_, "write");
      if (n == 0) detail::throw_errno(path_, "write", ENOSPC);
      data += n;
      bytes -= static_cast<std::size_t>(n);
    }
  }

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  detail::FileDescriptor fd_;
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

/// Removes a folder atomically: a process killed meanwhile leaves it under a temporary name.
ESP_INLINE void remove_folder(const std::filesystem::path& folder) {
  const std::filesystem::path doomed = detail::temporary_sibling(folder);
  std::error_code ignored;
  std::filesystem::remove_all(doomed, ignored);
  if (::rename(folder.c_str(), doomed.c_str()) != 0) detail::throw_errno(folder, "remove");
  std::filesystem::remove_all(doomed, ignored);
}

/// A folder that is built under a temporary name and renamed when complete. The target must not
/// exist.
class AtomicFolder {
 public:
  ESP_INLINE explicit AtomicFolder(std::filesystem::path target) : target_(std::move(target)) {
    if (!target_.has_filename()) target_ = target_.parent_path();  // "out/" names "out"
    ESP_REQUIRE(!target_.empty(), IoError, "an output folder needs a name");
    refuse_existing();
    std::error_code error;
    if (target_.has_parent_path())
      std::filesystem::create_directories(target_.parent_path(), error);
    if (error) detail::throw_errno(target_.parent_path(), "create", error.value());
    building_ = detail::temporary_sibling(target_);
    std::filesystem::remove_all(building_, error);  // left by a killed process with the same id
    if (::mkdir(building_.c_str(), 0777) != 0) detail::throw_errno(building_, "create");
  }
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  ~AtomicFolder() {
    std::error_code ignored;
    if (!building_.empty()) std::filesystem::remove_all(building_, ignored);
  }

  /// Where to write until commit().
  const std::filesystem::path& path() const { return building_; }

  ESP_INLINE void commit() {
    refuse_existing();
    detail::sync_folder(building_);
    if (::rename(building_.c_str(), target_.c_str()) != 0) detail::throw_errno(target_, "create");
    building_.clear();
    detail::sync_folder(target_.parent_path());
  }

 private:
  void refuse_existing() const {
    std::error_code ignored;
    ESP_REQUIRE(!std::filesystem::exists(std::filesystem::symlink_status(target_, ignored)),
                IoError, target_.string(),
                ": exists already; remove it or choose another output folder");
  }

  std::filesystem::path target_;
  std::filesystem::path building_;
};

/// A mapped file. The pages are private: a stray write changes this process only.
class MappedFile {
 public:
  ESP_INLINE explicit MappedFile(const std::filesystem::path& path)
      : path_(path), fd_(std::make_shared<detail::FileDescriptor>(path, O_RDONLY, "open")) {
    struct stat info {};
    if (::fstat(fd_->get(), &info) != 0) detail::throw_errno(path, "open");
    ESP_REQUIRE(S_ISREG(info.st_mode), IoError, path.string(), ": is not a regular file");
    size_ = static_cast<std::size_t>(info.st_size);
    if (size_ == 0) return;
    void* at =
        ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd_->get(), 0);
    if (at == MAP_FAILED) detail::throw_errno(path, "map");
    const std::size_t size = size_;
    bytes_ = {static_cast<std::byte*>(at), [size](std::byte* p) { ::munmap(p, size); }};
  }

  const std::shared_ptr<std::byte>& bytes() const { return bytes_; }
  std::size_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }

  /// Reads without the mapping, so that copying a large file does not fill this process's memory.
  void read(std::size_t offset, void* to, std::size_t bytes) const {
    char* out = static_cast<char*>(to);
    while (bytes > 0) {
      const ssize_t n = ::pread(fd_->get(), out, std::min<std::size_t>(bytes, 1 << 30),
                                static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) detail::throw_errno(path_, "read");
      ESP_REQUIRE(n > 0, IoError, path_.string(), ": ends at byte ", offset, ", ", bytes,
                  " more were expected; something cut it short while it was being read");
      out += n;
      offset += static_cast<std::size_t>(n);
      bytes -= static_cast<std::size_t>(n);
    }
  }

 private:
  std::filesystem::path path_;
  std::shared_ptr<detail::FileDescriptor> fd_;
  std::shared_ptr<std::byte> bytes_;
  std::size_t size_ = 0;
};

[[nodiscard]] ESP_INLINE std::string read_text(const std::filesystem::path& path) {
  const detail::FileDescriptor fd(path, O_RDONLY, "open");
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) detail::throw_errno(path, "open");
  ESP_REQUIRE(!S_ISDIR(info.st_mode), IoError, path.string(), ": is a folder, expected a file");
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
