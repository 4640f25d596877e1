// SPDX-License-Identifier: Apache-2.0
// The files of a Hugging Face checkpoint folder: config.json and either model.safetensors or shards
// that model.safetensors.index.json lists. Opening maps every shard, reads no tensor, and checks
// files against the index. Shards may be symbolic links. hub/checkpoint.hpp interprets the tensors.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/checkpoint_files.hpp is host-only; include it from a .cpp"
#endif

#include <map>

#include <espalier/core/inline.hpp>
#include <espalier/io/json.hpp>
#include <espalier/io/safetensors.hpp>

namespace espalier::io {

inline constexpr const char* kIndexFile = "model.safetensors.index.json";

class CheckpointFiles {
 public:
  struct Shard {
    std::string file;  // its name in the folder
    SafetensorsFile content;
  };

  /// @throws IoError, FormatError naming the file, the tensor and what was expected
  ESP_INLINE explicit CheckpointFiles(std::filesystem::path folder) : folder_(std::move(folder)) {
    ESP_REQUIRE(std::filesystem::is_directory(folder_), IoError, folder_.string(),
                ": is not a folder; expected a checkpoint folder with config.json and "
                "*.safetensors");
    config_json_ = read_json(folder_ / "config.json");
    if (std::filesystem::exists(folder_ / "model.safetensors")) {
      shards_.push_back({"model.safetensors", SafetensorsFile(folder_ / "model.safetensors")});
      for (const TensorInfo& t : shards_[0].content.tensors()) places_[t.name] = {0, &t};
    } else {
      open_shards();
    }
  }
  CheckpointFiles(const CheckpointFiles&) = delete;
  CheckpointFiles& operator=(const CheckpointFiles&) = delete;

  const std::filesystem::path& folder() const { return folder_; }
  /// config.json unchanged, for programs that write an edited copy.
  const Json& config_json() const { return config_json_; }
  /// In the order of their names.
  const std::vector<Shard>& shards() const { return shards_; }
  /// True if there is an index; otherwise there is one model.safetensors.
  bool sharded() const { return shards_.size() != 1 || shards_[0].file != "model.safetensors"; }

  /// Shard by shard, in the order of the bytes.
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const Shard& shard : shards_) {
      for (const TensorInfo& t : shard.content.tensors()) all.push_back(t.name);
    }
    return all;
  }
  /// nullptr if there is no such tensor.
  const TensorInfo* find(std::string_view name) const {
    const auto it = places_.find(name);
    return it == places_.end() ? nullptr : it->second.info;
  }
  const TensorInfo& at(std::string_view name) const { return *place(name).info; }
  /// Shares the mapped memory.
  ESP_INLINE AnyTensor tensor(std::string_view name) const {
    const Place& p = place(name);
    return shards_[p.shard].content.tensor(*p.info);
  }
  const Shard& shard_of(std::string_view name) const { return shards_[place(name).shard]; }

  /// Of all tensors.
  std::size_t total_bytes() const {
    std::size_t bytes = 0;
    for (const auto& [name, p] : places_) bytes += p.info->bytes;
    return bytes;
  }

 private:
  struct Place {
    std::size_t shard = 0;
    const TensorInfo* info = nullptr;
  };

  const Place& place(std::string_view name) const {
    const auto it = places_.find(name);
    ESP_REQUIRE(it != places_.end(), FormatError, folder_.string(), ": no tensor \"", name, "\"");
    return it->second;
  }

  void open_shards() {
    const std::filesystem::path index_path = folder_ / kIndexFile;
    ESP_REQUIRE(std::filesystem::exists(index_path), IoError, folder_.string(),
                ": neither model.safetensors nor ", kIndexFile,
                " is there; expected a Hugging Face checkpoint in safetensors format");
    const Json index = read_json(index_path);
    std::map<std::string, std::vector<const Json::Member*>> by_file;
    for (const Json::Member& m : index.at("weight_map").members()) {
      const std::string& file = m.value.as_string();
      const bool plain = !file.empty() && file.find('/') == std::string::npos &&
                         file.find('\0') == std::string::npos && file != "." && file != "..";
      ESP_REQUIRE(plain, FormatError, m.value.where(), ": \"", file,
                  "\" is not the name of a file in the checkpoint's folder");
      by_file[file].push_back(&m);
    }
    ESP_REQUIRE(!by_file.empty(), FormatError, index_path.string(), ": \"weight_map\" is empty");
    for (const auto& [file, entries] : by_file) {
      ESP_REQUIRE(std::filesystem::exists(folder_ / file), IoError, (folder_ / file).string(),
                  ": is missing; the index names this shard for ", entries.size(),
                  " tensors, download it");
      shards_.push_back({file, SafetensorsFile(folder_ / file)});
    }
    std::size_t shard = 0;
    for (const auto& [file, entries] : by_file) place_tensors(shard++, entries, index_path);
  }

  void place_tensors(std::size_t shard, const std::vector<const Json::Member*>& entries,
                     const std::filesystem::path& index_path) {
    const SafetensorsFile& content = shards_[shard].content;
    for (const Json::Member* m : entries) {
      const TensorInfo* info = content.find(m->key);
      ESP_REQUIRE(info != nullptr, FormatError, content.path().string(), ": tensor \"", m->key,
                  "\" is not in this shard, though ", index_path.filename().string(),
                  " says so; download both again");
      places_[m->key] = {shard, info};
    }
    for (const TensorInfo& t : content.tensors()) {
      const auto it = places_.find(t.name);
      ESP_REQUIRE(it != places_.end() && it->second.info == &t, FormatError,
                  content.path().string(), ": tensor \"", t.name, "\" is in this shard, but ",
                  index_path.filename().string(), " does not say so; download both again");
    }
  }

  std::filesystem::path folder_;
  Json config_json_;
  std::vector<Shard> shards_;
  std::map<std::string, Place, std::less<>> places_;
};

}  // namespace espalier::io
