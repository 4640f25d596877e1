// SPDX-License-Identifier: Apache-2.0
// Reading safetensors files: 8 bytes header length (little endian), JSON header, tensor bytes. The
// file is mapped and its header checked completely on opening; tensors share the mapping. Format:
// huggingface.co/docs/safetensors.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/safetensors.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <bit>
#include <unordered_map>

#include <espalier/core/inline.hpp>
#include <espalier/io/json.hpp>
#include <espalier/io/mapped_file.hpp>
#include <espalier/io/tensor_spec.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier::io {

static_assert(std::endian::native == std::endian::little, "safetensors data is little endian");

/// A tensor in a file: `bytes` bytes from byte `offset` of the file on.
struct TensorInfo : TensorSpec {
  std::size_t offset = 0;
};

class SafetensorsFile {
 public:
  static constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the reference reader's limit

  /// @throws IoError, or FormatError naming file, tensor and byte
  ESP_INLINE explicit SafetensorsFile(const std::filesystem::path& path) : file_(path) {
    parse_header();
    check_layout();
    for (std::size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
  }

  const std::filesystem::path& path() const { return file_.path(); }
  /// In the order of their bytes.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  /// `__metadata__`, in the order of the file.
  const std::vector<std::pair<std::string, std::string>>& metadata() const { return metadata_; }
  std::size_t size_bytes() const { return file_.size(); }

  /// nullptr if there is no such tensor.
  const TensorInfo* find(std::string_view name) const {
    const auto it = by_name_.find(std::string(name));
    return it == by_name_.end() ? nullptr : &tensors_[it->second];
  }
  const TensorInfo& at(std::string_view name) const {
    const TensorInfo* info = find(name);
    ESP_REQUIRE(info != nullptr, FormatError, path().string(), ": no tensor \"", name, "\" among ",
                tensors_.size());
    return *info;
  }

  /// Shares the mapped memory; copied only where the file does not align it for its type.
  AnyTensor tensor(std::string_view name) const { return tensor(at(name)); }
  ESP_INLINE AnyTensor tensor(const TensorInfo& info) const {
    const DType dtype = supported_dtype(info, path().string());
    const Shape shape = shape_of(info, path().string());
    if (info.offset % size_of(dtype) == 0) {
      return {{file_.bytes(), file_.bytes().get() + info.offset}, shape, dtype};
    }
    AnyTensor copy(shape, dtype);
    std::memcpy(copy.bytes(), file_.bytes().get() + info.offset, info.bytes);
    return copy;
  }

  /// Calls `body(const void* data, size_t bytes)` over the tensor's bytes in pieces, in order,
  /// without keeping them in memory: for copying tensors from file to file, whatever their type.
  template <class Body>
  void for_each_piece(const TensorInfo& info, Body&& body) const {
    constexpr std::size_t kPieceBytes = 4 << 20;
    std::vector<char> piece(std::min(kPieceBytes, info.bytes));
    for (std::size_t done = 0; done < info.bytes;) {
      const std::size_t n = std::min(kPieceBytes, info.bytes - done);
      file_.read(info.offset + done, piece.data(), n);
      body(static_cast<const void*>(piece.data()), n);
      done += n;
    }
  }
  /// Bytes [begin, begin + bytes) of the file, for rows of a tensor.
  void read(std::size_t begin, void* to, std::size_t bytes) const { file_.read(begin, to, bytes); }

 private:
  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    throw FormatError(espalier::detail::concat({path().string(), ": ", parts...}));
  }

  void parse_header() {
    if (file_.size() < 8) {
      fail("is ", file_.size(),
           " bytes long, a safetensors file has at least 8; download it again");
    }
    constexpr std::string_view kLfs = "version https://git-lfs";
    if (file_.size() >= kLfs.size() &&
        std::memcmp(file_.bytes().get(), kLfs.data(), kLfs.size()) == 0) {
      fail("is a Git LFS pointer, not the file itself; run `git lfs pull`");
    }
    std::uint64_t length = 0;
    std::memcpy(&length, file_.bytes().get(), 8);
    if (length > kMaxHeaderBytes) {
      fail("the first 8 bytes announce a header of ", length, " bytes, at most ", kMaxHeaderBytes,
           " are allowed; this is not a safetensors file, or it is damaged");
    }
    if (length > file_.size() - 8) {
      fail("the header is ", length, " bytes long, but the file ends after ", file_.size() - 8,
           " of them; download it again");
    }
    data_begin_ = 8 + static_cast<std::size_t>(length);
    const char* text = reinterpret_cast<const char*>(file_.bytes().get()) + 8;
    const Json header =
        parse_json({text, static_cast<std::size_t>(length)}, path().string() + ": header");
    tensors_.reserve(header.members().size());
    for (const Json::Member& member : header.members()) {
      if (member.key == "__metadata__") {
        for (const Json::Member& m : member.value.members()) {
          metadata_.emplace_back(m.key, m.value.as_string());
        }
      } else {
        tensors_.push_back(parse_entry(member.key, member.value));
      }
    }
  }

  TensorInfo parse_entry(const std::string& name, const Json& entry) const {
    TensorInfo info;
    info.name = name;
    info.type = entry.at("dtype").as_string();
    for (const Json& n : entry.at("shape").items()) {
      const std::uint64_t extent = n.as_uint();
      if (!std::in_range<std::int64_t>(extent)) fail("tensor \"", name, "\": the shape overflows");
      info.shape.push_back(static_cast<std::int64_t>(extent));
    }
    info.bytes = checked_bytes(info, path().string());
    const Json& offsets = entry.at("data_offsets");
    if (offsets.size() != 2) {
      fail("tensor \"", name, "\": data_offsets has ", offsets.size(), " numbers, expected 2");
    }
    const std::uint64_t begin = offsets.at(0).as_uint(), end = offsets.at(1).as_uint();
    const std::size_t data_bytes = file_.size() - data_begin_;
    if (begin > end || end > data_bytes) {
      fail("tensor \"", name, "\": data_offsets are [", begin, ", ", end, "], but the file has ",
           data_bytes, " bytes of data; download it again");
    }
    if (end - begin != info.bytes) {
      fail("tensor \"", name, "\": ", info.type, " ", shape_text(info), " needs ", info.bytes,
           " bytes, data_offsets [", begin, ", ", end, "] hold ", end - begin);
    }
    info.offset = data_begin_ + static_cast<std::size_t>(begin);
    return info;
  }

  /// Checks that the tensors cover the data without gaps or overlaps.
  void check_layout() {
    std::stable_sort(tensors_.begin(), tensors_.end(), [](const auto& a, const auto& b) {
      return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
    });
    std::size_t end = data_begin_;
    for (const TensorInfo& info : tensors_) {
      if (info.offset != end) {
        fail("tensor \"", info.name, "\" begins at byte ", info.offset, " of the file, expected ",
             end, info.offset < end ? " (it overlaps the one before)" : " (there is a hole)");
      }
      end += info.bytes;
    }
    if (end != file_.size()) {
      fail("the tensors end at byte ", end, ", the file at byte ", file_.size(),
           "; download it again");
    }
  }

  MappedFile file_;
  std::size_t data_begin_ = 0;
  std::vector<TensorInfo> tensors_;
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::unordered_map<std::string, std::size_t> by_name_;
};

}  // namespace espalier::io
