// SPDX-License-Identifier: Apache-2.0
// Names of unfinished files and folders, and what became of those that a dead process left. A name
// is that of the target, ".tmp-", 8 digits that identify the boot of the machine, and 10 random
// letters. The process holds a lock (flock) on what has such a name. Where a name of this boot
// carries no lock its process is dead, whatever containers and process ids say; anything else may
// belong to a live process on another machine.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/temporary.hpp is host-only; include it from a .cpp"
#endif

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/io/descriptor.hpp>

namespace espalier::io {

/// What dead processes left beside and in an output.
struct Leftovers {
  std::vector<std::filesystem::path> dead;       // provably of a dead process
  std::vector<std::filesystem::path> undecided;  // of another machine, boot or version
  bool empty() const { return dead.empty() && undecided.empty(); }
};

/// Looks beside `output` for what is named after it, and two levels deep in it. Removes nothing.
[[nodiscard]] Leftovers find_leftovers(const std::filesystem::path& output);

/// Bytes of a file, or of all regular files in a folder.
[[nodiscard]] std::uintmax_t size_on_disk(const std::filesystem::path& path);

namespace detail {

/// A new name beside `path`. @throws IoError if the system has no random numbers
[[nodiscard]] std::filesystem::path temporary_sibling(const std::filesystem::path& path);

/// Takes the lock that shows that this process lives. Some file systems have none; then others
/// cannot decide, and leave the file alone.
void hold(int fd);

/// A new file under a temporary name beside `path`, which nobody else has open.
struct TemporaryFile {
  explicit TemporaryFile(const std::filesystem::path& path);
  std::filesystem::path path;
  FileDescriptor fd;
};

}  // namespace detail

}  // namespace espalier::io

#ifdef ESP_BODIES
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <fstream>

namespace espalier::io {

namespace detail {

inline constexpr std::string_view kTemporaryMark = ".tmp-";
inline constexpr std::size_t kBootDigits = 8, kRandomLetters = 10;

ESP_INLINE std::string boot_id() {
  std::string id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
  return id;
}

/// Empty where the system does not tell.
ESP_INLINE std::string boot_digits() {
  return boot_id().substr(0, kBootDigits);
}

/// What the temporary names of `path` begin with. File names have at most 255 bytes.
ESP_INLINE std::string temporary_prefix(const std::filesystem::path& path) {
  constexpr std::size_t kLongest = 255 - 5 - kBootDigits - 1 - kRandomLetters;
  return path.filename().string().substr(0, kLongest).append(kTemporaryMark);
}

ESP_INLINE std::filesystem::path temporary_sibling(const std::filesystem::path& path) {
  std::array<unsigned char, kRandomLetters> random = {};
  if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
    throw_errno(path, "name a temporary file for");
  }
  std::string name = temporary_prefix(path) + boot_digits() + "-";
  for (const unsigned char r : random) name += "abcdefghijklmnopqrstuvwxyz234567"[r & 31u];
  return path.parent_path() / name;
}

ESP_INLINE void hold(int fd) {
  (void)!::flock(fd, LOCK_EX | LOCK_NB);
}

ESP_INLINE TemporaryFile::TemporaryFile(const std::filesystem::path& target)
    : path(temporary_sibling(target)) {
  const int raw = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (raw < 0) throw_errno(target, "create");
  fd = FileDescriptor(raw);
  hold(raw);
}

/// Does nobody hold the lock of this file or folder? False also where that is not known.
ESP_INLINE bool is_unlocked(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return false;
  const bool free = ::flock(fd, LOCK_EX | LOCK_NB) == 0;
  ::close(fd);
  return free;
}

ESP_INLINE bool consists_of(std::string_view text, std::string_view letters) {
  return !text.empty() && text.find_first_not_of(letters) == std::string_view::npos;
}

enum class Owner { none, dead, alive, undecided };

/// Whose is a file that is named `name`? `none`: the name is not a temporary one.
ESP_INLINE Owner owner_of(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  const std::size_t at = name.rfind(kTemporaryMark);
  if (at == std::string::npos) return Owner::none;
  const std::string_view tail = std::string_view(name).substr(at + kTemporaryMark.size());
  if (consists_of(tail, "0123456789")) return Owner::undecided;  // of an older version
  if (tail.size() != kBootDigits + 1 + kRandomLetters || tail[kBootDigits] != '-' ||
      !consists_of(tail.substr(0, kBootDigits), "0123456789abcdef") ||
      !consists_of(tail.substr(kBootDigits + 1), "abcdefghijklmnopqrstuvwxyz234567")) {
    return Owner::none;
  }
  if (tail.substr(0, kBootDigits) != boot_digits()) return Owner::undecided;
  return is_unlocked(path) ? Owner::dead : Owner::alive;
}

ESP_INLINE void add_leftover(const std::filesystem::path& path, Leftovers& to) {
  const Owner owner = owner_of(path);
  if (owner == Owner::dead) to.dead.push_back(path);
  if (owner == Owner::undecided) to.undecided.push_back(path);
}

ESP_INLINE void add_leftovers_in(const std::filesystem::path& folder, int depth, Leftovers& to) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    add_leftover(it->path(), to);
    std::error_code ignored;
    if (depth > 0 && it->symlink_status(ignored).type() == std::filesystem::file_type::directory &&
        owner_of(it->path()) == Owner::none) {
      add_leftovers_in(it->path(), depth - 1, to);
    }
  }
}

}  // namespace detail

ESP_INLINE Leftovers find_leftovers(const std::filesystem::path& output) {
  namespace fs = std::filesystem;
  const fs::path target = output.has_filename() ? output : output.parent_path();
  const fs::path parent = target.parent_path();
  const std::string prefix = detail::temporary_prefix(target);
  Leftovers found;
  std::error_code error;
  for (fs::directory_iterator it(parent.empty() ? "." : parent, error), end; !error && it != end;
       it.increment(error)) {
    const fs::path name = it->path().filename();
    if (name.string().starts_with(prefix)) detail::add_leftover(parent / name, found);
  }
  if (fs::symlink_status(target, error).type() == fs::file_type::directory) {
    detail::add_leftovers_in(target, 2, found);
  }
  std::sort(found.dead.begin(), found.dead.end());
  std::sort(found.undecided.begin(), found.undecided.end());
  return found;
}

ESP_INLINE std::uintmax_t size_on_disk(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_regular_file(std::filesystem::symlink_status(path, error))) {
    const std::uintmax_t bytes = std::filesystem::file_size(path, error);
    return error ? 0 : bytes;
  }
  std::uintmax_t bytes = 0;
  for (std::filesystem::recursive_directory_iterator it(path, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored) && !it->is_symlink(ignored)) bytes += it->file_size(ignored);
  }
  return bytes;
}

}  // namespace espalier::io
#endif
