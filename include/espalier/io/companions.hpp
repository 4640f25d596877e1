// SPDX-License-Identifier: Apache-2.0
// The files of a checkpoint or adapter folder that are not weights: tokenizer, templates, licence.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/companions.hpp is host-only; include it from a .cpp"
#endif

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <espalier/core/inline.hpp>

namespace espalier::io {

/// True if this file of a checkpoint folder holds weights, in any format, or their index.
[[nodiscard]] bool is_weight_file(const std::filesystem::path& file);

/// Paths, relative to `folder`, of all regular files in it and its subfolders but weights, `.git`,
/// `.cache`, what is unfinished, and those at the top that are in `skip`. Sorted.
/// A link counts as its file if that lies in the folder, or in `blobs` of the hub's cache where the
/// folder is one of its snapshots.
/// @throws IoError for a link to anything else: it could carry a secret into a folder that is
/// published; IoError also for a folder that cannot be read
[[nodiscard]] std::vector<std::filesystem::path> companions(const std::filesystem::path& folder,
                                                            const std::vector<std::string>& skip);

/// Bytes that copy_companions would write.
[[nodiscard]] std::uintmax_t companion_bytes(const std::filesystem::path& folder,
                                             const std::vector<std::string>& skip);

/// Copies them, with their content but not their modes. The copies are durable.
void copy_companions(const std::filesystem::path& from, const std::filesystem::path& to,
                     const std::vector<std::string>& skip);

}  // namespace espalier::io

#ifdef ESP_BODIES
#include <algorithm>

#include <espalier/io/atomic_folder.hpp>
#include <espalier/io/file.hpp>

namespace espalier::io {

ESP_INLINE bool is_weight_file(const std::filesystem::path& file) {
  const std::string name = file.filename().string(), extension = file.extension().string();
  for (const char* weights : {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack",
                              ".onnx", ".onnx_data", ".npz", ".ckpt"}) {
    if (extension == weights) return true;
  }
  return name.ends_with(".safetensors.index.json") || name.ends_with(".bin.index.json");
}

namespace detail {

/// What the files of a folder may lie in: itself, and the files that a snapshot of the hub's cache
/// links to.
ESP_INLINE std::vector<std::filesystem::path> homes_of(const std::filesystem::path& folder) {
  std::error_code error;
  const std::filesystem::path whole = std::filesystem::canonical(folder, error);
  if (error) throw_errno(folder, "read", error.value());
  std::vector<std::filesystem::path> homes = {whole};
  if (whole.parent_path().filename() == "snapshots") {
    homes.push_back(whole.parent_path().parent_path() / "blobs");
  }
  return homes;
}

ESP_INLINE void require_file_within(const std::filesystem::path& link,
                                    const std::vector<std::filesystem::path>& homes) {
  std::error_code error;
  const std::filesystem::path file = std::filesystem::canonical(link, error);
  ESP_REQUIRE(!error, IoError, link.string(),
              ": is a link that cannot be followed: ", error.message(),
              "; remove it or put the file there");
  ESP_REQUIRE(std::filesystem::is_regular_file(file), IoError, link.string(), ": is a link to ",
              file.string(), ", which is no file; remove it or put the folder itself there");
  const bool within = std::any_of(homes.begin(), homes.end(), [&](const auto& home) {
    return std::mismatch(home.begin(), home.end(), file.begin(), file.end()).first == home.end();
  });
  ESP_REQUIRE(within, IoError, link.string(), ": is a link to ", file.string(),
              ", outside of the folder that is copied; remove it or put the file there");
}

class CompanionWalk {
 public:
  CompanionWalk(const std::filesystem::path& folder, const std::vector<std::string>& skip)
      : folder_(folder), skip_(skip), homes_(homes_of(folder)) {
    walk("");
    std::sort(found_.begin(), found_.end());
  }
  std::vector<std::filesystem::path> take() { return std::move(found_); }

 private:
  void walk(const std::filesystem::path& below) {
    namespace fs = std::filesystem;
    std::error_code error;
    for (fs::directory_iterator it(folder_ / below, error), end; !error && it != end;
         it.increment(error)) {
      const std::string name = it->path().filename().string();
      if (below.empty() && is_left_out(name)) continue;
      if (owner_of(name) != Owner::none || name == ".lock" || is_weight_file(name)) continue;
      const fs::file_type type = it->symlink_status().type();
      if (type == fs::file_type::directory) {
        walk(below / name);
      } else if (type == fs::file_type::symlink) {
        require_file_within(it->path(), homes_);
        found_.push_back(below / name);
      } else if (type == fs::file_type::regular) {
        found_.push_back(below / name);
      }
    }
    if (error) throw_errno(folder_ / below, "read", error.value());
  }
  bool is_left_out(const std::string& name) const {
    return name == ".git" || name == ".cache" ||
           std::find(skip_.begin(), skip_.end(), name) != skip_.end();
  }

  const std::filesystem::path& folder_;
  const std::vector<std::string>& skip_;
  std::vector<std::filesystem::path> homes_, found_;
};

ESP_INLINE void copy_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  struct stat info {};
  const FileDescriptor in = open_to_read(from, info);
  AtomicFile out(to);
  std::vector<char> piece(std::size_t{1} << 20);
  for (ssize_t n = 1; n != 0;) {
    n = ::read(in.get(), piece.data(), piece.size());
    if (n < 0 && errno != EINTR) throw_errno(from, "read");
    if (n > 0) out.write(piece.data(), static_cast<std::size_t>(n));
  }
  out.commit();
}

}  // namespace detail

ESP_INLINE std::vector<std::filesystem::path> companions(const std::filesystem::path& folder,
                                                         const std::vector<std::string>& skip) {
  return detail::CompanionWalk(folder, skip).take();
}

ESP_INLINE std::uintmax_t companion_bytes(const std::filesystem::path& folder,
                                          const std::vector<std::string>& skip) {
  std::uintmax_t bytes = 0;
  for (const auto& file : companions(folder, skip)) {
    std::error_code error;
    const std::uintmax_t size = std::filesystem::file_size(folder / file, error);
    bytes += error ? 0 : size;
  }
  return bytes;
}

ESP_INLINE void copy_companions(const std::filesystem::path& from, const std::filesystem::path& to,
                                const std::vector<std::string>& skip) {
  for (const std::filesystem::path& file : companions(from, skip)) {
    if (file.has_parent_path()) create_folders(to / file.parent_path());
    detail::copy_file(from / file, to / file);
  }
}

}  // namespace espalier::io
#endif
