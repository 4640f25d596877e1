// SPDX-License-Identifier: Apache-2.0
// Training data: a JSONL file whose lines are each one of
//   {"messages": [{"role": ..., "content": ...}, ...]}   trained on what the assistant says
//   {"prompt": ..., "response": ...}                     trained on the response
//   {"text": ...}                                        trained on everything
// `messages` need a chat template. `prompt`/`response` become one user and one assistant turn where
// there is a template, else the two texts joined, with the end-of-text token behind.
// A line that is none of these is an error that names it; examples that are cut until no target is
// left are dropped and counted.
#pragma once

#ifdef __CUDACC__
#error "espalier/train/dataset.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <espalier/core/threads.hpp>
#include <espalier/io/jsonl.hpp>
#include <espalier/train/examples.hpp>

namespace espalier::train {

/// The text of a conversation as the model's template lays it out; what the assistant says is
/// trained.
using RenderChat = std::function<std::vector<text::TextSegment>(const std::vector<text::Message>&)>;

struct DatasetOptions {
  std::int64_t max_length = 1024;
  std::int32_t eos = -1;  // -1: the model has none
};

struct Dataset {
  std::vector<Example> examples;
  std::int64_t cut = 0;           // examples longer than max_length
  std::int64_t dropped = 0;       // without a target left
  std::int64_t joined_pairs = 0;  // prompts and responses joined without a template
  std::int64_t tokens = 0;
  std::int64_t targets = 0;
  std::uint64_t fingerprint = 0;  // of the file's bytes
};

class DatasetReader {
 public:
  /// `render` may be empty: there is no chat template.
  DatasetReader(Encode encode, RenderChat render, DatasetOptions options)
      : encode_(std::move(encode)), render_(std::move(render)), options_(options) {
    ESP_REQUIRE(options_.max_length >= 2, UsageError, "max length is ", options_.max_length,
                ", expected at least 2: a token and one to predict");
  }

  /// @throws FormatError "data.jsonl: line 17: ..."
  Dataset read(const std::filesystem::path& path) const {
    const std::string text = io::read_text(path);
    std::vector<Record> records;
    io::for_each_json_line(text, path.string(), [&](const io::Json& value, std::size_t line) {
      records.push_back(parse(value, line));
    });
    std::vector<Example> examples(records.size());
    parallel_for(static_cast<std::int64_t>(records.size()), 16,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t i = begin; i < end; ++i) {
                     const auto k = static_cast<std::size_t>(i);
                     examples[k] = tokenise(records[k], path);
                   }
                 });
    Dataset data;
    data.fingerprint = stream_of(text);
    for (const Record& r : records) data.joined_pairs += render_ || r.is_text ? 0 : 1;
    for (Example& e : examples) keep(std::move(e), data);
    ESP_REQUIRE(!data.examples.empty(), FormatError, path.string(), ": no example to train on (",
                records.size(), " lines, ", data.dropped,
                " without a target within the maximal length)");
    return data;
  }

 private:
  struct Record {
    std::size_t line = 0;
    std::vector<text::Message> turns;  // messages, or prompt and response
    bool is_text = false;              // then turns holds one
  };

  Record parse(const io::Json& value, std::size_t line) const {
    ESP_REQUIRE(value.is_object(), FormatError, value.where(), ": expected an object, found ",
                value.kind_name());
    Record r;
    r.line = line;
    if (const io::Json* messages = value.find("messages")) {
      for (const io::Json& m : messages->items()) {
        r.turns.push_back({m.at("role").as_string(), m.at("content").as_string()});
      }
      ESP_REQUIRE(
          render_, FormatError, value.where(),
          ": has \"messages\", but the model's tokenizer has no chat template that is known "
          "here; use prompt/response or text");
    } else if (value.find("prompt") || value.find("response")) {
      r.turns = {{"user", value.at("prompt").as_string()},
                 {"assistant", value.at("response").as_string()}};
    } else if (const io::Json* text = value.find("text")) {
      r.is_text = true;
      r.turns = {{"", text->as_string()}};
    } else {
      throw FormatError(espalier::detail::concat(
          {value.where(), ": has none of \"messages\", \"prompt\" and \"response\", \"text\"",
           keys(value)}));
    }
    return r;
  }

  static std::string keys(const io::Json& value) {
    std::string list;
    for (const io::Json::Member& m : value.members()) {
      list += (list.empty() ? "; its keys are \"" : ", \"") + m.key + "\"";
      if (list.size() > 120) return list + ", ...";
    }
    return list;
  }

  Example tokenise(const Record& r, const std::filesystem::path& path) const {
    if (r.is_text) return example_of_text(encode_, r.turns[0].content, options_.eos);
    if (!render_) {
      return example_of_segments(encode_, {{r.turns[0].content, false}, {r.turns[1].content, true}},
                                 true, options_.eos);
    }
    try {
      return example_of_segments(encode_, render_(r.turns), false, -1);
    } catch (const Error& e) {
      throw FormatError(
          espalier::detail::concat({path.string(), ": line ", r.line, ": ", e.what()}));
    }
  }

  void keep(Example&& e, Dataset& data) const {
    data.cut += cut_right(e, options_.max_length) ? 1 : 0;
    const std::int64_t targets = e.targets();
    if (targets == 0) {
      ++data.dropped;
      return;
    }
    data.tokens += static_cast<std::int64_t>(e.ids.size());
    data.targets += targets;
    data.examples.push_back(std::move(e));
  }

  Encode encode_;
  RenderChat render_;
  DatasetOptions options_;
};

}  // namespace espalier::train
