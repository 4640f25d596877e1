// SPDX-License-Identifier: Apache-2.0
// Finds the definition and the rows of a task by its name.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/task_files.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <espalier/eval/task_definition.hpp>
#include <espalier/eval/task_rows.hpp>

namespace espalier::eval {

struct TaskData {
  TaskDefinition definition;
  std::vector<Question> questions;
  std::vector<Question> shots = {};  // worked examples; where empty, the questions serve
  std::map<std::string, std::size_t> left_out = {};  // rows whose answers cannot be judged, by why
};

/// The definitions that ship, by name and version.
[[nodiscard]] std::vector<TaskDefinition> shipped_tasks();

/// Definitions in a file: an object, or a list of objects.
/// @throws FormatError, IoError
[[nodiscard]] std::vector<TaskDefinition> read_tasks(const std::filesystem::path& path);

/// The rows of files (task_rows.hpp), by the first of the definitions that fits their first row.
/// @throws FormatError naming the row and the column
[[nodiscard]] TaskData load_questions(const std::vector<std::filesystem::path>& files,
                                      const std::vector<TaskDefinition>& candidates);

/// The forms that rows of one's own may have (shipped_tasks.hpp).
[[nodiscard]] std::vector<TaskDefinition> own_forms();

/// @param task a name ("arc_easy", or LightEval's spelling "arc:easy"), with "@VERSION" for one
/// version only; or the path of a definition, NAME.json; or the name of a file of one's own rows
/// @param data where the rows lie (task_rows.hpp); worked examples are taken from the split train,
/// validation or dev beside them, where there is one
/// @throws UsageError for an unknown task, naming all; IoError for missing rows, with the command
/// that exports them
[[nodiscard]] TaskData load_task(const std::string& task, const std::filesystem::path& data);

}  // namespace espalier::eval

#ifdef ESP_BODIES
#include <optional>

#include <espalier/eval/shipped_tasks.hpp>

namespace espalier::eval {

namespace detail {

inline std::vector<TaskDefinition> definitions_in(const io::Json& json) {
  std::vector<TaskDefinition> all;
  if (json.is_object()) {
    all.emplace_back(json);
  } else {
    for (const io::Json& item : json.items()) all.emplace_back(item);
  }
  return all;
}

/// Definitions that a task's name means.
inline std::vector<TaskDefinition> definitions_of(const std::string& task) {
  if (task.ends_with(".json")) return read_tasks(task);
  const std::size_t at = std::min(task.find('@'), task.size());
  std::string name = task.substr(0, at);
  std::replace(name.begin(), name.end(), ':', '_');
  const std::string version = at < task.size() ? task.substr(at + 1) : std::string();
  std::vector<TaskDefinition> found;
  for (TaskDefinition& d : shipped_tasks()) {
    const bool named = d.name == name || std::count(d.files.begin(), d.files.end(), name) > 0;
    if (named && (version.empty() || d.version == version)) found.push_back(std::move(d));
  }
  return found;
}

/// The splits that hold a task's questions, in the order of preference.
inline std::vector<std::string> question_splits(const TaskDefinition& d) {
  std::vector<std::string> splits = {""};
  if (!d.source.split.empty()) splits.push_back(d.source.split);
  for (const char* split : {"test", "validation"}) {
    if (split != d.source.split) splits.push_back(split);
  }
  return splits;
}

/// A task's questions, and its worked examples. MMLU's stand in "dev", and "validation" has other
/// questions; what ships says so by the order of files there.
inline TaskData with_shots(const std::filesystem::path& data, const std::vector<std::string>& names,
                           const std::vector<std::filesystem::path>& rows,
                           const std::vector<TaskDefinition>& candidates) {
  TaskData task = load_questions(rows, candidates);
  const std::vector<std::string> splits =
      task.definition.first_shots ? std::vector<std::string>{"dev", "validation", "train"}
                                  : std::vector<std::string>{"train", "validation", "dev"};
  const auto shots = find_rows(data, names, splits);
  if (!shots.empty() && shots != rows) task.shots = load_questions(shots, candidates).questions;
  return task;
}

inline std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& w : words) text += (text.empty() ? "" : ", ") + w;
  return text.empty() ? "none" : text;
}

/// Names of files of rows that no shipped task has.
inline std::vector<std::string> own_files(const std::filesystem::path& data) {
  std::vector<std::string> names;
  for (const std::filesystem::path& folder : {data, data / "multiple_choice"}) {
    std::error_code ignored;
    for (const auto& e : std::filesystem::directory_iterator(folder, ignored)) {
      const std::string stem = e.path().stem().string();
      if (holds_rows(e.path()) && definitions_of(stem).empty()) names.push_back(stem);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline void refuse_unknown(const std::string& task, const std::filesystem::path& data) {
  std::vector<std::string> names;
  for (const TaskDefinition& d : shipped_tasks()) {
    if (std::count(names.begin(), names.end(), d.name) == 0) names.push_back(d.name);
  }
  throw UsageError(
      espalier::detail::concat({"task ", task, ": no such task; there are mmlu_pro, loss, ",
                                join(names), ", files of your own in ", data.string(), ": ",
                                join(own_files(data)), ", and definitions, NAME.json"}));
}

inline void refuse_missing(const TaskDefinition& d, const std::filesystem::path& data) {
  const std::string file = (data / (d.files[0] + ".jsonl")).string();
  std::string how;
  if (!d.source.hub.empty()) {
    const std::string subset = d.source.subset.empty() ? "" : ", '" + d.source.subset + "'";
    how = "; it has the columns of " + d.source.hub +
          ", which this makes: python -c \"import datasets; " + "datasets.load_dataset('" +
          d.source.hub + "'" + subset + ", split='" + d.source.split + "').to_json('" + file +
          "')\"";
  }
  throw IoError(espalier::detail::concat({file, ": no such file, the rows of task ", d.name, how}));
}

}  // namespace detail

ESP_INLINE std::vector<TaskDefinition> shipped_tasks() {
  return detail::definitions_in(io::parse_json(kShippedTasks, "the tasks that ship"));
}

ESP_INLINE std::vector<TaskDefinition> read_tasks(const std::filesystem::path& path) {
  return detail::definitions_in(io::read_json(path));
}

ESP_INLINE TaskData load_questions(const std::vector<std::filesystem::path>& files,
                                   const std::vector<TaskDefinition>& candidates) {
  const TaskDefinition* definition = nullptr;
  std::vector<Question> questions;
  std::map<std::string, std::size_t> left_out;
  for_each_row(files, [&](const io::Json& row) {
    if (definition == nullptr) {
      const auto fitting = std::find_if(candidates.begin(), candidates.end(),
                                        [&](const TaskDefinition& d) { return d.fits(row); });
      definition = fitting != candidates.end() ? &*fitting : &candidates.at(0);
    }
    Question question = definition->question(row);
    const std::string why = definition->obstacle(row);
    if (why.empty()) questions.push_back(std::move(question));
    if (!why.empty()) ++left_out[why];
  });
  ESP_REQUIRE(definition != nullptr && !questions.empty(), FormatError, files.at(0).string(),
              ": no question in it");
  return {*definition, std::move(questions), {}, std::move(left_out)};
}

ESP_INLINE std::vector<TaskDefinition> own_forms() {
  return detail::definitions_in(io::parse_json(kOwnForms, "forms of rows"));
}

ESP_INLINE TaskData load_task(const std::string& task, const std::filesystem::path& data) {
  ESP_REQUIRE(!task.empty(), UsageError, "a task without a name");
  const std::vector<TaskDefinition> candidates = detail::definitions_of(task);
  if (candidates.empty()) {
    const bool plain = task.find_first_of("/@") == std::string::npos;
    const auto own =
        plain ? find_rows(data, {task}, {"", "test"}) : std::vector<std::filesystem::path>();
    if (own.empty()) detail::refuse_unknown(task, data);
    return detail::with_shots(data, {task}, own, own_forms());
  }
  for (const TaskDefinition& d : candidates) {
    const auto rows = find_rows(data, d.files, detail::question_splits(d));
    if (!rows.empty()) return detail::with_shots(data, d.files, rows, candidates);
  }
  detail::refuse_missing(candidates[0], data);
  return {candidates[0], {}};
}

}  // namespace espalier::eval
#endif
