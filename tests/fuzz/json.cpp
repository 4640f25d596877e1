// SPDX-License-Identifier: Apache-2.0
// JSON: what is accepted is written and read back equal; simdjson's other parser agrees about what
// is JSON, but for what the project decides (duplicate keys, depth, integers beyond 64 bits, NUL).
#include <espalier/io/jsonl.hpp>

#include <simdjson.h>

#include "fuzz.hpp"

using namespace espalier;

namespace {
void walk(const io::Json& v) {
  (void)v.where();
  if (v.is_array()) {
    for (const io::Json& item : v.items()) walk(item);
  } else if (v.is_object()) {
    for (const io::Json::Member& m : v.members()) {
      fuzz::require(&v.at(m.key) == &m.value);
      walk(m.value);
    }
  }
}
}  // namespace

ESP_FUZZ(text) {
  io::Json value;
  const bool ours = fuzz::accepts([&] { value = io::parse_json(text, "a.json"); });
  simdjson::dom::parser parser;
  const auto error = parser.parse(text.data(), text.size()).error();
  if (ours) {
    fuzz::require(error == simdjson::SUCCESS || error == simdjson::NUMBER_ERROR);
    walk(value);
    const std::string compact = io::dump(value), python = io::dump_python(value, 2);
    fuzz::require(io::dump(io::parse_json(compact, "b")) == compact);
    fuzz::require(io::dump(io::parse_json(python, "c")) == compact);
    io::Json copy = value;
    fuzz::require(copy == value || compact.find("null") != std::string::npos);
    if (copy.is_array()) copy.push_back(value);
    if (copy.is_object()) copy["\x01new"] = value;
  } else {
    std::string said;
    try {
      (void)io::parse_json(text, "a.json");
    } catch (const Error& e) {
      said = e.what();
    }
    const bool decided =
        said.find("twice") != std::string::npos || said.find("nested") != std::string::npos ||
        said.find("UTF-16") != std::string::npos || said.find("BOM") != std::string::npos;
    fuzz::require(decided || error != simdjson::SUCCESS);
  }
  fuzz::accepts([&] {
    io::for_each_json_line(text, "a.jsonl", [](const io::Json& v, std::size_t) { walk(v); });
  });
}
