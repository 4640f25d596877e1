// SPDX-License-Identifier: Apache-2.0
// Folders that appear whole or not at all.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/atomic_folder.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <optional>

#include <espalier/io/file.hpp>
#include <espalier/io/output_lock.hpp>

namespace espalier::io {

/// A folder that is built under a temporary name and renamed when complete. Holds the OutputLock of
/// the target meanwhile.
class AtomicFolder {
 public:
  /// Creates the target's parents as needed.
  /// @throws IoError if the target exists, or another run is writing it
  explicit AtomicFolder(std::filesystem::path target);
  /// A folder within an output whose lock the caller holds: it may replace one of its name.
  struct Within {
    const OutputLock& lock;
  };
  AtomicFolder(std::filesystem::path target, Within);
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  ~AtomicFolder();

  /// Where to write until commit().
  const std::filesystem::path& path() const { return building_; }

  /// Makes the folder durable under its name. One that it replaces is removed after that.
  /// @throws IoError if the target was created meanwhile, and is not to be replaced
  void commit();

 private:
  void build();
  void refuse_existing() const;

  std::filesystem::path target_;
  std::filesystem::path building_;
  std::optional<OutputLock> lock_;
  detail::FileDescriptor held_;
};

/// Creates the folder of an output that is written in place, as needed, and locks it.
/// @throws IoError as OutputLock
[[nodiscard]] OutputLock open_output(const std::filesystem::path& folder);

/// Removes a folder atomically: a process killed meanwhile leaves it under a temporary name.
void remove_folder(const std::filesystem::path& folder);

}  // namespace espalier::io

#ifdef ESP_BODIES
#include <stdio.h>
#include <sys/stat.h>

namespace espalier::io {

ESP_INLINE OutputLock open_output(const std::filesystem::path& folder) {
  create_folders(folder);
  return OutputLock(folder);
}

ESP_INLINE void remove_folder(const std::filesystem::path& folder) {
  const std::filesystem::path doomed = detail::temporary_sibling(folder);
  if (::rename(folder.c_str(), doomed.c_str()) != 0) detail::throw_errno(folder, "remove");
  std::error_code ignored;
  std::filesystem::remove_all(doomed, ignored);
}

namespace detail {
/// renameat2; where the file system does not know `flags`, returns false with EINVAL or ENOSYS.
ESP_INLINE bool rename_with(const std::filesystem::path& from, const std::filesystem::path& to,
                            unsigned flags) {
  return ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) == 0;
}
ESP_INLINE bool flags_unknown() {
  return errno == EINVAL || errno == ENOSYS;
}
}  // namespace detail

ESP_INLINE AtomicFolder::AtomicFolder(std::filesystem::path target) : target_(std::move(target)) {
  if (!target_.has_filename()) target_ = target_.parent_path();  // "out/" names "out"
  ESP_REQUIRE(!target_.empty(), IoError, "an output folder needs a name");
  refuse_existing();
  if (target_.has_parent_path()) create_folders(target_.parent_path());
  lock_.emplace(target_);
  refuse_existing();  // a run that has just ended may have made it
  build();
}

ESP_INLINE AtomicFolder::AtomicFolder(std::filesystem::path target, Within)
    : target_(std::move(target)) {
  build();
}

ESP_INLINE void AtomicFolder::build() {
  building_ = detail::temporary_sibling(target_);
  if (::mkdir(building_.c_str(), 0777) != 0) {
    building_.clear();
    detail::throw_errno(target_, "create");
  }
  held_ = detail::FileDescriptor(building_, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, "open");
  detail::hold(held_.get());
}

ESP_INLINE AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!building_.empty()) std::filesystem::remove_all(building_, ignored);
}

ESP_INLINE void AtomicFolder::commit() {
  detail::sync_folder(building_);
  std::error_code ignored;
  const bool replaces =
      !lock_ && std::filesystem::exists(std::filesystem::symlink_status(target_, ignored));
  bool done =
      detail::rename_with(building_, target_, replaces ? RENAME_EXCHANGE : RENAME_NOREPLACE);
  if (!done && detail::flags_unknown()) {  // not atomic, and yet nothing is lost
    if (replaces) {
      remove_folder(target_);
    } else {
      refuse_existing();
    }
    done = ::rename(building_.c_str(), target_.c_str()) == 0;
  }
  if (!done && errno == EEXIST) refuse_existing();
  if (!done) detail::throw_errno(target_, "create");
  detail::sync_folder(target_.parent_path());
  if (replaces) std::filesystem::remove_all(building_, ignored);  // the old one
  building_.clear();
}

ESP_INLINE void AtomicFolder::refuse_existing() const {
  std::error_code ignored;
  ESP_REQUIRE(!std::filesystem::exists(std::filesystem::symlink_status(target_, ignored)), IoError,
              target_.string(), ": exists already; remove it or choose another output folder");
}

}  // namespace espalier::io
#endif
