// SPDX-License-Identifier: Apache-2.0
// Scores recorded outputs anew under any rule: a JSON list or JSON lines of dataset records with
// `model_outputs`, `generated_text` or `text` (a journal of this program), or a folder of such
// files as the reference script writes them, one per category. An output that is null is an answer
// that was not given. A recorded `pred` is ignored.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/replay.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <set>

#include <espalier/eval/mmlu_pro_score.hpp>

namespace espalier::eval {

struct Replay {
  std::vector<AnsweredQuestion> questions;
  std::vector<Verdict> verdicts;
  MmluProScore score;
};

/// Files of one model lie in one folder.
/// @throws UsageError naming the folders where there are several
inline void require_one_model(const std::filesystem::path& at,
                              const std::vector<std::filesystem::path>& files) {
  std::set<std::string> folders;
  for (const std::filesystem::path& file : files) folders.insert(file.parent_path().string());
  std::string names;
  for (const std::string& f : folders) names += (names.empty() ? "" : ", ") + f;
  ESP_REQUIRE(folders.size() < 2, UsageError, at.string(),
              ": holds the outputs of several models or selections, which are not one score: ",
              names, "; replay one of them");
}

/// Lists the *.json and *.jsonl files of a folder, sorted by name. If there are CoT folders below,
/// lists theirs instead. @throws IoError if there are none
[[nodiscard]] inline std::vector<std::filesystem::path> recorded_files(
    const std::filesystem::path& at) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(at)) return {at};
  const auto recorded = [](const fs::directory_entry& e) {
    const std::string extension = e.path().extension().string();
    return e.is_regular_file() && (extension == ".json" || extension == ".jsonl");
  };
  std::vector<fs::path> files, below;
  for (const auto& e : fs::directory_iterator(at)) {
    if (recorded(e)) files.push_back(e.path());
  }
  for (const auto& e : fs::recursive_directory_iterator(at)) {
    const bool cot = e.path().string().find("/CoT/") != std::string::npos;
    if (cot && recorded(e)) below.push_back(e.path());
  }
  if (!below.empty() && at.string().find("/CoT") == std::string::npos) files = below;
  require_one_model(at, files);
  ESP_REQUIRE(!files.empty(), IoError, at.string(),
              ": no .json file of recorded outputs in this folder");
  std::sort(files.begin(), files.end());
  return files;
}

[[nodiscard]] inline std::string recorded_text(const io::Json& record) {
  for (const char* key : {"model_outputs", "generated_text", "text"}) {
    const io::Json* text = record.find(key);
    if (text != nullptr) return text->is_null() ? std::string() : text->as_string();
  }
  throw FormatError(
      record.where() +
      ": has neither \"model_outputs\", \"generated_text\" nor \"text\"; expected the "
      "recorded output of a model");
}

[[nodiscard]] inline Replay replay(const std::filesystem::path& at, const MmluProRule& rule) {
  Replay r;
  for (const auto& file : recorded_files(at)) {
    for_each_record(file, [&](const io::Json& record) {
      r.questions.push_back(answered(parse_mmlu_pro_question(record), recorded_text(record), rule));
    });
  }
  ESP_REQUIRE(!r.questions.empty(), FormatError, at.string(), ": no record in it");
  r.verdicts = judge(r.questions, rule);
  r.score = score_of(r.questions, r.verdicts);
  return r;
}

/// A line of replay.jsonl.
[[nodiscard]] inline io::Json to_json(const AnsweredQuestion& q, const Verdict& v) {
  io::Json j = io::Json::object();
  j["question_id"] = q.id;
  j["category"] = q.category;
  j["pred"] = q.found ? io::Json(std::string(1, q.found.letter)) : io::Json();
  j["level"] = q.found ? io::Json(q.found.level) : io::Json();
  j["guess"] = v.guess ? io::Json(*v.guess) : io::Json();
  j["correct"] = v.correct;
  return j;
}

/// Writes replay.jsonl and summary.json.
inline void write_replay(const Replay& r, const MmluProRule& rule,
                         const std::filesystem::path& folder) {
  std::string lines;
  for (std::size_t i = 0; i < r.questions.size(); ++i) {
    lines += io::dump(to_json(r.questions[i], r.verdicts[i])) + '\n';
  }
  io::write_text(folder / "replay.jsonl", lines);
  io::write_text(folder / "summary.json", io::dump(to_json(r.score, rule), 2) + "\n");
}

}  // namespace espalier::eval
