// SPDX-License-Identifier: Apache-2.0
// A task as data: which columns make the prompt, and how the answer is counted. What ships
// (shipped_tasks.hpp) and a user's file have the same form:
//   {"name": "arc_easy", "version": "lm-eval-1.0",
//    "source": {"hub": "allenai/ai2_arc", "subset": "ARC-Easy", "split": "test"},
//    "files": ["arc_easy"],                   names of its file of rows, tried in this order
//    "prompt": "Question: {question}\nAnswer:",
//    "delimiter": " ",                        between a prompt and a choice; " " where not given
//    "choices": "{choices.text}",
//    "gold": {"find": "{answerKey}", "in": "{choices.label}"},
//    "metrics": ["acc", "acc_norm"]}
// Texts are templates (row_template.hpp). A task has one of three forms:
//   "choices"   decided by likelihood. A column that is a list, or a list of texts. `prompts` in
//   the
//               place of `prompt`, of the same form: one for each choice. `gold`: a column with the
//               position of the right choice (a number, true for 1, a letter where A is 0);
//               {"number": column, "first": 1}, where positions count from 1; {"find": column,
//               "in": list}; {"letter": column}; or absent, where there is one choice. `metrics`:
//               acc, acc_norm, acc_bytes, mc2 (which needs "truth", a list of 0 and 1), ppl.
//   "generate"  decided by what the model writes: {"stop": [...], "max_new_tokens": 256}. `target`
//               is the answer as a worked example has it. `metrics`: answer_rule.hpp.
//   "text"      the perplexity of a whole text, in windows of what the model takes. `measured`: the
//               text whose words and bytes count. `metrics`: word_perplexity, byte_perplexity,
//               bits_per_byte.
// `prompt_functions` are applied to each whole prompt. `description` stands once before the worked
// examples; `shots` is their number where the user gives none, `shot_order` "random" or "first".
// `by` names the part that a row belongs to, such as its subject: worked examples come from the
// same part, and each part has a result of its own; `groups` joins parts: {"stem": ["anatomy",
// ...]}. A task is named NAME@VERSION, so that numbers of different meaning never share a name.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/task_definition.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/eval/answer_rule.hpp>
#include <espalier/eval/row_template.hpp>

namespace espalier::eval {

/// Where the rows of a task come from, in the words of the hub.
struct TaskSource {
  std::string hub, subset, split;
};

/// Code points of a UTF-8 text.
[[nodiscard]] inline std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

/// What a row asks, and what is right.
struct Question {
  std::vector<std::string> contexts, continuations;  // one of either may serve all choices
  std::vector<std::string> choices;                  // as counted by acc_norm; empty for one choice
  std::size_t gold = 0;
  std::vector<bool> truth = {};  // of each choice, for mc2
  std::string target = {};       // of a generation the answer, of a text what is measured
  std::string description = {};  // stands before the worked examples
  std::string part = {};         // "anatomy"; empty where the task has no parts
  io::Json row = {};             // of a generation: what its rules read

  std::size_t size() const { return std::max(contexts.size(), continuations.size()); }
  const std::string& context(std::size_t i) const { return contexts[contexts.size() > 1 ? i : 0]; }
  const std::string& continuation(std::size_t i) const {
    return continuations[continuations.size() > 1 ? i : 0];
  }
  /// As an example for other questions.
  std::string solved() const { return context(gold) + continuation(gold); }
  /// Do both ask the same? Then neither may be an example for the other.
  friend bool operator==(const Question& a, const Question& b) {
    return a.contexts == b.contexts && a.continuations == b.continuations && a.gold == b.gold;
  }
};

enum class TaskForm { choices, generation, text };

/// How a generation ends.
struct GenerationLimits {
  std::vector<std::string> stop;
  int max_new_tokens = 256;
};

/// Parts whose questions are one group.
struct PartGroup {
  std::string name;
  std::vector<std::string> parts;
};

class TaskDefinition {
 public:
  /// @throws FormatError naming the key, also for one that is unknown
  explicit TaskDefinition(const io::Json& json);

  std::string id() const { return name + "@" + version; }
  /// Can the templates be filled from this row?
  [[nodiscard]] bool fits(const io::Json& row) const;
  /// @throws FormatError naming the row and the column
  [[nodiscard]] Question question(const io::Json& row) const;
  /// Why answers to this row cannot be judged, so that it is left out, or nothing.
  [[nodiscard]] std::string obstacle(const io::Json& row) const;

  std::string name, version;
  TaskSource source;
  std::vector<std::string> files;
  TaskForm form = TaskForm::choices;
  std::string delimiter = " ";
  std::vector<std::string> metrics;
  std::vector<AnswerRule> rules;  // of a generation
  GenerationLimits limits;        // of a generation
  int shots = 0;                  // where the user gives no number
  bool first_shots = false;       // the first worked examples, not random ones
  bool has_parts = false;
  std::vector<PartGroup> groups;
  std::string hash;  // of the whole definition

 private:
  /// One template for a list, or a template for each item.
  struct Texts {
    std::vector<RowTemplate> templates;
    bool is_list = false;
    std::vector<std::string> render(const io::Json& row) const;
  };
  enum class GoldForm { first, number, find, letter };

  Texts texts(const io::Json& value, const std::string& key) const;
  RowTemplate column(const io::Json& value, const std::string& key) const;
  RowTemplate list_column(const io::Json& value, const std::string& key) const;
  void read_source(const io::Json& json);
  void read_prompt(const io::Json& json);
  void read_shots(const io::Json& json);
  void read_choices(const io::Json& json);
  void read_generation(const io::Json& json);
  void read_text(const io::Json& json);
  void read_gold(const io::Json& gold);
  std::size_t gold_of(const io::Json& row, std::size_t choices) const;
  void fill_choices(const io::Json& row, Question& q) const;

  Texts prompts_, choices_;
  std::vector<std::string> prompt_functions_;
  GoldForm gold_form_ = GoldForm::first;
  RowTemplate description_, part_;
  RowTemplate gold_, gold_list_, truth_;
  RowTemplate target_;  // of a generation
  RowTemplate text_, measured_;
  std::int64_t gold_first_ = 0;
  bool has_truth_ = false;
};

}  // namespace espalier::eval

#ifdef ESP_BODIES
#include <espalier/io/fingerprint.hpp>

namespace espalier::eval {

ESP_INLINE std::vector<std::string> TaskDefinition::Texts::render(const io::Json& row) const {
  if (is_list) return templates[0].render_list(row);
  std::vector<std::string> out;
  for (const RowTemplate& t : templates) out.push_back(t.render(row));
  return out;
}

ESP_INLINE TaskDefinition::Texts TaskDefinition::texts(const io::Json& value,
                                                       const std::string& key) const {
  Texts t;
  t.is_list = !value.is_array();
  if (t.is_list) {
    t.templates.push_back(list_column(value, key));
    return t;
  }
  for (const io::Json& item : value.items()) t.templates.push_back(column(item, key));
  ESP_REQUIRE(!t.templates.empty(), FormatError, value.where(), ": an empty list");
  return t;
}

ESP_INLINE RowTemplate TaskDefinition::column(const io::Json& value, const std::string& key) const {
  return RowTemplate(value.as_string(), name + ": " + key);
}

ESP_INLINE RowTemplate TaskDefinition::list_column(const io::Json& value,
                                                   const std::string& key) const {
  RowTemplate t = column(value, key);
  ESP_REQUIRE(t.is_placeholder(), FormatError, value.where(),
              ": expected a list of texts, or one column that is a list");
  return t;
}

namespace detail {

inline void require_task_keys(const io::Json& json) {
  static constexpr std::string_view kKeys[] = {
      "name",   "version", "source",  "files",       "prompt",   "prompts",   "prompt_functions",
      "shots",  "choices", "gold",    "truth",       "by",       "groups",    "shot_order",
      "target", "text",    "metrics", "description", "measured", "delimiter", "generate"};
  for (const io::Json::Member& m : json.members()) {
    ESP_REQUIRE(std::find(std::begin(kKeys), std::end(kKeys), m.key) != std::end(kKeys),
                FormatError, json.where(), ": \"", m.key, "\" is no key of a task");
  }
}

inline std::vector<std::string> strings_of(const io::Json& list) {
  std::vector<std::string> out;
  for (const io::Json& item : list.items()) out.push_back(item.as_string());
  return out;
}

/// Names of metrics, each among those that the form has.
inline std::vector<std::string> metrics_of(const io::Json& list,
                                           std::initializer_list<std::string_view> known) {
  std::vector<std::string> out;
  for (const io::Json& metric : list.items()) {
    out.push_back(metric.as_string());
    if (std::find(known.begin(), known.end(), out.back()) != known.end()) continue;
    std::string names;
    for (const std::string_view name : known) {
      names += (names.empty() ? "" : ", ") + std::string(name);
    }
    throw FormatError(espalier::detail::concat(
        {metric.where(), ": \"", out.back(), "\" is no metric; there are ", names}));
  }
  return out;
}

}  // namespace detail

ESP_INLINE TaskDefinition::TaskDefinition(const io::Json& json) {
  detail::require_task_keys(json);
  name = json.at("name").as_string();
  version = json.at("version").as_string();
  read_source(json);
  read_shots(json);
  if (json.find("generate") != nullptr) {
    read_prompt(json);
    read_generation(json);
  } else if (json.find("text") != nullptr) {
    read_text(json);
  } else {
    read_prompt(json);
    read_choices(json);
  }
  hash = io::Fingerprint().add(io::dump(json)).text();
}

ESP_INLINE void TaskDefinition::read_source(const io::Json& json) {
  if (const io::Json* from = json.find("source")) {
    source.hub = from->at("hub").as_string();
    if (const io::Json* subset = from->find("subset")) source.subset = subset->as_string();
    if (const io::Json* split = from->find("split")) source.split = split->as_string();
  }
  const io::Json* list = json.find("files");
  files = list != nullptr ? detail::strings_of(*list) : std::vector<std::string>{name};
  ESP_REQUIRE(!files.empty(), FormatError, json.where(), ": \"files\" is an empty list");
  if (const io::Json* part = json.find("by")) {
    part_ = column(*part, "by");
    has_parts = true;
  }
  if (const io::Json* joined = json.find("groups")) {
    for (const io::Json::Member& g : joined->members()) {
      groups.push_back({g.key, detail::strings_of(g.value)});
    }
  }
}

ESP_INLINE void TaskDefinition::read_shots(const io::Json& json) {
  if (const io::Json* text = json.find("description")) description_ = column(*text, "description");
  if (const io::Json* count = json.find("shots")) {
    const std::int64_t n = count->as_int();
    ESP_REQUIRE(n >= 0 && n <= 1000, FormatError, count->where(), ": ", n,
                " worked examples, expected 0 to 1000");
    shots = static_cast<int>(n);
  }
  if (const io::Json* order = json.find("shot_order")) {
    first_shots = order->as_string() == "first";
    ESP_REQUIRE(first_shots || order->as_string() == "random", FormatError, order->where(), ": \"",
                order->as_string(), "\", expected \"first\" or \"random\"");
  }
}

ESP_INLINE void TaskDefinition::read_prompt(const io::Json& json) {
  if (const io::Json* between = json.find("delimiter")) delimiter = between->as_string();
  if (const io::Json* list = json.find("prompts")) {
    prompts_ = texts(*list, "prompts");
  } else {
    prompts_.templates = {column(json.at("prompt"), "prompt")};
  }
  if (const io::Json* list = json.find("prompt_functions")) {
    for (const io::Json& f : list->items()) {
      prompt_functions_.push_back(f.as_string());
      ESP_REQUIRE(detail::text_function(f.as_string()) != nullptr, FormatError, f.where(), ": \"",
                  f.as_string(), "\" is no known function");
    }
  }
}

ESP_INLINE void TaskDefinition::read_choices(const io::Json& json) {
  form = TaskForm::choices;
  choices_ = texts(json.at("choices"), "choices");
  if (const io::Json* gold = json.find("gold")) read_gold(*gold);
  metrics = detail::metrics_of(json.at("metrics"), {"acc", "acc_norm", "acc_bytes", "mc2", "ppl"});
  if (const io::Json* truth = json.find("truth")) {
    truth_ = list_column(*truth, "truth");
    has_truth_ = true;
  }
}

ESP_INLINE void TaskDefinition::read_generation(const io::Json& json) {
  form = TaskForm::generation;
  ESP_REQUIRE(!prompts_.is_list && prompts_.templates.size() == 1, FormatError, json.where(),
              ": a task that generates has one prompt");
  if (const io::Json* target = json.find("target")) target_ = column(*target, "target");
  const io::Json& generate = json.at("generate");
  if (const io::Json* stop = generate.find("stop")) limits.stop = detail::strings_of(*stop);
  if (const io::Json* most = generate.find("max_new_tokens")) {
    const std::int64_t n = most->as_int();
    ESP_REQUIRE(n > 0 && n <= 1 << 24, FormatError, most->where(), ": ", n,
                " new tokens, expected 1 to 16777216");
    limits.max_new_tokens = static_cast<int>(n);
  }
  for (const io::Json& rule : json.at("metrics").items()) {
    rules.emplace_back(rule);
    for (const std::string& metric : rules.back().metrics()) metrics.push_back(metric);
  }
}

ESP_INLINE void TaskDefinition::read_text(const io::Json& json) {
  form = TaskForm::text;
  text_ = column(json.at("text"), "text");
  const io::Json* measured = json.find("measured");
  measured_ = measured != nullptr ? column(*measured, "measured") : text_;
  metrics = detail::metrics_of(json.at("metrics"),
                               {"word_perplexity", "byte_perplexity", "bits_per_byte"});
}

ESP_INLINE void TaskDefinition::read_gold(const io::Json& gold) {
  gold_form_ = GoldForm::number;
  if (gold.is_string()) {
    gold_ = column(gold, "gold");
  } else if (const io::Json* number = gold.find("number")) {
    gold_ = column(*number, "gold");
    gold_first_ = gold.at("first").as_int();
  } else if (const io::Json* letter = gold.find("letter")) {
    gold_form_ = GoldForm::letter;
    gold_ = column(*letter, "gold");
  } else {
    gold_form_ = GoldForm::find;
    gold_ = column(gold.at("find"), "gold");
    gold_list_ = list_column(gold.at("in"), "gold");
  }
}

ESP_INLINE bool TaskDefinition::fits(const io::Json& row) const {
  try {
    (void)question(row);
    return true;
  } catch (const FormatError&) {
    return false;
  }
}

ESP_INLINE std::size_t TaskDefinition::gold_of(const io::Json& row, std::size_t choices) const {
  if (gold_form_ == GoldForm::first) return 0;
  std::int64_t gold = -1;
  if (gold_form_ == GoldForm::find) {
    const std::vector<std::string> labels = gold_list_.render_list(row);
    const auto at = std::find(labels.begin(), labels.end(), gold_.render(row));
    gold = at == labels.end() ? -1 : at - labels.begin();
  } else if (gold_form_ == GoldForm::letter) {
    const std::string letter = gold_.render(row);
    gold = letter.size() == 1 ? letter[0] - 'A' : -1;
  } else if (gold_.is_placeholder() && gold_.value(row).is_bool()) {
    gold = gold_.value(row).as_bool() ? 1 : 0;
  } else {
    const std::string text = gold_.render(row);
    if (!text.empty() && text.size() < 10 &&
        text.find_first_not_of("0123456789") == std::string::npos) {
      gold = std::stoll(text) - gold_first_;
    } else if (text.size() == 1) {
      gold = text[0] - 'A';
    }
  }
  ESP_REQUIRE(gold >= 0 && static_cast<std::size_t>(gold) < choices, FormatError, row.where(), ": ",
              name, ": the right answer is none of the ", choices, " choices");
  return static_cast<std::size_t>(gold);
}

ESP_INLINE std::string TaskDefinition::obstacle(const io::Json& row) const {
  for (const AnswerRule& rule : rules) {
    std::string why = rule.obstacle(row);
    if (!why.empty()) return why;
  }
  return {};
}

ESP_INLINE Question TaskDefinition::question(const io::Json& row) const {
  Question q;
  if (has_parts) q.part = part_.render(row);
  q.description = description_.render(row);
  if (form == TaskForm::text) {
    q.continuations = {text_.render(row)};
    q.target = measured_.render(row);
    return q;
  }
  q.contexts = prompts_.render(row);
  for (std::string& context : q.contexts) {
    for (const std::string& f : prompt_functions_) context = detail::text_function(f)(context, "");
  }
  if (form == TaskForm::choices) {
    fill_choices(row, q);
    return q;
  }
  q.target = target_.render(row);
  q.continuations = {delimiter + q.target};
  q.row = row;
  return q;
}

ESP_INLINE void TaskDefinition::fill_choices(const io::Json& row, Question& q) const {
  const std::vector<std::string> choices = choices_.render(row);
  const std::size_t count = std::max(q.contexts.size(), choices.size());
  const auto fits_count = [&](std::size_t n) { return n == 1 || n == count; };
  ESP_REQUIRE(count > 0 && fits_count(q.contexts.size()) && fits_count(choices.size()), FormatError,
              row.where(), ": ", name, ": ", q.contexts.size(), " prompts and ", choices.size(),
              " choices; expected as many, or one of either");
  for (const std::string& choice : choices) {
    ESP_REQUIRE(!choice.empty(), FormatError, row.where(), ": ", name, ": an empty choice");
    q.continuations.push_back(delimiter + choice);
  }
  if (choices.size() > 1) q.choices = choices;
  q.gold = gold_of(row, count);
  if (!has_truth_) return;
  for (const std::string& label : truth_.render_list(row)) q.truth.push_back(label == "1");
  ESP_REQUIRE(q.truth.size() == count, FormatError, row.where(), ": ", name, ": ", count,
              " choices, but ", q.truth.size(), " of them are called true or false");
}

}  // namespace espalier::eval
#endif
