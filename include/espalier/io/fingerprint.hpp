// SPDX-License-Identifier: Apache-2.0
// Hashes that identify content: of texts, numbers and token ids (Fingerprint), and of whole files
// (fingerprint_of_file), which identifies a checkpoint.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/fingerprint.hpp is host-only; include it from a .cpp"
#endif

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include <espalier/core/inline.hpp>

namespace espalier::io {

/// FNV-1a of 64 bits; texts and lists are added with their lengths.
class Fingerprint {
 public:
  Fingerprint& add_bytes(const void* data, std::size_t bytes) {
    const auto* p = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < bytes; ++i) hash_ = (hash_ ^ p[i]) * 0x100000001b3u;
    return *this;
  }
  Fingerprint& add(std::uint64_t number) {
    std::array<unsigned char, 8> bytes;
    for (int i = 0; i < 8; ++i) bytes[i] = static_cast<unsigned char>(number >> (8 * i));
    return add_bytes(bytes.data(), bytes.size());
  }
  Fingerprint& add(std::string_view text) {
    return add(text.size()).add_bytes(text.data(), text.size());
  }
  Fingerprint& add(std::span<const std::int32_t> ids) {
    add(ids.size());
    for (const std::int32_t id : ids) add(static_cast<std::uint64_t>(id));
    return *this;
  }
  /// 16 hexadecimal digits.
  std::string text() const {
    static constexpr char kHex[] = "0123456789abcdef";
    std::string out;
    for (int shift = 60; shift >= 0; shift -= 4) out += kHex[(hash_ >> shift) & 15u];
    return out;
  }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325u;
};

/// Hashes every byte of the file: 32 hexadecimal digits of XXH3 (128 bits) over the XXH3 of its 16
/// MiB pieces, which are read and hashed in parallel. For files above 64 MiB the result is cached
/// in $XDG_CACHE_HOME/espalier (or ~/.cache/espalier), keyed by size, inode and times; without such
/// a folder it is computed each time.
/// @throws IoError
[[nodiscard]] std::string fingerprint_of_file(const std::filesystem::path& path);

}  // namespace espalier::io

#ifdef ESP_BODIES
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <vector>

#include <espalier/core/threads.hpp>
#include <espalier/io/atomic_folder.hpp>
#include <espalier/io/file.hpp>
#include <espalier/io/mapped_file.hpp>

namespace espalier::io {

namespace detail {

/// The cache of fingerprints of large files, one small text file each.
class FingerprintCache {
 public:
  explicit FingerprintCache(const std::filesystem::path& path) {
    struct stat info {};
    std::error_code error;
    const std::filesystem::path whole = std::filesystem::canonical(path, error);
    if (error || ::stat(whole.c_str(), &info) != 0 || info.st_size < kSmallest) return;
    state_ = espalier::detail::concat(
        {whole.string(), "\nsize ", info.st_size, " inode ", info.st_ino, " device ", info.st_dev,
         "\nmodified ", nanoseconds(info.st_mtim), " changed ", nanoseconds(info.st_ctim), "\n"});
    changed_ = nanoseconds(info.st_ctim);
    const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
    std::filesystem::path folder;
    if (cache != nullptr && *cache == '/') folder = cache;
    if (folder.empty() && home != nullptr && *home == '/')
      folder = std::filesystem::path(home) / ".cache";
    if (folder.empty()) return;
    file_ = folder / "espalier" / (Fingerprint().add(whole.string()).text() + ".fingerprint");
  }

  std::optional<std::string> find() const {
    std::error_code error;
    if (file_.empty() || !std::filesystem::exists(file_, error)) return std::nullopt;
    try {
      const std::string text = read_text(file_);
      if (text.size() != state_.size() + kDigits + 1 || !text.starts_with(state_)) {
        return std::nullopt;
      }
      return text.substr(state_.size(), kDigits);
    } catch (const IoError&) {
      return std::nullopt;
    }
  }

  /// A file written just now may change again within the resolution of its times: not cached.
  void keep(const std::string& fingerprint) const {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const std::int64_t age =
        std::chrono::duration_cast<std::chrono::nanoseconds>(now).count() - changed_;
    if (file_.empty() || age < kSettled) return;
    try {
      create_folders(file_.parent_path());
      write_text(file_, state_ + fingerprint + "\n");
    } catch (const IoError&) {  // then it is computed again
    }
  }

 private:
  static constexpr std::int64_t kSmallest = std::int64_t{64} << 20;
  static constexpr std::int64_t kSettled = 3'000'000'000;  // nanoseconds
  static constexpr std::size_t kDigits = 32;

  static std::int64_t nanoseconds(const timespec& t) {
    return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
  }

  std::filesystem::path file_;
  std::string state_;
  std::int64_t changed_ = 0;
};

inline std::string hash_file(const std::filesystem::path& path) {
  constexpr std::size_t kPiece = std::size_t{16} << 20;
  const MappedFile file(path);
  const std::size_t pieces = (file.size() + kPiece - 1) / kPiece;
  std::vector<XXH128_canonical_t> hashes(pieces + 1);
  XXH128_canonicalFromHash(&hashes[pieces], XXH3_128bits(&pieces, sizeof pieces));
  parallel_for(static_cast<std::int64_t>(pieces), 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<char> buffer;
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      const std::size_t bytes = std::min(kPiece, file.size() - i * kPiece);
      buffer.resize(bytes);
      file.read(i * kPiece, buffer.data(), bytes);
      XXH128_canonicalFromHash(&hashes[i], XXH3_128bits(buffer.data(), bytes));
    }
  });
  XXH128_canonical_t all;
  XXH128_canonicalFromHash(&all, XXH3_128bits(hashes.data(), hashes.size() * sizeof all));
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (const unsigned char byte : all.digest) {
    text += kHex[byte >> 4];
    text += kHex[byte & 15u];
  }
  return text;
}

}  // namespace detail

ESP_INLINE std::string fingerprint_of_file(const std::filesystem::path& path) {
  const detail::FingerprintCache cache(path);
  if (const auto known = cache.find()) return *known;
  std::string text = detail::hash_file(path);
  cache.keep(text);
  return text;
}

}  // namespace espalier::io
#endif
