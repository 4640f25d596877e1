// SPDX-License-Identifier: Apache-2.0
// Writes safetensors files one tensor at a time. All tensors are declared first, because the header
// with their offsets comes first. The file appears under its name on commit().
#pragma once

#ifdef __CUDACC__
#error "espalier/io/safetensors_writer.hpp is host-only; include it from a .cpp"
#endif

#include <set>
#include <unordered_map>

#include <espalier/core/inline.hpp>
#include <espalier/io/file.hpp>
#include <espalier/io/json_dump.hpp>
#include <espalier/io/tensor_spec.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier::io {

using Metadata = std::vector<std::pair<std::string, std::string>>;

class SafetensorsWriter {
 public:
  /// Orders tensors by decreasing element size, so that every one is aligned, and otherwise as
  /// declared. `specs()` gives the order.
  ESP_INLINE SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                               const Metadata& metadata = {{"format", "pt"}})
      : file_(path), tensors_(std::move(tensors)) {
    sort_for_alignment(tensors_);
    std::set<std::string_view> names = {"__metadata__"};
    std::string header = "{";
    const auto add = [&](const std::string& name, const Json& entry) {
      header += (header.size() > 1 ? "," : "") + dump(Json(name)) + ":" + dump(entry);
    };
    if (!metadata.empty()) {
      Json words = Json::object();
      for (const auto& [key, value] : metadata) words[key] = value;
      add("__metadata__", words);
    }
    std::size_t offset = 0;
    for (TensorSpec& t : tensors_) {
      ESP_REQUIRE(names.insert(t.name).second, FormatError, path.string(), ": tensor \"", t.name,
                  "\" is declared twice");
      t.bytes = checked_bytes(t, path.string());
      Json entry = Json::object();
      entry["dtype"] = t.type;
      entry["shape"] = Json::array(t.shape);
      entry["data_offsets"] = Json::array(std::vector<std::size_t>{offset, offset + t.bytes});
      add(t.name, entry);
      offset += t.bytes;
    }
    header += "}";
    header.append((8 - header.size() % 8) % 8, ' ');
    const std::uint64_t length = header.size();
    file_.write(&length, sizeof length);
    file_.write(header);
  }

  /// The order in which tensors must be written.
  const std::vector<TensorSpec>& specs() const { return tensors_; }

  /// Appends bytes of tensor `name`; several calls may write one tensor in pieces.
  ESP_INLINE void append(std::string_view name, const void* data, std::size_t bytes) {
    if (bytes == 0) return;
    skip_finished();
    ESP_REQUIRE(current_ < tensors_.size() && tensors_[current_].name == name, FormatError,
                file_.path().string(), ": tensor \"", name, "\" is written out of order, expected ",
                current_ < tensors_.size() ? tensors_[current_].name : std::string("no more"));
    ESP_REQUIRE(bytes <= tensors_[current_].bytes - done_bytes_, FormatError, file_.path().string(),
                ": tensor \"", name, "\" was declared with ", tensors_[current_].bytes,
                " bytes, more are being written");
    file_.write(data, bytes);
    done_bytes_ += bytes;
  }
  ESP_INLINE void write(std::string_view name, const AnyTensor& t) {
    skip_finished();
    if (current_ < tensors_.size() && tensors_[current_].name == name) {
      const TensorSpec given = make_spec(std::string(name), t.dtype(), t.shape());
      const TensorSpec& declared = tensors_[current_];
      ESP_REQUIRE(given.type == declared.type && given.shape == declared.shape, FormatError,
                  file_.path().string(), ": tensor \"", name, "\" was declared as ", declared.type,
                  " ", shape_text(declared), ", but is ", given.type, " ", shape_text(given));
    }
    append(name, t.bytes(), t.size_bytes());
  }

  ESP_INLINE void commit() {
    skip_finished();
    ESP_REQUIRE(current_ == tensors_.size(), FormatError, file_.path().string(), ": tensor \"",
                tensors_[current_].name, "\" was declared but not written in full");
    file_.commit();
  }

 private:
  /// Skips tensors that are complete or have no bytes.
  void skip_finished() {
    while (current_ < tensors_.size() && done_bytes_ == tensors_[current_].bytes) {
      ++current_;
      done_bytes_ = 0;
    }
  }

  AtomicFile file_;
  std::vector<TensorSpec> tensors_;
  std::size_t current_ = 0;
  std::size_t done_bytes_ = 0;
};

/// Writes all tensors at once, for files that fit into memory (adapters, results).
ESP_INLINE void save_safetensors(const std::filesystem::path& path,
                                 const std::vector<std::pair<std::string, AnyTensor>>& tensors,
                                 const Metadata& metadata = {{"format", "pt"}}) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, t] : tensors) specs.push_back(make_spec(name, t.dtype(), t.shape()));
  std::unordered_map<std::string_view, const AnyTensor*> by_name;
  for (const auto& [name, t] : tensors) by_name.emplace(name, &t);
  SafetensorsWriter writer(path, std::move(specs), metadata);
  for (const TensorSpec& spec : writer.specs()) writer.write(spec.name, *by_name.at(spec.name));
  writer.commit();
}

}  // namespace espalier::io
