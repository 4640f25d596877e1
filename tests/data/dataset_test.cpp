// SPDX-License-Identifier: Apache-2.0
// Which tokens are trained on, with a toy tokenizer whose merges are easy to follow: one token per
// byte, but "ab" and "::" are one token each; BOS 1 and EOS 2.
#include <filesystem>

#include <unistd.h>

#include <espalier/data/dataset.hpp>

#include "support/catch.hpp"

using namespace espalier;
using namespace espalier::data;
using Ids = std::vector<std::int32_t>;
using Mask = std::vector<std::uint8_t>;

namespace {

constexpr std::int32_t kBos = 1, kEos = 2, kAb = 1000, kColons = 1001;

Ids encode(std::string_view text, bool add_special) {
  Ids ids;
  if (add_special) ids.push_back(kBos);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view two = text.substr(i, 2);
    if (text[i] == '^') {
      ids.push_back(kBos);
    } else if (text[i] == '$') {
      ids.push_back(kEos);
    } else if (two == "ab" || two == "::") {
      ids.push_back(two == "ab" ? kAb : kColons);
      ++i;
    } else {
      ids.push_back(static_cast<unsigned char>(text[i]));
    }
  }
  return ids;
}

/// "^U:hi;A:yo$" with what the assistant says trained, the end included.
std::vector<text::TextSegment> render(const std::vector<text::Message>& turns) {
  std::vector<text::TextSegment> out = {{"^", false}};
  for (const text::Message& t : turns) {
    ESP_REQUIRE(t.role == "user" || t.role == "assistant", FormatError, "role '", t.role,
                "' is not known to this template");
    const bool assistant = t.role == "assistant";
    out.push_back({assistant ? "A:" : "U:", false});
    out.push_back({t.content + (assistant ? "$" : ";"), assistant});
  }
  return out;
}

class DataFile {
 public:
  explicit DataFile(const std::string& content)
      : path_(std::filesystem::temp_directory_path() /
              ("espalier-dataset-" + std::to_string(::getpid()) + ".jsonl")) {
    io::write_text(path_, content);
  }
  ~DataFile() { std::filesystem::remove(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

Dataset read(const std::string& content, text::RenderChat chat = render,
             std::int64_t max_length = 100, std::int32_t eos = kEos) {
  const DataFile file(content);
  return read_dataset(file.path(), {encode, std::move(chat), eos, "none is known"}, max_length);
}

std::string failure(const std::string& content, text::RenderChat chat = render) {
  try {
    read(content, std::move(chat));
  } catch (const FormatError& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("dataset: text is trained on from its second token to the appended end",
          "[data][dataset]") {
  const Dataset d = read("{\"text\": \"xab\"}\n\n{\"text\": \"y$\"}\n");
  REQUIRE(d.examples.size() == 2);
  CHECK(d.examples[0].ids == Ids{kBos, 'x', kAb, kEos});
  CHECK(d.examples[0].is_target == Mask{0, 1, 1, 1});
  CHECK(d.examples[1].ids == Ids{kBos, 'y', kEos});  // an end that is there is not doubled
  CHECK(d.tokens == 7);
  CHECK(d.targets == 5);
  CHECK(read("{\"text\": \"x\"}", render, 100, -1).examples[0].ids == Ids{kBos, 'x'});
}

TEST_CASE("dataset: prompt and response without a template train on the response and the end",
          "[data][dataset]") {
  const Dataset d = read("{\"prompt\": \"Q:\", \"response\": \"r\"}", nullptr);
  CHECK(d.examples.at(0).ids == Ids{kBos, 'Q', ':', 'r', kEos});
  CHECK(d.examples.at(0).is_target == Mask{0, 0, 0, 1, 1});
  CHECK(d.joined_pairs == 1);
}

TEST_CASE("dataset: a token across the boundary counts as response", "[data][dataset]") {
  const Dataset d = read("{\"prompt\": \"xa\", \"response\": \"by\"}", nullptr);
  CHECK(d.examples.at(0).ids == Ids{kBos, 'x', kAb, 'y', kEos});  // the ids of the joined text
  CHECK(d.examples.at(0).is_target == Mask{0, 0, 1, 1, 1});
}

TEST_CASE("dataset: prompt and response with a template are one exchange", "[data][dataset]") {
  const Dataset pair = read("{\"prompt\": \"hi\", \"response\": \"yo\"}");
  const Dataset chat = read(
      "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"},"
      " {\"role\": \"assistant\", \"content\": \"yo\"}]}");
  CHECK(pair.examples.at(0).ids == encode("^U:hi;A:yo$", false));  // no second BOS
  CHECK(pair.examples.at(0).is_target == Mask{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1});
  CHECK(chat.examples.at(0).ids == pair.examples.at(0).ids);
  CHECK(chat.examples.at(0).is_target == pair.examples.at(0).is_target);
}

TEST_CASE("dataset: every turn of the assistant is trained on", "[data][dataset]") {
  const Dataset d = read(
      "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"},"
      " {\"role\": \"assistant\", \"content\": \"b\"}, {\"role\": \"user\", \"content\": \"c\"},"
      " {\"role\": \"assistant\", \"content\": \"ab\"}]}");
  const Example& e = d.examples.at(0);
  CHECK(e.ids == encode("^U:a;A:b$U:c;A:ab$", false));
  std::string trained;
  for (std::size_t i = 0; i < e.ids.size(); ++i) {
    if (e.is_target[i]) trained += e.ids[i] == kAb ? "<ab>" : e.ids[i] == kEos ? "$" : "b";
  }
  CHECK(trained == "b$<ab>$");
}

TEST_CASE("dataset: a trained end inside a token keeps that token", "[data][dataset]") {
  const Example e =
      example_of_segments(encode, {{"x", false}, {"ya", true}, {"bz", false}}, false, -1);
  CHECK(e.ids == Ids{'x', 'y', kAb, 'z'});
  CHECK(e.is_target == Mask{0, 1, 1, 0});
}

TEST_CASE("dataset: long examples are cut on the right, and dropped when no target is left",
          "[data][dataset]") {
  const Dataset d = read(
      "{\"text\": \"abcdefgh\"}\n{\"prompt\": \"long prompt\", \"response\": \"r\"}\n"
      "{\"text\": \"x\"}\n",
      render, 4);
  REQUIRE(d.examples.size() == 2);
  CHECK(d.examples[0].ids == Ids{kBos, kAb, 'c', 'd'});
  CHECK(d.cut == 2);
  CHECK(d.dropped == 1);
  CHECK_THROWS_WITH(read("{\"prompt\": \"long prompt\", \"response\": \"r\"}", render, 4),
                    Catch::Contains("no example to train on (1 lines, 1 without a target"));
  CHECK_THROWS_AS(read("{\"text\": \"x\"}", render, 1), UsageError);
}

TEST_CASE("dataset: a malformed line is named", "[data][dataset]") {
  const std::string good = "{\"text\": \"x\"}\n";
  using Catch::Contains;
  CHECK_THAT(failure(good + "{\"text\": \"x\"\n"), Contains("jsonl: line 2: not valid JSON"));
  CHECK_THAT(failure(good + "\n[1]\n"), Contains("line 3: expected an object, found an array"));
  CHECK_THAT(failure("{\"a\": 1, \"b\": 2}"),
             Contains("line 1: has none of \"messages\", \"prompt\" and \"response\", \"text\"; "
                      "its keys are \"a\", \"b\""));
  CHECK_THAT(failure("{\"prompt\": \"x\"}"), Contains("line 1: \"response\" is missing"));
  CHECK_THAT(failure("{\"text\": 5}"), Contains("line 1: at \"text\": expected a string"));
  CHECK_THAT(failure("{\"messages\": [{\"role\": \"user\"}]}"), Contains("\"content\" is missing"));
  CHECK_THAT(failure(good + "{\"messages\": [{\"role\": \"tool\", \"content\": \"x\"}]}"),
             Contains("line 2: role 'tool' is not known"));
  CHECK_THAT(
      failure("{\"messages\": []}", nullptr),
      Contains("line 1: has \"messages\", but there is no chat template to render them (none is "
               "known)"));
  CHECK_THAT(failure(""), Contains("no example to train on (0 lines"));
  CHECK_THROWS_AS(read_dataset("/nonexistent.jsonl", {encode, render, kEos, {}}, 100), IoError);
}
