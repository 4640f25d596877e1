// SPDX-License-Identifier: Apache-2.0
// Files: the work of reading and writing JSON and safetensors grows with their size, and JSON takes
// at most 20 bytes of memory for a byte of text.
#include <espalier/io/json.hpp>
#include <espalier/io/safetensors.hpp>
#include <espalier/io/safetensors_writer.hpp>

#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"
#include "support/work_counter.hpp"

using namespace espalier;
using namespace espalier::io;
using espalier::test::require_linear;

namespace {

/// [unit,unit,...]
std::string list_of(const std::string& unit, std::size_t bytes) {
  std::string text = "[" + unit;
  while (text.size() < bytes) text += "," + unit;
  return text + "]";
}
/// {"key0":value,"key1":value,...}
std::string object_of(const std::string& value, std::size_t bytes) {
  std::string text = "{\"k\":" + value;
  for (std::size_t i = 0; text.size() < bytes; ++i) {
    text += ",\"" + std::to_string(i) + "\":" + value;
  }
  return text + "}";
}
std::string nested(std::size_t levels) {
  return std::string(levels, '[') + "0" + std::string(levels, ']');
}

const std::vector<std::string> kItems = {"0",
                                         "-1.5",
                                         "null",
                                         "\"\"",
                                         "\"a\"",
                                         "\"\\n\"",
                                         "[]",
                                         "{}",
                                         "[0]",
                                         "{\"\":0}",
                                         "{\"a\":[1]}",
                                         "[[0],[\"a\"]]",
                                         "[[[]]]",
                                         "18446744073709551615",
                                         "\"a string that is longer than a small one\"",
                                         "{\"a long key of an object\":0}"};

std::vector<std::pair<std::string, AnyTensor>> small_tensors(std::size_t count) {
  std::vector<std::pair<std::string, AnyTensor>> tensors;
  for (std::size_t i = 0; i < count; ++i) {
    tensors.emplace_back("model.layers.0.experts." + std::to_string(i) + ".weight",
                         AnyTensor(Shape{1}, DType::f32));
  }
  return tensors;
}

}  // namespace

TEST_CASE("JSON takes at most 20 bytes of memory for a byte of text") {
  constexpr std::size_t kBytes = 100'000;
  std::vector<std::string> texts = {object_of("0", kBytes),
                                    object_of("[0]", kBytes),
                                    list_of(nested(250), kBytes),
                                    nested(256),
                                    "\"" + std::string(kBytes, 'a') + "\"",
                                    list_of(object_of("0", 100), kBytes)};
  for (const std::string& item : kItems) texts.push_back(list_of(item, kBytes));
  for (const std::string& text : texts) {
    Json parsed;
    const test::Work work = test::work_of([&] { parsed = parse_json(text, "a.json"); });
    const double ratio = static_cast<double>(work.peak_bytes) / static_cast<double>(text.size());
    CAPTURE(text.substr(0, 60), ratio);
    if (text.size() > 10000) CHECK(work.peak_bytes <= 20 * text.size());
    CHECK(dump(parsed).size() == text.size());
  }
}

TEST_CASE("scaling: parsing JSON, looking values up, and naming their places") {
  for (const std::string& item : kItems) {
    CAPTURE(item);
    require_linear(4000, [&](std::size_t bytes) {
      return [text = list_of(item, bytes)] {
        const Json j = parse_json(text, "a.json");
        for (const Json& v : j.items()) (void)v.where();
        (void)dump(j);
      };
    });
  }
  require_linear(4000, [&](std::size_t bytes) {
    return [text = object_of("[1]", bytes)] {
      const Json j = parse_json(text, "a.json");
      for (const Json::Member& m : j.members()) (void)j.at(m.key).where();
    };
  });
}

TEST_CASE("scaling: writing and reading safetensors files of many tensors") {
  const test::TemporaryFolder folder;
  require_linear(200, [&](std::size_t count) {
    return [&, tensors = small_tensors(count)] {
      save_safetensors(folder / "a.safetensors", tensors);
    };
  });
  require_linear(200, [&](std::size_t count) {
    save_safetensors(folder / "a.safetensors", small_tensors(count));
    return [&] {
      const SafetensorsFile file(folder / "a.safetensors");
      for (const TensorInfo& info : file.tensors()) (void)file.tensor(info.name);
    };
  });
}
