// SPDX-License-Identifier: Apache-2.0
// Writes a checkpoint's shards and index, one tensor at a time. Meant for a folder that
// AtomicFolder builds.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/checkpoint_writer.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <optional>

#include <espalier/core/inline.hpp>
#include <espalier/io/json_dump.hpp>
#include <espalier/io/safetensors_writer.hpp>
#include <espalier/io/shard_spec.hpp>
#include <espalier/tensor/finite.hpp>

namespace espalier::io {

class CheckpointWriter {
 public:
  /// An index is written unless the only shard is model.safetensors.
  /// @throws IoError if the disk has less space than the shards and `more_bytes` take
  ESP_INLINE CheckpointWriter(std::filesystem::path folder, std::vector<ShardSpec> shards,
                              std::uintmax_t more_bytes = 0)
      : folder_(std::move(folder)), shards_(std::move(shards)) {
    for (ShardSpec& shard : shards_) {
      sort_for_alignment(shard.tensors);
      for (const TensorSpec& t : shard.tensors) total_bytes_ += t.bytes;
    }
    refuse_full_disk(more_bytes);
  }
  ESP_INLINE CheckpointWriter(std::filesystem::path folder, const std::vector<TensorSpec>& tensors,
                              std::size_t max_shard_bytes, std::uintmax_t more_bytes = 0)
      : CheckpointWriter(std::move(folder), split_into_shards(tensors, max_shard_bytes),
                         more_bytes) {}

  /// The order in which tensors must be written, shard by shard.
  const std::vector<ShardSpec>& shards() const { return shards_; }
  std::size_t total_bytes() const { return total_bytes_; }

  /// As SafetensorsWriter::write; closes a shard when it is complete.
  ESP_INLINE void append(std::string_view name, const void* data, std::size_t bytes) {
    writer_for(name).append(name, data, bytes);
  }
  /// @throws Error for values that are not finite: they show only where somebody computes with them
  ESP_INLINE void write(std::string_view name, const AnyTensor& t) {
    require_finite(folder_.string(), name, t);
    writer_for(name).write(name, t);
  }

  ESP_INLINE void commit() {
    while (next_ < shards_.size()) open_next();
    if (writer_) writer_->commit();
    writer_.reset();
    if (shards_.size() == 1 && shards_[0].file == "model.safetensors") return;
    std::vector<std::pair<std::string_view, std::string_view>> places;
    for (const ShardSpec& shard : shards_) {
      for (const TensorSpec& t : shard.tensors) places.emplace_back(t.name, shard.file);
    }
    std::sort(places.begin(), places.end());
    Json index = Json::object();
    index["metadata"]["total_size"] = total_bytes_;
    index["weight_map"] = Json::object();
    for (const auto& [name, file] : places) index["weight_map"][name] = file;
    write_text(folder_ / "model.safetensors.index.json", dump(index, 2) + "\n");
  }

 private:
  void refuse_full_disk(std::uintmax_t more_bytes) const {
    std::error_code error;
    const auto space = std::filesystem::space(folder_, error);
    const std::uintmax_t bytes = total_bytes_ + more_bytes;
    ESP_REQUIRE(error || space.available >= bytes, IoError, folder_.string(), ": needs ", bytes,
                " bytes, ", space.available,
                " are free on this disk; free some space or choose another folder");
  }
  void open_next() {
    if (writer_) writer_->commit();
    writer_.reset();
    writer_.emplace(folder_ / shards_[next_].file, shards_[next_].tensors);
    ++next_;
  }
  bool in_current(std::string_view name) const {
    const auto& tensors = writer_->specs();
    return std::any_of(tensors.begin(), tensors.end(),
                       [&](const TensorSpec& t) { return t.name == name; });
  }
  SafetensorsWriter& writer_for(std::string_view name) {
    while (next_ < shards_.size() && (!writer_ || !in_current(name))) open_next();
    return *writer_;
  }

  std::filesystem::path folder_;
  std::vector<ShardSpec> shards_;
  std::optional<SafetensorsWriter> writer_;
  std::size_t next_ = 0;
  std::size_t total_bytes_ = 0;
};

}  // namespace espalier::io
