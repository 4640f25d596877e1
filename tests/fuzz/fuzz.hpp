// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets share. A target feeds bytes to a parser: an espalier::Error is an answer,
// anything else (another exception, a sanitizer's report, a hang) is a finding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include <espalier/core/error.hpp>
#include "support/temporary_folder.hpp"

namespace espalier::fuzz {

template <class Body>
bool accepts(Body&& body) {
  try {
    std::forward<Body>(body)();
    return true;
  } catch (const Error&) {
    return false;
  }
}

/// A finding: what must hold does not.
inline void require(bool ok) {
  if (!ok) std::abort();
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// A file with these bytes, in a folder that the process keeps.
inline std::filesystem::path file_of(std::string_view name, std::string_view bytes) {
  static const test::TemporaryFolder folder;
  test::write_bytes(folder / name, bytes);
  return folder / name;
}

}  // namespace espalier::fuzz

#define ESP_FUZZ(text)                                                             \
  static void fuzz_text(std::string_view text);                                    \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t n);  \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t n) { \
    fuzz_text(espalier::fuzz::text_of(data, n));                                   \
    return 0;                                                                      \
  }                                                                                \
  static void fuzz_text(std::string_view text)
