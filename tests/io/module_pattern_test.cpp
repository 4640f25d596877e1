// SPDX-License-Identifier: Apache-2.0
// Module patterns of adapters: PEFT's re.match(rf"(.*\.)?({pattern})$", module).
#include <espalier/io/module_pattern.hpp>

#include <string>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using espalier::io::ModulePattern;
using espalier::test::message_of;

namespace {
std::string refusal(const std::string& pattern) {
  return message_of<FormatError>([&] { (void)ModulePattern(pattern); });
}
}  // namespace

TEST_CASE("module pattern: whole components match, as Python's re does it") {
  const std::string module = "model.layers.12.self_attn.q_proj";
  for (const char* pattern :
       {"q_proj", "self_attn.q_proj", R"(layers\.\d+\.self_attn\.(q|v)_proj)", ".*",
        "q_proj|v_proj", "v_proj|q_proj", "[qv]_proj", "model.*", "(?P<part>q)_proj", "(?i:Q_PROJ)",
        "q_proj$", R"(\w+)", ".+?", "self.attn.q_proj"}) {
    CAPTURE(pattern);
    CHECK(ModulePattern(pattern).matches(module));
  }
  for (const char* pattern : {"_proj", "proj", "v_proj", "layers", "q_proj.", "", "Q_proj",
                              "^q_proj", R"(layers\.1\.self_attn\.q_proj)"}) {
    CAPTURE(pattern);
    CHECK_FALSE(ModulePattern(pattern).matches(module));
  }
  CHECK(ModulePattern("^model.*").matches(module));
  CHECK(ModulePattern("[]q]_proj").matches(module));
  CHECK(ModulePattern("").matches("model."));
}

TEST_CASE("module pattern: what is no pattern of Python is refused by name") {
  CHECK(refusal("(q_proj") == "pattern '(q_proj' does not compile: missing closing parenthesis");
  CHECK(refusal("a\\h") == "pattern 'a\\h' has '\\h', which is not supported");
  for (const char* pattern : {"(?R)", "(?1)", "(*UTF)a", "[[:alpha:]]", "a\\Kb", "(a)\\1", "a{,2}",
                              "(?P>x)", "\\p{L}", "(?|a)", "a\\"}) {
    CAPTURE(pattern);
    CHECK_THAT(refusal(pattern), Catch::StartsWith("pattern '"));
  }
  CHECK_THAT(refusal("l**a"), Catch::Contains("does not compile"));
  CHECK(refusal(std::string(10'000, 'a')) == "no exception");
}

TEST_CASE("module pattern: one that backtracks without end is given up") {
  // In (([a-z_.0-9])+)+! PCRE2 sees that the name has no !; std::regex, once used here, hung.
  CHECK_FALSE(ModulePattern("(([a-z_.0-9])+)+!").matches("model.layers.12.experts.5.w1"));
  const ModulePattern pattern("(([a-z_.0-9])+)+[!?]");
  CHECK_THAT(message_of<FormatError>(
                 [&] { (void)pattern.matches("model.layers.12.block_sparse_moe.experts.5.w1"); }),
             Catch::StartsWith("pattern '(([a-z_.0-9])+)+[!?]' needs too much work"));
  CHECK(pattern.matches("abc!"));
}
