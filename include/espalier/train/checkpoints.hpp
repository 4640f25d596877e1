// SPDX-License-Identifier: Apache-2.0
// The folders OUTPUT/checkpoint-N of a run. Each appears complete or not at all; the newest K are
// kept.
#pragma once

#ifdef __CUDACC__
#error "espalier/train/checkpoints.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include <espalier/io/atomic_folder.hpp>

namespace espalier::train {

class Checkpoints {
 public:
  struct Entry {
    std::int64_t step;
    std::filesystem::path path;
  };

  /// `keep` <= 0 keeps all.
  Checkpoints(std::filesystem::path output, int keep) : output_(std::move(output)), keep_(keep) {}

  /// Ascending by step.
  std::vector<Entry> list() const {
    std::vector<Entry> found;
    for (const auto& item : children()) {
      const auto step = number(item.path().filename().string(), "checkpoint-");
      if (step && item.is_directory()) found.push_back({*step, item.path()});
    }
    std::sort(found.begin(), found.end(),
              [](const Entry& a, const Entry& b) { return a.step < b.step; });
    return found;
  }
  std::optional<Entry> newest() const {
    const std::vector<Entry> all = list();
    if (all.empty()) return std::nullopt;
    return all.back();
  }

  /// `write(folder)` fills the new checkpoint. Older ones, and one of the same step, are removed
  /// only after it is durable.
  template <class Write>
  std::filesystem::path save(std::int64_t step, const io::OutputLock& lock, Write&& write) const {
    const std::filesystem::path target = output_ / ("checkpoint-" + std::to_string(step));
    io::AtomicFolder folder(target, io::AtomicFolder::Within{lock});
    write(folder.path());
    folder.commit();
    remove_old();
    return target;
  }

  /// All but the newest; a run that was killed in save() may have left one more.
  void remove_old() const {
    const std::vector<Entry> all = list();
    for (std::size_t i = 0; keep_ > 0 && i + static_cast<std::size_t>(keep_) < all.size(); ++i) {
      io::remove_folder(all[i].path);
    }
  }

 private:
  std::vector<std::filesystem::directory_entry> children() const {
    std::error_code none;  // a missing output folder has no checkpoints
    return {std::filesystem::directory_iterator(output_, none),
            std::filesystem::directory_iterator()};
  }

  static std::optional<std::int64_t> number(const std::string& name, std::string_view prefix) {
    if (name.compare(0, prefix.size(), prefix) != 0) return std::nullopt;
    std::int64_t value = 0;
    const char *first = name.data() + prefix.size(), *last = name.data() + name.size();
    const auto result = std::from_chars(first, last, value);
    if (first == last || result.ec != std::errc() || result.ptr != last || value < 0) {
      return std::nullopt;
    }
    return value;
  }

  std::filesystem::path output_;
  int keep_;
};

}  // namespace espalier::train
