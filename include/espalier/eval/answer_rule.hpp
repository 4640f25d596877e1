// SPDX-License-Identifier: Apache-2.0
// How a generated answer counts, as a task's definition says it:
//   {"name": "strict-match",
//    "filters": [{"function": "regex", "pattern": "#### (\\-?[0-9\\.\\,]+)", "group": 0}],
//    "measure": "exact_match", "ignore": [",", "\\$"], "ignore_case": true}
// `filters` are those of metrics/answer_filter.hpp; their other keys are their arguments, a list
// gives one several times. The metric is called MEASURE,NAME as in lm-evaluation-harness, or
// MEASURE where there is no name. Measures (`measures()` lists them):
//   exact_match   equal texts, without what `ignore` (patterns), `ignore_case`,
//                 `ignore_punctuation` and `ignore_numbers` leave out
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/answer_rule.hpp is host-only; include it from a .cpp"
#endif

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <espalier/eval/metrics/answer_filter.hpp>
#include <espalier/io/json.hpp>

namespace espalier::eval {

/// What one metric found in one answer: one value, or one for each instruction that was given.
struct MetricValues {
  std::string metric;
  std::vector<double> values;
};

class AnswerRule {
 public:
  /// @throws FormatError naming the key, also for one that is unknown
  explicit AnswerRule(const io::Json& json);

  const std::vector<std::string>& metrics() const { return metrics_; }
  /// Why the measure cannot judge answers to this row, or nothing.
  [[nodiscard]] std::string obstacle(const io::Json& row) const;
  /// What the filters leave of an answer.
  [[nodiscard]] std::string prediction(const std::string& answer) const;
  /// @param target the right answer; @param row of the question, for measures that read it
  [[nodiscard]] std::vector<MetricValues> judge(const std::string& answer,
                                                const std::string& target,
                                                const io::Json& row) const;

 private:
  /// The values of each metric, from prediction, target and row.
  using Measure = std::function<std::vector<std::vector<double>>(
      const std::string&, const std::string&, const io::Json&)>;
  void read_measure(const io::Json& json);

  std::vector<metrics::AnswerFilter> filters_;
  std::vector<std::string> metrics_;
  Measure measure_;
  bool instructions_ = false;
};

}  // namespace espalier::eval

#ifdef ESP_BODIES
#include <algorithm>

#include <espalier/eval/metrics/exact_match.hpp>
#include <espalier/eval/metrics/instructions.hpp>
#include <espalier/eval/metrics/named_metrics.hpp>

namespace espalier::eval {

namespace detail {

/// "true", "-1" or the text itself, as filters take their arguments.
inline std::string argument_text(const io::Json& value) {
  return value.is_string() ? value.as_string() : io::dump(value);
}

inline metrics::AnswerFilter filter_of(const io::Json& json) {
  metrics::AnswerFilter::Arguments arguments;
  for (const io::Json::Member& m : json.members()) {
    if (m.key == "function") continue;
    if (!m.value.is_array()) {
      arguments.emplace_back(m.key, argument_text(m.value));
      continue;
    }
    for (const io::Json& item : m.value.items()) {
      arguments.emplace_back(m.key, argument_text(item));
    }
  }
  return metrics::AnswerFilter::parse(json.at("function").as_string(), arguments, json.where());
}

inline metrics::ExactMatchOptions exact_match_options(const io::Json& json) {
  metrics::ExactMatchOptions options;
  if (const io::Json* list = json.find("ignore")) {
    for (const io::Json& pattern : list->items()) {
      options.regexes_to_ignore.push_back(pattern.as_string());
    }
  }
  const auto flag = [&](const char* key) {
    const io::Json* value = json.find(key);
    return value != nullptr && value->as_bool();
  };
  options.ignore_case = flag("ignore_case");
  options.ignore_punctuation = flag("ignore_punctuation");
  options.ignore_numbers = flag("ignore_numbers");
  return options;
}

inline std::vector<std::string> instructions_of(const io::Json& row) {
  std::vector<std::string> ids;
  for (const io::Json& id : row.at("instruction_id_list").items()) ids.push_back(id.as_string());
  return ids;
}

/// One value for the prompt, one for each instruction; strict, then loose.
inline std::vector<std::vector<double>> judge_instructions(const std::string& answer,
                                                           const io::Json& row) {
  const metrics::FollowedInstructions followed =
      metrics::follow_instructions(instructions_of(row), row.at("kwargs"), answer);
  std::vector<std::vector<double>> values;
  for (const std::vector<bool>& one : {followed.strict, followed.loose}) {
    const bool all = std::find(one.begin(), one.end(), false) == one.end();
    values.push_back({all ? 1.0 : 0.0});
    values.emplace_back(one.begin(), one.end());
  }
  return values;
}

inline std::vector<std::vector<double>> values_of(const metrics::NamedScores& scores) {
  std::vector<std::vector<double>> values;
  for (const auto& [name, score] : scores) values.push_back({score});
  return values;
}

}  // namespace detail

ESP_INLINE AnswerRule::AnswerRule(const io::Json& json) {
  static constexpr std::string_view kKeys[] = {"name",          "filters",     "measure",
                                               "ignore",        "ignore_case", "ignore_punctuation",
                                               "ignore_numbers"};
  for (const io::Json::Member& m : json.members()) {
    ESP_REQUIRE(std::find(std::begin(kKeys), std::end(kKeys), m.key) != std::end(kKeys),
                FormatError, json.where(), ": \"", m.key, "\" is no key of a metric");
  }
  if (const io::Json* list = json.find("filters")) {
    for (const io::Json& filter : list->items()) filters_.push_back(detail::filter_of(filter));
  }
  read_measure(json);
  if (const io::Json* name = json.find("name")) {
    for (std::string& metric : metrics_) metric += "," + name->as_string();
  }
}

ESP_INLINE void AnswerRule::read_measure(const io::Json& json) {
  const std::string measure = json.at("measure").as_string();
  metrics_ = {measure};
  if (measure == "exact_match") {
    measure_ = [match = metrics::ExactMatch(detail::exact_match_options(json), json.where())](
                   const std::string& prediction, const std::string& target, const io::Json&) {
      return std::vector<std::vector<double>>{{match(prediction, target)}};
    };
    return;
  }
  if (measure == "instructions") {
    instructions_ = true;
    metrics_ = {"prompt_level_strict_acc", "inst_level_strict_acc", "prompt_level_loose_acc",
                "inst_level_loose_acc"};
    measure_ = [](const std::string& prediction, const std::string&, const io::Json& row) {
      return detail::judge_instructions(prediction, row);
    };
    return;
  }
  const metrics::AnswerMetric metric =
      metrics::find_answer_metric(measure, json.at("measure").where());
  measure_ = [metric](const std::string& prediction, const std::string& target, const io::Json&) {
    return detail::values_of(metric.scores({{target}, {prediction}}));
  };
  metrics_.clear();  // a metric tells the names of its scores with them
  for (const auto& [name, score] : metric.scores({{"1"}, {"1"}})) metrics_.push_back(name);
}

ESP_INLINE std::string AnswerRule::obstacle(const io::Json& row) const {
  if (!instructions_) return {};
  for (const std::string& id : detail::instructions_of(row)) {
    if (!metrics::is_checked_instruction(id)) return id + " is not checked";
  }
  return {};
}

ESP_INLINE std::string AnswerRule::prediction(const std::string& answer) const {
  const metrics::AnswerFilter::Responses found = metrics::apply_filters(filters_, {answer});
  return found.empty() ? std::string() : found[0];
}

ESP_INLINE std::vector<MetricValues> AnswerRule::judge(const std::string& answer,
                                                       const std::string& target,
                                                       const io::Json& row) const {
  std::vector<std::vector<double>> values = measure_(prediction(answer), target, row);
  std::vector<MetricValues> out;
  for (std::size_t i = 0; i < metrics_.size(); ++i) {
    out.push_back({metrics_[i], std::move(values[i])});
  }
  return out;
}

}  // namespace espalier::eval
#endif
