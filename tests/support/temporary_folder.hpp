// SPDX-License-Identifier: Apache-2.0
// A folder of its own for a test case, gone when the case ends; and the message of an exception.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace espalier::test {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "espalier-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder: " + name);
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// Plain writing, on purpose not by the code under test.
inline void write_bytes(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!out) throw std::runtime_error("cannot write " + path.string());
}

inline std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

/// What `E` said, with `folder` taken out of the text; "no exception" or "another exception: ..."
/// otherwise.
template <class E, class F>
std::string message_of(F&& f, const std::filesystem::path& folder = {}) {
  std::string text = "no exception";
  try {
    f();
  } catch (const E& e) {
    text = e.what();
  } catch (const std::exception& e) {
    text = std::string("another exception: ") + e.what();
  }
  const std::string prefix = folder.string() + "/";
  for (std::size_t at; !folder.empty() && (at = text.find(prefix)) != std::string::npos;) {
    text.erase(at, prefix.size());
  }
  return text;
}

}  // namespace espalier::test
