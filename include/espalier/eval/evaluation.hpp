// SPDX-License-Identifier: Apache-2.0
// Evaluates a checkpoint: the work of the program evaluate, for programs of your own.
//   eval::Evaluation run({.model = "mixtral", .data = "data", .output = "results",
//                         .tasks = {"arc:easy", "lambada"}});
//   const io::Json summary = run.run_tasks();
// Each answer is written to a journal in the output folder at once. With `resume` a run continues
// from the journals, and leaves the same bytes as a run without an interruption.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/evaluation.hpp is host-only; include it from a .cpp"
#endif

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <espalier/eval/mmlu_pro.hpp>
#include <espalier/eval/prompts.hpp>
#include <espalier/infer/load_engine.hpp>
#include <espalier/io/atomic_folder.hpp>
#include <espalier/text/chat_tokenizer.hpp>

namespace espalier::eval {

struct EvaluationConfig {
  std::string model = {};    // checkpoint folder in Hugging Face layout
  std::string adapter = {};  // PEFT adapter folder; empty: none
  std::string data = {};     // folder with mmlu_pro/ and multiple_choice/
  std::string text = {};     // JSONL of the task "loss" (data/records.hpp)
  std::string output = {};   // folder for results and journals
  /// mmlu_pro, loss, or tasks by name, definition or file (task_files.hpp), such as arc:easy.
  std::vector<std::string> tasks = {};
  bool resume = false;

  std::int64_t limit = -1;                         // questions per task or part; -1: all
  int shots = -1;                                  // worked examples; -1: as the task says
  std::int64_t shots_seed = 1234;                  // which; lm-evaluation-harness's own
  std::string rule = "current", subjects = "all";  // of mmlu_pro
  int max_new_tokens = 0;                          // of an answer; 0: as the task says
  std::int64_t max_length = 0;  // 0: by the rule of mmlu_pro; for loss what the model takes
  /// The format of prompts: "auto" (the checkpoint's), "none", or a name. Empty: auto for loss,
  /// none for all others, which is how benchmarks are published.
  std::string chat_template = {};
  std::string system = {};      // a system message
  bool shots_as_turns = false;  // of the conversation

  infer::EngineOptions engine = {};
  /// Loads the model with an element type and a device; `dtype` and `device` name them in results.
  infer::LoadEngine load = infer::load_engine<float, Cpu>;
  std::string dtype = "f32", device = "cpu";
};

class Evaluation {
 public:
  /// Checks the tasks, loads the model, prepares the output folder. Reads and creates also what
  /// only the end of the run needs, since an error there would waste hours.
  /// @throws UsageError, FormatError, IoError
  explicit Evaluation(EvaluationConfig config);
  Evaluation(const Evaluation&) = delete;
  Evaluation& operator=(const Evaluation&) = delete;

  /// Runs the tasks in order, then writes summary.json, which keeps the tasks that are in it
  /// already, and the results and samples in the formats of LightEval and lm-evaluation-harness.
  /// @returns the summary: {"model": ..., "tasks": {...}}
  io::Json run_tasks();
  /// Results of run_tasks, in order.
  const std::vector<TaskResult>& results() const { return results_; }
  /// Answers a file of requests (eval/requests.hpp). @returns the number of requests
  std::size_t answer_requests(const std::string& file);

  /// Called after questions are answered. May throw to end the run, which can be resumed.
  std::function<void(const std::string& task, std::size_t done, std::size_t total)> progress;
  /// Called after every forward pass. May throw as well.
  std::function<void()> on_pass;
  /// Called with a line about the data, such as how many examples were cut.
  std::function<void(const std::string& line)> on_note;

  const EvaluationConfig& config() const { return config_; }
  const hub::Checkpoint& checkpoint() const { return *checkpoint_; }
  std::int64_t tokens() const { return tokens_; }  // computed by the model
  double begin_seconds() const { return begin_; }  // since 1970

 private:
  void check_tasks() const;
  void load_tasks();
  std::unique_ptr<Task> load(const std::string& task);
  std::unique_ptr<Task> load_held_out();
  PromptOptions prompt_options() const;
  MmluProOptions mmlu_pro_options() const;
  void load_words();
  void prepare_model();
  void prepare_output();
  void require_same_model(const std::filesystem::path& summary);
  void add(TaskResult result);
  io::Json describe_model() const;

  EvaluationConfig config_;
  double begin_;
  std::int64_t tokens_ = 0;
  std::optional<hub::Checkpoint> checkpoint_;
  std::optional<text::ChatTokenizer> words_, loss_words_;
  std::vector<std::unique_ptr<Task>> tasks_;
  std::vector<std::string> notes_;
  std::unique_ptr<infer::LanguageModel> engine_;
  std::optional<io::OutputLock> lock_;
  Session session_;
  std::vector<TaskResult> results_;
  io::Json model_, summary_ = io::Json::object();
};

}  // namespace espalier::eval

#ifdef ESP_BODIES
#include <espalier/core/version.hpp>
#include <espalier/data/dataset.hpp>
#include <espalier/eval/generation_task.hpp>
#include <espalier/eval/held_out_loss.hpp>
#include <espalier/eval/multiple_choice.hpp>
#include <espalier/eval/requests.hpp>
#include <espalier/eval/result_files.hpp>
#include <espalier/eval/result_table.hpp>
#include <espalier/eval/run_file.hpp>
#include <espalier/eval/text_task.hpp>
#include <espalier/hub/fingerprint.hpp>

namespace espalier::eval {

ESP_INLINE Evaluation::Evaluation(EvaluationConfig config)
    : config_(std::move(config)), begin_(seconds_since_1970()) {
  check_tasks();
  for (const std::string& input : {config_.model, config_.adapter}) {
    if (!input.empty()) io::require_apart(config_.output, input);
  }
  load_words();
  load_tasks();
  prepare_model();
  model_ = describe_model();
  prepare_output();
}

ESP_INLINE void Evaluation::check_tasks() const {
  for (const std::string& task : config_.tasks) {
    ESP_REQUIRE(std::count(config_.tasks.begin(), config_.tasks.end(), task) == 1, UsageError,
                "task ", task, " stands twice");
    if (task == "loss") {
      ESP_REQUIRE(!config_.text.empty(), UsageError, "task loss needs a JSONL file of texts");
      continue;
    }
    ESP_REQUIRE(!config_.data.empty(), UsageError, "task ", task, " needs the data folder");
  }
}

ESP_INLINE void Evaluation::load_words() {
  checkpoint_.emplace(config_.model);
  const auto words = [&](const char* otherwise) {
    const std::string& asked = config_.chat_template;
    return text::ChatTokenizer::load(config_.model, asked.empty() ? otherwise : asked);
  };
  words_ = words("none");
  loss_words_ = words("auto");
  const bool wanted = !config_.chat_template.empty() && config_.chat_template != "none";
  ESP_REQUIRE(!wanted || words_->chat(), UsageError, words_->why_none());
  const bool shaped = config_.shots_as_turns && !wanted;
  ESP_REQUIRE(!shaped, UsageError, "shots as turns need a chat template");
}

ESP_INLINE void Evaluation::load_tasks() {
  session_.max_length = checkpoint_->config().max_position_embeddings;
  for (const std::string& task : config_.tasks) tasks_.push_back(load(task));
}

ESP_INLINE std::unique_ptr<Task> Evaluation::load(const std::string& task) {
  if (task == "loss") return load_held_out();
  if (task == "mmlu_pro") {
    ESP_REQUIRE(!words_->chat() && config_.system.empty(), UsageError,
                "mmlu_pro is asked as its authors do, without chat template and system prompt");
    return std::make_unique<MmluProTask>(load_mmlu_pro_data(config_.data), mmlu_pro_options());
  }
  TaskData data = load_task(task, config_.data);
  // A definition's path is no name for a journal.
  const std::string name = task.ends_with(".json") ? data.definition.name : task;
  const TaskForm form = data.definition.form;
  Prompts prompts(name, std::move(data), prompt_options());
  if (form == TaskForm::text) return std::make_unique<TextTask>(name, std::move(prompts));
  if (form == TaskForm::choices) return std::make_unique<ChoiceTask>(name, std::move(prompts));
  return std::make_unique<GenerationTask>(name, std::move(prompts), config_.max_new_tokens);
}

ESP_INLINE std::unique_ptr<Task> Evaluation::load_held_out() {
  const std::int64_t length = config_.max_length > 0 ? config_.max_length : session_.max_length;
  data::Dataset texts = data::read_dataset(
      config_.text, data::record_encoder(*loss_words_, checkpoint_->config()), length);
  for (const std::string& line : texts.summary()) notes_.push_back(config_.text + ": " + line);
  return std::make_unique<LossTask>(std::move(texts.examples), config_.limit);
}

ESP_INLINE PromptOptions Evaluation::prompt_options() const {
  PromptOptions o;
  o.shots = config_.shots;
  o.seed = config_.shots_seed;
  o.limit = config_.limit;
  o.system = config_.system;
  o.turns = config_.shots_as_turns;
  o.chat_name = words_->template_name();
  if (words_->chat()) {
    o.chat = [chat = *words_->chat()](const std::vector<text::Message>& messages) {
      return chat.render(messages, true);
    };
  }
  return o;
}

ESP_INLINE MmluProOptions Evaluation::mmlu_pro_options() const {
  MmluProOptions m;
  m.rule = mmlu_pro_rule(config_.rule);
  m.limits = limits_of(m.rule);
  if (config_.shots >= 0) m.limits.shots = config_.shots;
  if (config_.max_new_tokens > 0) m.limits.max_new_tokens = config_.max_new_tokens;
  if (config_.max_length > 0) m.limits.max_length = static_cast<int>(config_.max_length);
  m.limit = config_.limit;
  m.subjects = config_.subjects;
  return m;
}

ESP_INLINE void Evaluation::prepare_model() {
  const text::Tokenizer& tokenizer = words_->tokenizer();
  engine_ = config_.load(*checkpoint_, config_.adapter, tokenizer, config_.engine);
  engine_->on_pass = [this](std::int64_t tokens) {
    tokens_ += tokens;
    if (on_pass) on_pass();
  };
  session_.model = engine_.get();
  session_.encode = words_->encoder(checkpoint_->config().vocab_size);
  session_.start = tokenizer.bos_id().value_or(tokenizer.eos_id().value_or(-1));
  session_.model_name = name_of_path(std::filesystem::absolute(config_.model)).string();
  if (!config_.adapter.empty()) {
    session_.model_name += "+" + name_of_path(std::filesystem::absolute(config_.adapter)).string();
  }
  session_.fingerprint = hub::fingerprint_of_model(*checkpoint_, config_.adapter, config_.dtype);
  session_.computed_by =
      espalier::detail::concat({"espalier ", kVersion, ", ", config_.dtype, ", ", config_.device,
                                " ", cpu::name(cpu::isa()), ", tokenizer ", words_->fingerprint()});
  session_.output = config_.output;
  session_.resume = config_.resume;
  session_.progress = [this](const std::string& task, std::size_t done, std::size_t total) {
    if (progress) progress(task, done, total);
  };
}

ESP_INLINE void Evaluation::prepare_output() {
  std::map<std::filesystem::path, std::string> journals;
  for (const auto& task : tasks_) {
    const std::filesystem::path journal = journal_path(session_, task->name());
    const auto [other, fresh] = journals.emplace(journal, task->name());
    ESP_REQUIRE(fresh, UsageError, "tasks ", other->second, " and ", task->name(),
                " have the same journal, ", journal.filename().string(), "; give one of them");
    require_fresh(journal, config_.resume);
  }
  lock_ = io::open_output(config_.output);
  require_same_model(session_.output / "summary.json");
  for (const auto& task : tasks_) task->prepare(session_);
  if (!tasks_.empty()) create_result_folders(session_.model_name, config_.output);
}

/// The results of earlier tasks in the folder are kept, so they must be of the same model.
ESP_INLINE void Evaluation::require_same_model(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return;
  const io::Json earlier = io::read_json(path);
  const io::Json* model = earlier.find_value("model");
  if (model == nullptr) return;  // a replay's, or of another program
  const std::string fingerprint = model->at("fingerprint").as_string();
  ESP_REQUIRE(fingerprint == session_.fingerprint, UsageError, path.string(),
              ": has results of another model (", model->at("name").as_string(), ", fingerprint ",
              fingerprint, ", now ", session_.fingerprint, "); choose another output folder");
  for (const io::Json::Member& task : earlier.at("tasks").members()) {
    summary_[task.key] = task.value;
  }
}

ESP_INLINE io::Json Evaluation::run_tasks() {
  for (const std::string& line : notes_) {
    if (on_note) on_note(line);
  }
  for (const auto& task : tasks_) add(task->run(session_));
  const RunDescription description{session_.model_name, config_.dtype, config_.device,
                                   config_.limit,       begin_,        seconds_since_1970()};
  if (!results_.empty()) write_results(results_, description, session_);
  io::Json all = io::Json::object();
  all["model"] = model_;
  all["tasks"] = summary_;
  io::write_text(session_.output / "summary.json", io::dump(all, 2) + "\n");
  return all;
}

ESP_INLINE std::size_t Evaluation::answer_requests(const std::string& file) {
  return eval::answer_requests(session_, file, config_.limit);
}

ESP_INLINE void Evaluation::add(TaskResult result) {
  const auto note = [&](const std::string& line) {
    if (on_note) on_note("warning: " + result.task + ": " + line);
  };
  if (result.truncated > 0) {
    note(espalier::detail::concat({result.truncated, " of ", result.documents,
                                   " questions are longer than the ", session_.max_length,
                                   " tokens that the model takes, and lost their beginning"}));
  }
  for (const std::string& line : result.notes) note(line);
  summary_[result.task] = summary_of(result);
  results_.push_back(std::move(result));
}

/// Describes the model for tables over several models: sizes, and the pruning criterion if any.
ESP_INLINE io::Json Evaluation::describe_model() const {
  const DecoderConfig& c = checkpoint_->config();
  io::Json m = io::Json::object();
  m["name"] = session_.model_name;
  m["fingerprint"] = session_.fingerprint;
  m["dtype"] = config_.dtype;
  m["computed_by"] = session_.computed_by;
  m["layers"] = c.num_hidden_layers;
  m["experts"] = c.mixture.experts;
  m["experts_per_token"] = c.mixture.router.top_k;
  m["weight_bytes"] = checkpoint_->total_bytes();
  const std::filesystem::path plan = checkpoint_->folder() / "pruning_plan.json";
  if (!std::filesystem::exists(plan)) return m;
  const io::Json p = io::read_json(plan);
  const auto require = [](bool good, const io::Json& j, const char* expected) {
    ESP_REQUIRE(good, FormatError, j.where(), ": expected ", expected, ", found ", j.kind_name());
  };
  require(p.is_object(), p, "an object");
  m["pruning"]["criterion"] = nullptr;
  const io::Json* provenance = p.find_value("provenance");
  if (provenance == nullptr) return m;
  require(provenance->is_object(), *provenance, "an object");
  const io::Json* criterion = provenance->find_value("criterion");
  if (criterion == nullptr) return m;
  require(criterion->is_string(), *criterion, "a string");
  m["pruning"]["criterion"] = *criterion;
  return m;
}

}  // namespace espalier::eval
#endif
