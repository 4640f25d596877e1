// SPDX-License-Identifier: Apache-2.0
// Reads results of several evaluations for comparison: folders that `evaluate` wrote (tasks or
// replays), and results files of LightEval.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/result_table.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <filesystem>
#include <optional>

#include <espalier/eval/statistics.hpp>
#include <espalier/io/json.hpp>

namespace espalier::eval {

struct ResultMetric {
  std::string task, name;
  Estimate estimate;
};

struct Result {
  std::string label;         // the folder's name
  std::string model;         // its name in the evaluation
  std::int64_t experts = 0;  // per layer; 0: unknown
  std::string criterion;     // of pruning; empty: not pruned, or unknown
  std::vector<ResultMetric> metrics;
  io::Json mmlu_pro;  // the summary of that task, else null

  const Estimate* find(const std::string& task, const std::string& name) const {
    for (const ResultMetric& m : metrics) {
      if (m.task == task && m.name == name) return &m.estimate;
    }
    return nullptr;
  }
};

/// (task, metric) of each column of a table.
using MetricColumns = std::vector<std::pair<std::string, std::string>>;

/// The last component of a path, with or without a slash at its end.
[[nodiscard]] inline std::filesystem::path name_of_path(const std::filesystem::path& path) {
  const std::filesystem::path normal = path.lexically_normal();
  return normal.has_filename() ? normal.filename() : normal.parent_path().filename();
}

namespace detail {

inline double number_or_nan(const io::Json* j) {
  return j != nullptr && j->is_number() ? j->as_double() : std::numeric_limits<double>::quiet_NaN();
}

inline void add_metric(Result& r, const std::string& task, const io::Json& values,
                       const std::string& name) {
  const io::Json* value = values.find(name);
  if (value == nullptr || !value->is_number()) return;
  r.metrics.push_back(
      {task, name, {value->as_double(), number_or_nan(values.find(name + "_stderr"))}});
}

inline void add_mmlu_pro(Result& r, const io::Json& summary) {
  for (const char* name : {"accuracy", "strict_accuracy", "macro"}) {
    add_metric(r, "mmlu_pro", summary, name);
  }
  r.mmlu_pro = summary;
}

/// Adds every number with its standard error, except numbers that describe the task.
inline void add_task(Result& r, const std::string& task, const io::Json& values) {
  for (const io::Json::Member& m : values.members()) {
    if (m.key.ends_with("_stderr") || m.key == "shots" || m.key == "documents") continue;
    add_metric(r, task, values, m.key);
  }
}

inline void read_summary(Result& r, const io::Json& summary) {
  if (summary.find("rule") != nullptr) {  // a replay
    add_mmlu_pro(r, summary);
    return;
  }
  const io::Json& model = summary.at("model");
  r.model = model.at("name").as_string();
  r.experts = model.at("experts").as_int();
  if (const io::Json* pruning = model.find_value("pruning")) {
    const io::Json* criterion = pruning->find_value("criterion");
    r.criterion = criterion != nullptr && criterion->is_string() ? criterion->as_string() : "plan";
  }
  for (const io::Json::Member& task : summary.at("tasks").members()) {
    if (task.key == "mmlu_pro") {
      add_mmlu_pro(r, task.value);
    } else {
      add_task(r, task.key, task.value);
    }
  }
}

inline void read_lighteval(Result& r, const io::Json& file) {
  if (const io::Json* general = file.find_value("config_general")) {
    if (const io::Json* name = general->find_value("model_name")) r.model = name->as_string();
  }
  for (const io::Json::Member& task : file.at("results").members()) {
    if (task.key == "all") continue;
    add_task(r, task.key.substr(0, task.key.rfind('|')), task.value);
  }
}

inline std::optional<std::filesystem::path> newest_lighteval_file(
    const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& e : std::filesystem::recursive_directory_iterator(folder)) {
    const std::string name = e.path().filename().string();
    if (name.starts_with("results") && name.ends_with(".json")) files.push_back(e.path());
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) return std::nullopt;
  return files.back();
}

}  // namespace detail

/// @param at a folder of results, or one results file
[[nodiscard]] inline Result read_result(const std::filesystem::path& at) {
  namespace fs = std::filesystem;
  Result r;
  r.label = name_of_path(at).stem().string();
  fs::path file = at;
  if (fs::is_directory(at)) {
    r.label = name_of_path(at).string();
    file = at / "summary.json";
    if (!fs::exists(file)) {
      const auto found = detail::newest_lighteval_file(at);
      ESP_REQUIRE(found.has_value(), IoError, at.string(),
                  ": no results in this folder; expected summary.json as evaluate writes it, or "
                  "LightEval's results_*.json");
      file = *found;
    }
  }
  const io::Json content = io::read_json(file);
  ESP_REQUIRE(content.is_object(), FormatError, file.string(), ": expected an object, found ",
              content.kind_name());
  if (content.find("results") != nullptr) {
    detail::read_lighteval(r, content);
  } else {
    detail::read_summary(r, content);
  }
  if (r.model.empty()) r.model = r.label;
  ESP_REQUIRE(!r.metrics.empty(), FormatError, file.string(), ": no metric in it");
  return r;
}

/// Columns of a table over all results, in the order in which they first appear.
[[nodiscard]] inline MetricColumns metric_columns(const std::vector<Result>& results) {
  MetricColumns columns;
  for (const Result& r : results) {
    for (const ResultMetric& m : r.metrics) {
      const std::pair<std::string, std::string> column{m.task, m.name};
      if (std::find(columns.begin(), columns.end(), column) == columns.end()) {
        columns.push_back(column);
      }
    }
  }
  return columns;
}

}  // namespace espalier::eval
