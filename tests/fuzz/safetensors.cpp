// SPDX-License-Identifier: Apache-2.0
// A safetensors file as it is, and as a header whose length is put right.
#include <cstring>

#include <espalier/io/safetensors.hpp>

#include "fuzz.hpp"

using namespace espalier;

namespace {
void use(std::string_view bytes) {
  fuzz::accepts([&] {
    const io::SafetensorsFile file(fuzz::file_of("a.safetensors", bytes));
    for (const io::TensorInfo& info : file.tensors()) {
      fuzz::accepts([&] { (void)file.tensor(info); });
      std::size_t read = 0;
      file.for_each_piece(info, [&](const void*, std::size_t n) { read += n; });
      fuzz::require(read == info.bytes && file.find(info.name) != nullptr);
    }
  });
}
}  // namespace

ESP_FUZZ(text) {
  use(text);
  const std::uint64_t header = text.find('\0') < text.size() ? text.find('\0') : text.size();
  std::string whole(8, '\0');
  std::memcpy(whole.data(), &header, 8);
  use(whole.append(text));
}
