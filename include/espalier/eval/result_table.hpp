// SPDX-License-Identifier: Apache-2.0
// Reads results of several evaluations for comparison: folders that `evaluate` wrote (tasks or
// replays), and results files of LightEval and of lm-evaluation-harness. What was asked otherwise
// (shots, number of questions, definition or rule) is never one column.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/result_table.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>

#include <espalier/eval/statistics.hpp>
#include <espalier/io/json.hpp>

namespace espalier::eval {

struct ResultMetric {
  std::string task, name;
  Estimate estimate;
  std::string setting = {};  // behind the task's name, where it was not asked alike everywhere
};

/// How a task was asked; unknown where a file does not say.
struct TaskSetting {
  std::string shots, definition;  // "25"; "arc_easy@lm-eval-1.0", or the rule of mmlu_pro
  std::int64_t questions = 0;     // 0: unknown
  std::string prompt_form = {};   // of the chat template

  friend bool operator==(const TaskSetting&, const TaskSetting&) = default;
  /// Could both be the same, as far as they are known?
  bool agrees_with(const TaskSetting& other) const {
    const auto same = [](const auto& a, const auto& b, const auto& unknown) {
      return a == b || a == unknown || b == unknown;
    };
    const std::string none;
    return same(shots, other.shots, none) && same(definition, other.definition, none) &&
           same(questions, other.questions, 0) && same(prompt_form, other.prompt_form, none);
  }
};

struct Result {
  std::filesystem::path folder;  // with journals; empty: none
  std::string label;             // the folder's name
  std::string model;             // its name in the evaluation
  std::int64_t experts = 0;      // per layer; 0: unknown
  std::string criterion;         // of pruning; empty: not pruned, or unknown
  std::string dtype;             // computed in; empty: unknown
  std::int64_t bytes = 0;        // of its weights; 0: unknown
  std::vector<ResultMetric> metrics;
  std::map<std::string, TaskSetting> settings;  // by task
  io::Json mmlu_pro;                            // the summary of that task, else null

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

inline std::string text_or_empty(const io::Json* j) {
  return j != nullptr && j->is_string() ? j->as_string() : std::string();
}
inline std::int64_t count_or_zero(const io::Json* j) {
  return j != nullptr && j->is_integer() ? j->as_int() : 0;
}

inline void add_mmlu_pro(Result& r, const io::Json& summary) {
  for (const char* name : {"accuracy", "strict_accuracy", "macro"}) {
    add_metric(r, "mmlu_pro", summary, name);
  }
  r.settings["mmlu_pro"] = {"", "rule " + text_or_empty(summary.find("rule")),
                            count_or_zero(summary.find("records")), ""};
  r.mmlu_pro = summary;
}

/// Adds every number that has a standard error beside it; others describe the task.
inline void add_task(Result& r, const std::string& task, const io::Json& values) {
  for (const io::Json::Member& m : values.members()) {
    if (values.find(m.key + "_stderr") != nullptr) add_metric(r, task, values, m.key);
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
  r.dtype = text_or_empty(model.find("dtype"));
  r.bytes = count_or_zero(model.find("weight_bytes"));
  if (const io::Json* pruning = model.find_value("pruning")) {
    const io::Json* criterion = pruning->find_value("criterion");
    r.criterion = criterion != nullptr && criterion->is_string() ? criterion->as_string() : "plan";
  }
  for (const io::Json::Member& task : summary.at("tasks").members()) {
    if (task.key == "mmlu_pro") {
      add_mmlu_pro(r, task.value);
      continue;
    }
    add_task(r, task.key, task.value);
    const io::Json* shots = task.value.find("shots");
    r.settings[task.key] = {
        shots != nullptr ? io::dump(*shots) : "", text_or_empty(task.value.find("id")),
        count_or_zero(task.value.find("documents")), text_or_empty(task.value.find("prompt_form"))};
  }
}

/// The value at keys one below the other, or null.
inline const io::Json* value_below(const io::Json& j, std::initializer_list<std::string> keys) {
  const io::Json* at = &j;
  for (const std::string& key : keys) {
    at = at->is_object() ? at->find(key) : nullptr;
    if (at == nullptr) return nullptr;
  }
  return at;
}

inline void read_lighteval(Result& r, const io::Json& file) {
  if (const io::Json* general = file.find_value("config_general")) {
    if (const io::Json* name = general->find_value("model_name")) r.model = name->as_string();
    if (const io::Json* config = general->find_value("model_config")) {
      r.dtype = text_or_empty(config->find("dtype"));
    }
  }
  const io::Json& results = file.at("results");
  for (const io::Json::Member& task : results.members()) {
    const std::size_t bar = std::min(task.key.rfind('|'), task.key.size());
    const std::string name = task.key.substr(0, bar);
    if (task.key == "all" || name.ends_with(":_average")) continue;
    const std::string shots = bar < task.key.size() ? task.key.substr(bar + 1) : "";
    // The same task with other shots: both stay.
    const bool again = r.settings.count(name) > 0;
    const std::string own = again ? task.key : name;
    add_task(r, own, task.value);
    r.settings[own] = {
        shots, text_or_empty(value_below(file, {"config_tasks", task.key, "definition"})),
        count_or_zero(value_below(file, {"config_tasks", task.key, "effective_num_docs"})), ""};
  }
}

/// lm-evaluation-harness: "acc,none" with its error "acc_stderr,none".
inline void read_lm_eval(Result& r, const io::Json& file) {
  r.model = text_or_empty(file.find("model_name"));
  r.dtype = text_or_empty(value_below(file, {"config", "model_dtype"}));
  for (const io::Json::Member& task : file.at("results").members()) {
    if (!task.value.is_object()) continue;
    for (const io::Json::Member& m : task.value.members()) {
      const std::size_t comma = m.key.find(',');
      if (comma == m.key.npos || !m.value.is_number()) continue;
      const std::string metric = m.key.substr(0, comma), filter = m.key.substr(comma);
      if (metric.ends_with("_stderr")) continue;
      r.metrics.push_back(
          {task.key,
           filter == ",none" ? metric : m.key,
           {m.value.as_double(), number_or_nan(task.value.find(metric + "_stderr" + filter))}});
    }
    const io::Json* shots = value_below(file, {"n-shot", task.key});
    const io::Json* version = value_below(file, {"versions", task.key});
    r.settings[task.key] = {shots != nullptr ? io::dump(*shots) : "",
                            version != nullptr ? "lm-eval version " + io::dump(*version) : "",
                            count_or_zero(value_below(file, {"n-samples", task.key, "effective"})),
                            ""};
  }
}

/// The file with the latest date in its name, wherever it lies.
inline std::optional<std::filesystem::path> newest_results_file(
    const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& e : std::filesystem::recursive_directory_iterator(folder)) {
    const std::string name = e.path().filename().string();
    if (name.starts_with("results") && name.ends_with(".json")) files.push_back(e.path());
  }
  if (files.empty()) return std::nullopt;
  return *std::max_element(files.begin(), files.end(), [](const auto& a, const auto& b) {
    return std::pair(a.filename(), a) < std::pair(b.filename(), b);
  });
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
    r.folder = at;
    if (!fs::exists(file)) {
      const auto found = detail::newest_results_file(at);
      ESP_REQUIRE(found.has_value(), IoError, at.string(),
                  ": no results in this folder; expected summary.json as evaluate writes it, or "
                  "results_*.json of LightEval or lm-evaluation-harness");
      file = *found;
    }
  }
  const io::Json content = io::read_json(file);
  ESP_REQUIRE(content.is_object(), FormatError, file.string(), ": expected an object, found ",
              content.kind_name());
  if (content.find("n-shot") != nullptr || content.find("lm_eval_version") != nullptr) {
    detail::read_lm_eval(r, content);
  } else if (content.find("results") != nullptr) {
    detail::read_lighteval(r, content);
  } else {
    detail::read_summary(r, content);
  }
  if (r.model.empty()) r.model = r.label;
  ESP_REQUIRE(!r.metrics.empty(), FormatError, file.string(), ": no metric in it");
  return r;
}

/// Renames tasks that were not asked alike in all results, so that they do not share a column:
/// "arc:easy|25 (n=100)". Returns a sentence for each such task.
[[nodiscard]] std::vector<std::string> tell_tasks_apart(std::vector<Result>& results);

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

#ifdef ESP_BODIES
namespace espalier::eval {

namespace detail {

/// What tells the settings of a task apart, behind its name.
inline std::string setting_text(const TaskSetting& s, const std::vector<TaskSetting>& all) {
  const auto differ = [&](auto member) {
    return std::any_of(all.begin(), all.end(),
                       [&](const TaskSetting& other) { return other.*member != s.*member; });
  };
  std::string text;
  if (differ(&TaskSetting::shots)) text += "|" + (s.shots.empty() ? "?" : s.shots);
  std::string more;
  const auto add = [&](const std::string& part) { more += (more.empty() ? "" : ", ") + part; };
  if (differ(&TaskSetting::questions)) {
    add("n=" + (s.questions > 0 ? std::to_string(s.questions) : std::string("?")));
  }
  if (differ(&TaskSetting::definition)) add(s.definition.empty() ? "?" : s.definition);
  if (differ(&TaskSetting::prompt_form)) {
    add(s.prompt_form.empty() ? "?" : "chat template " + s.prompt_form);
  }
  return more.empty() ? text : text + " (" + more + ")";
}

}  // namespace detail

ESP_INLINE std::vector<std::string> tell_tasks_apart(std::vector<Result>& results) {
  std::map<std::string, std::vector<TaskSetting>> settings;
  const auto plain = [](const std::string& task) { return task.substr(0, task.rfind('|')); };
  for (const Result& r : results) {
    for (const auto& [task, setting] : r.settings) {
      std::vector<TaskSetting>& all = settings[plain(task)];
      if (std::find(all.begin(), all.end(), setting) == all.end()) all.push_back(setting);
    }
  }
  std::vector<std::string> notes;
  for (const auto& [task, all] : settings) {
    const bool alike = std::all_of(all.begin(), all.end(), [&, &all = all](const TaskSetting& a) {
      return std::all_of(all.begin(), all.end(),
                         [&](const TaskSetting& b) { return a.agrees_with(b); });
    });
    if (alike) continue;
    std::string names;
    for (Result& r : results) {
      for (ResultMetric& m : r.metrics) {
        if (plain(m.task) != task) continue;
        m.setting = detail::setting_text(r.settings.at(m.task), all);
      }
    }
    for (const TaskSetting& s : all) {
      names += (names.empty() ? "" : "; ") + task + detail::setting_text(s, all);
    }
    notes.push_back(task + " was not asked alike, so it has several columns: " + names);
  }
  for (Result& r : results) {
    for (ResultMetric& m : r.metrics) {
      if (!m.setting.empty()) m.task = plain(m.task) + m.setting;
    }
  }
  return notes;
}

}  // namespace espalier::eval
#endif
