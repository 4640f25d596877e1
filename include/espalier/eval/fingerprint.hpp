// SPDX-License-Identifier: Apache-2.0
// A short name for "the same numbers will come out": of a prompt its tokens, of a model its config,
// its tensors' names, shapes and a sample of their bytes, and its adapter in full. Reading all of a
// large checkpoint for it would take longer than many an evaluation; any training, pruning or
// merging changes the sample.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/fingerprint.hpp is host-only; include it from a .cpp"
#endif

#include <array>
#include <span>

#include <espalier/hub/checkpoint.hpp>

namespace espalier::eval {

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

/// @param adapter a PEFT folder, or empty
/// @param compute how the model computes, such as "f32"
[[nodiscard]] inline std::string fingerprint_of_model(const hub::Checkpoint& checkpoint,
                                                      const std::filesystem::path& adapter,
                                                      std::string_view compute) {
  constexpr std::size_t kSampleBytes = 64;
  Fingerprint print;
  print.add(compute).add(io::dump(checkpoint.config_json()));
  for (const std::string& name : checkpoint.names()) {
    const io::TensorInfo& info = checkpoint.at(name);
    print.add(info.name).add(info.type).add(io::shape_text(info));
    const AnyTensor tensor = checkpoint.tensor(name);
    const auto* bytes = reinterpret_cast<const unsigned char*>(tensor.bytes());
    const std::size_t size = tensor.size_bytes();
    const std::size_t sample = std::min(size, kSampleBytes);
    for (const std::size_t at : {std::size_t{0}, (size - sample) / 2, size - sample}) {
      print.add_bytes(bytes + at, sample);
    }
  }
  if (adapter.empty()) return print.text();
  for (const char* file : {"adapter_config.json", "adapter_model.safetensors"}) {
    const io::MappedFile content(adapter / file);
    print.add(content.size()).add_bytes(content.bytes().get(), content.size());
  }
  return print.text();
}

}  // namespace espalier::eval
