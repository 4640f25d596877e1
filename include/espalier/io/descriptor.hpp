// SPDX-License-Identifier: Apache-2.0
// File descriptors that close themselves, and the system's errors as sentences.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/descriptor.hpp is host-only; include it from a .cpp"
#endif

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>

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
  explicit FileDescriptor(int open_one) : fd_(open_one) {}
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

/// A pipe that this process inherited has a path too: a shell's <(command), and /dev/stdin.
inline bool is_own_pipe(const std::filesystem::path& path) {
  const std::string text = path.string();
  return text == "/dev/stdin" || text.starts_with("/dev/fd/") || text.starts_with("/proc/self/fd/");
}

/// Opens a regular file, or where `pipes` a pipe as well. Never waits: a named pipe in the place of
/// a file would keep the process for ever. `info` gets its size.
inline FileDescriptor open_to_read(const std::filesystem::path& path, struct stat& info,
                                   bool pipes = false) {
  const auto require_file = [&] {
    const auto mode = info.st_mode;
    if (S_ISREG(mode) || (pipes && S_ISFIFO(mode))) return;
    const char* what = S_ISDIR(mode)    ? "a folder"
                       : S_ISFIFO(mode) ? "a named pipe"
                       : S_ISSOCK(mode) ? "a socket"
                                        : "a device";
    throw IoError(espalier::detail::concat({path.string(), ": is ", what, ", expected a file"}));
  };
  if (::stat(path.c_str(), &info) != 0) throw_errno(path, "open");
  require_file();
  FileDescriptor fd(path, O_RDONLY | (pipes ? 0 : O_NONBLOCK), "open");
  if (::fstat(fd.get(), &info) != 0) throw_errno(path, "open");
  require_file();  // another one may have taken its place
  return fd;
}

/// Makes what was written to a file durable. Some file systems cannot; that is no failure.
inline bool sync(int fd) {
  return ::fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP;
}

/// Makes a rename in `folder` durable. Some file systems refuse; that is ignored.
inline void sync_folder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace detail

}  // namespace espalier::io
