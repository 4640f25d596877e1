// SPDX-License-Identifier: Apache-2.0
// Reads questions of MMLU-Pro (Wang et al. 2024, arXiv:2406.01574): a JSON list or JSON lines of
// dataset records, or recorded outputs, which contain the questions. Padding options ("N/A") are
// dropped, as in the reference script.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/mmlu_pro_question.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include <espalier/io/jsonl.hpp>

namespace espalier::eval {

struct MmluProQuestion {
  std::int64_t id = 0;
  std::string question;
  std::vector<std::string> options;
  std::string answer;  // a letter
  std::int64_t answer_index = 0;
  std::string cot_content, category, source;
};

inline constexpr std::string_view kMmluProLetters = "ABCDEFGHIJKLMNOP";

/// Calls `f` for each value of a file that is a JSON list or JSON lines. @throws FormatError,
/// IoError
template <class Body>
void for_each_record(const std::filesystem::path& path, Body&& body) {
  const std::string text = io::read_text(path);
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  ESP_REQUIRE(first != text.npos, FormatError, path.string(),
              ": is empty; expected a JSON list or JSON lines");
  if (text[first] == '[') {
    const io::Json list = io::parse_json(text, path.string());
    for (const io::Json& record : list.items()) body(record);
  } else {
    io::for_each_json_line(text, path.string(),
                           [&](const io::Json& record, std::size_t) { body(record); });
  }
}

[[nodiscard]] inline MmluProQuestion parse_mmlu_pro_question(const io::Json& record) {
  MmluProQuestion q;
  q.id = record.at("question_id").as_int();
  q.question = record.at("question").as_string();
  for (const io::Json& option : record.at("options").items()) {
    if (option.as_string() != "N/A") q.options.push_back(option.as_string());
  }
  ESP_REQUIRE(!q.options.empty() && q.options.size() <= kMmluProLetters.size(), FormatError,
              record.at("options").where(), ": question ", q.id, " has ", q.options.size(),
              " options, expected 1 to ", kMmluProLetters.size());
  q.answer = record.at("answer").as_string();
  q.answer_index = record.at("answer_index").as_int();
  q.category = record.at("category").as_string();
  // It becomes the name of a file.
  ESP_REQUIRE(!q.category.empty() && q.category.find('/') == q.category.npos &&
                  q.category.find('\0') == q.category.npos && q.category[0] != '.',
              FormatError, record.at("category").where(), ": \"", q.category,
              "\" is no name of a category");
  if (const io::Json* cot = record.find_value("cot_content")) q.cot_content = cot->as_string();
  if (const io::Json* source = record.find_value("src")) q.source = source->as_string();
  return q;
}

[[nodiscard]] inline std::vector<MmluProQuestion> load_mmlu_pro(const std::filesystem::path& path) {
  std::vector<MmluProQuestion> questions;
  std::set<std::int64_t> ids;
  for_each_record(path, [&](const io::Json& record) {
    questions.push_back(parse_mmlu_pro_question(record));
    const std::int64_t id = questions.back().id;
    ESP_REQUIRE(ids.insert(id).second, FormatError, record.where(), ": question_id ", id,
                " stands twice");
  });
  return questions;
}

/// Writes the record of the dataset, with the keys in the order of the dataset.
[[nodiscard]] inline io::Json to_json(const MmluProQuestion& q) {
  io::Json record = io::Json::object();
  record["question_id"] = q.id;
  record["question"] = q.question;
  record["options"] = io::Json::array(q.options);
  record["answer"] = q.answer;
  record["answer_index"] = q.answer_index;
  record["cot_content"] = q.cot_content;
  record["category"] = q.category;
  record["src"] = q.source;
  return record;
}

struct MmluProData {
  std::vector<MmluProQuestion> questions, shots;
  std::string header;
};

inline constexpr std::string_view kMmluProHeader =
    "The following are multiple choice questions (with answers) about {$}. Think step by step and "
    "then finish your answer with \"the answer is (X)\" where X is the correct letter "
    "choice.\n\n\n";

/// Reads `folder`/mmlu_pro: questions from test.jsonl, else from recorded outputs; worked examples
/// from validation.jsonl; the header from initial_prompt.txt if that exists.
[[nodiscard]] inline MmluProData load_mmlu_pro_data(const std::filesystem::path& folder) {
  const std::filesystem::path at = folder / "mmlu_pro";
  MmluProData data;
  const auto recorded = at / "mixtral_8x7b_instruct_outputs.json";
  const bool test = std::filesystem::exists(at / "test.jsonl");
  ESP_REQUIRE(test || std::filesystem::exists(recorded), IoError, (at / "test.jsonl").string(),
              ": is missing; the data folder holds mmlu_pro/test.jsonl and "
              "mmlu_pro/validation.jsonl");
  data.questions = load_mmlu_pro(test ? at / "test.jsonl" : recorded);
  data.shots = load_mmlu_pro(at / "validation.jsonl");
  const auto header = at / "initial_prompt.txt";
  data.header =
      std::filesystem::exists(header) ? io::read_text(header) : std::string(kMmluProHeader);
  return data;
}

}  // namespace espalier::eval
