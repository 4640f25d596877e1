// SPDX-License-Identifier: Apache-2.0
// The exclusive right to write an output, for as long as a run writes it.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/output_lock.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <vector>

#include <espalier/io/temporary.hpp>

namespace espalier::io {

/// Locks (flock) the file OUTPUT/.lock, or OUTPUT.lock beside an output that is not there yet. The
/// file says who holds it: host, boot, process and its start. The system frees the lock of a killed
/// process, and the next run takes the file over. Threads and processes of one machine and its
/// containers exclude each other, and machines that share a file system with locks.
class OutputLock {
 public:
  /// Also removes what provably dead runs left (find_leftovers).
  /// @throws IoError if another run holds the lock, naming it, or if the file system has no locks
  explicit OutputLock(const std::filesystem::path& output);
  OutputLock(OutputLock&& other) noexcept;
  OutputLock& operator=(OutputLock&& other) noexcept;
  /// Removes the file.
  ~OutputLock();

 private:
  std::filesystem::path path_;
  detail::FileDescriptor file_;
};

/// Removes what runs that died left at `output`: what is provably theirs and, if `undecided_too`,
/// what may be that of another machine. Returns what was there before.
/// @throws IoError if another run writes the output
Leftovers remove_leftovers(const std::filesystem::path& output, bool undecided_too);

/// @throws UsageError if one of the two folders lies within the other, or both are one
void require_apart(const std::filesystem::path& output, const std::filesystem::path& input);

}  // namespace espalier::io

#ifdef ESP_BODIES
#include <sys/file.h>
#include <sys/stat.h>

#include <chrono>
#include <ctime>
#include <fstream>
#include <sstream>

namespace espalier::io {

namespace detail {

/// Field 22 of /proc/self/stat, in clock ticks since boot. The name in field 2 may have spaces.
ESP_INLINE std::string process_start() {
  std::string text, field;
  std::getline(std::ifstream("/proc/self/stat"), text);
  std::istringstream rest(text.substr(std::min(text.size(), text.rfind(')') + 1)));
  for (int i = 3; i <= 22; ++i) rest >> field;
  return field;
}

ESP_INLINE std::string owner_text() {
  char host[256] = "unknown";
  (void)!::gethostname(host, sizeof host - 1);
  const std::time_t now = std::time(nullptr);
  std::tm utc = {};
  ::gmtime_r(&now, &utc);
  char date[32];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return espalier::detail::concat({"process ", static_cast<std::int64_t>(::getpid()), " on ", host,
                                   " since ", date, "\nboot ", boot_id(), "\nstarted at tick ",
                                   process_start(), "\n"});
}

/// "process 12 on host since 2026-11-30T12:00:00Z", or nothing
ESP_INLINE std::string owner_line(const std::filesystem::path& lock) {
  std::string line;
  for (int i = 0; i < 20 && line.empty(); ++i) {  // it may be just about to write
    if (i > 0) ::usleep(5000);
    std::getline(std::ifstream(lock), line);
  }
  return line.starts_with("process ") ? " (" + line.substr(0, 400) + ")" : std::string();
}

ESP_INLINE std::filesystem::path lock_path(std::filesystem::path output) {
  if (!output.has_filename()) output = output.parent_path();  // "out/" names "out"
  std::error_code ignored;
  if (std::filesystem::is_directory(output, ignored)) return output / ".lock";
  output += ".lock";
  return output;
}

ESP_INLINE void refuse_lock(const std::filesystem::path& output, const std::filesystem::path& lock,
                            int code) {
  ESP_REQUIRE(code != EWOULDBLOCK, IoError, output.string(), ": another run is writing it",
              owner_line(lock), "; wait for it or choose another output");
  ESP_REQUIRE(code != ENOSYS && code != EOPNOTSUPP && code != ENOLCK, IoError, lock.string(),
              ": cannot lock: ", std::strerror(code),
              "; this file system has no file locks, choose an output on another one");
  throw_errno(lock, "lock", code);
}

/// Is the open file still the one of that name? A run that ends removes its lock.
ESP_INLINE bool is_same_file(int fd, const std::filesystem::path& path) {
  struct stat open {
  }, named{};
  return ::fstat(fd, &open) == 0 && ::lstat(path.c_str(), &named) == 0 &&
         open.st_ino == named.st_ino && open.st_dev == named.st_dev;
}

ESP_INLINE void remove_all(const std::vector<std::filesystem::path>& paths) {
  std::error_code ignored;
  for (const std::filesystem::path& path : paths) std::filesystem::remove_all(path, ignored);
}

/// The lock that a killed run left beside an output that is a folder by now.
ESP_INLINE void remove_stale_lock(std::filesystem::path output) {
  if (!output.has_filename()) output = output.parent_path();
  output += ".lock";
  std::string line;
  std::getline(std::ifstream(output), line);
  if (line.starts_with("process ") && is_unlocked(output)) ::unlink(output.c_str());
}

}  // namespace detail

ESP_INLINE OutputLock::OutputLock(const std::filesystem::path& output)
    : path_(detail::lock_path(output)) {
  do {
    const int fd =
        ::open(path_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (fd < 0) detail::throw_errno(path_, "create");
    file_ = detail::FileDescriptor(fd);
    int locked = 0;
    do {
      locked = ::flock(fd, LOCK_EX | LOCK_NB);
    } while (locked != 0 && errno == EINTR);
    if (locked != 0) detail::refuse_lock(output, path_, errno);
  } while (!detail::is_same_file(file_.get(), path_));
  const std::string text = detail::owner_text();
  // For people only: a full disk does not keep a run from holding the lock.
  if (::ftruncate(file_.get(), 0) == 0) (void)!::write(file_.get(), text.data(), text.size());
  detail::remove_all(find_leftovers(output).dead);
}

ESP_INLINE OutputLock::OutputLock(OutputLock&& other) noexcept
    : path_(std::exchange(other.path_, {})), file_(std::move(other.file_)) {}

ESP_INLINE OutputLock& OutputLock::operator=(OutputLock&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  return *this;
}

ESP_INLINE OutputLock::~OutputLock() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

ESP_INLINE Leftovers remove_leftovers(const std::filesystem::path& output, bool undecided_too) {
  Leftovers found = find_leftovers(output);
  if (detail::lock_path(output).filename() == ".lock") detail::remove_stale_lock(output);
  if (found.empty()) return found;
  const OutputLock lock(output);
  if (undecided_too) detail::remove_all(found.undecided);
  return found;
}

ESP_INLINE void require_apart(const std::filesystem::path& output,
                              const std::filesystem::path& input) {
  std::error_code error;
  const auto whole = [&](const std::filesystem::path& path) {
    std::filesystem::path p = std::filesystem::weakly_canonical(path, error);
    if (error) p = std::filesystem::absolute(path, error).lexically_normal();
    return p.has_filename() ? p : p.parent_path();
  };
  const std::filesystem::path out = whole(output), in = whole(input);
  const auto is_within = [](const std::filesystem::path& inner,
                            const std::filesystem::path& outer) {
    return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first ==
           outer.end();
  };
  const char* where = out == in            ? " is the input folder itself"
                      : is_within(out, in) ? " lies within the input folder "
                      : is_within(in, out) ? " contains the input folder "
                                           : nullptr;
  ESP_REQUIRE(where == nullptr, UsageError, "the output ", output.string(), where ? where : "",
              out == in ? std::string() : input.string(), "; choose another output folder");
}

}  // namespace espalier::io
#endif
