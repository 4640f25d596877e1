// SPDX-License-Identifier: Apache-2.0
// evaluate: measures a model, or scores recorded answers anew.
//   evaluate --model mixtral --task mmlu_pro,arc:easy,lambada --data data --output results
//   evaluate --model mixtral --requests requests.jsonl --output results
//   evaluate --replay outputs.json --rule leaderboard-2024 --output results
// Every answer is in a journal as soon as it is known: after Ctrl-C or a crash the same command
// with
// --resume goes on, and leaves the same files. Only run.json knows how long it took.
#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <memory>

#include <espalier/core/shell.hpp>
#include <espalier/eval/engine.hpp>
#include <espalier/eval/held_out_loss.hpp>
#include <espalier/eval/lighteval_results.hpp>
#include <espalier/eval/mmlu_pro.hpp>
#include <espalier/eval/replay.hpp>
#include <espalier/eval/requests.hpp>
#include <espalier/hub/load_model.hpp>
#include <espalier/ops/cpu/isa.hpp>
#include <espalier/ops/trace_session.hpp>
#include <espalier/text/choose_template.hpp>
#include <espalier/train/dataset.hpp>

#include "cli/compute.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;
namespace fs = std::filesystem;
using io::Json;

struct Options {
  std::string model, adapter, data, output, replay, requests, text, dtype = "f32";
  std::string rule = "current", subjects = "all", chat_template = "auto";
  std::vector<std::string> tasks;
  std::int64_t limit = -1, batch_size = 16, max_length = 0;
  int shots = -1, max_new_tokens = 0;
  bool resume = false;
};

void declare(CLI::App& app, Options& o) {
  app.add_option("--output", o.output, "Folder for results and journals")->required();
  app.add_flag("--resume", o.resume, "Go on from the journals in --output, if there are any");

  const char* model = "Model";
  app.add_option("--model", o.model, "Checkpoint folder in Hugging Face layout")->group(model);
  app.add_option("--adapter", o.adapter, "PEFT adapter folder to apply")->group(model);
  app.add_option("--dtype", o.dtype, "Computation in f32 or bf16")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->group(model);
  app.add_option("--batch-size", o.batch_size, "Sequences that are generated together")
      ->check(CLI::Range(1, 4096))
      ->group(model);

  const char* tasks = "Tasks";
  app.add_option("--task", o.tasks,
                 "Comma list: mmlu_pro, arc:easy, arc:challenge, winogrande, lambada, any other "
                 "file of --data/multiple_choice by its name, loss")
      ->delimiter(',')
      ->group(tasks);
  app.add_option("--data", o.data, "Folder with mmlu_pro/ and multiple_choice/")->group(tasks);
  app.add_option("--text", o.text, "JSONL for the task loss: text, prompt/response or messages")
      ->group(tasks);
  app.add_option("--limit", o.limit,
                 "Questions per task: the first ones; of mmlu_pro the first ones of each category, "
                 "spread evenly")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40))
      ->default_str("all")
      ->group(tasks);
  app.add_option("--shots", o.shots, "Worked examples in front of a question")
      ->check(CLI::Range(0, 1000))
      ->default_str("5 for mmlu_pro, else 0")
      ->group(tasks);
  app.add_option("--chat-template", o.chat_template,
                 "For the task loss: auto (the checkpoint's), none, chatml, mixtral or mixtral-v1")
      ->check(CLI::IsMember({"auto", "none", "chatml", "mixtral", "mixtral-v1"}))
      ->group(tasks);

  const char* pro = "MMLU-Pro";
  app.add_option("--rule", o.rule,
                 "How answers count, and the limits of their time: current (three patterns, 2048 "
                 "new tokens), 2024-07 (guess seeded anew each time), leaderboard-2024 (first "
                 "pattern only, 256 new tokens)")
      ->check(CLI::IsMember({"current", "2024-07", "leaderboard-2024"}))
      ->group(pro);
  app.add_option("--max-new-tokens", o.max_new_tokens, "Longest answer")
      ->check(CLI::Range(1, 1 << 24))
      ->default_str("by --rule: 2048 or 256")
      ->group(pro);
  app.add_option("--max-length", o.max_length,
                 "Prompt and answer together; shots are dropped until they fit. For the task loss: "
                 "longer texts are cut")
      ->check(CLI::Range(2, 1 << 24))
      ->default_str("by --rule: 4096 or 2048; loss: what the model takes")
      ->group(pro);
  app.add_option("--subjects", o.subjects, "Comma list of (parts of) categories")->group(pro);

  const char* other = "Without a task";
  app.add_option("--replay", o.replay,
                 "Score these recorded MMLU-Pro outputs (file or folder) under --rule; no model")
      ->group(other);
  app.add_option("--requests", o.requests,
                 "JSONL {\"context\", \"continuation\"}: their likelihoods go to requests.jsonl")
      ->group(other);
}

std::string name_of_folder(const std::string& path) {
  fs::path p = fs::absolute(path).lexically_normal();
  if (!p.has_filename()) p = p.parent_path();
  return p.filename().string();
}

double seconds_since_1970() {
  using namespace std::chrono;
  return duration<double>(system_clock::now().time_since_epoch()).count();
}

std::string date_text(double seconds) {
  const auto t = static_cast<std::time_t>(seconds);
  std::tm utc = {};
  gmtime_r(&t, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

void print_mmlu_pro(const Json& s) {
  const auto percent = [](double part, double of) {
    return of > 0 ? fmt::format("{:.4f}", part / of) : std::string("-");
  };
  Table categories({"category", "questions", "correct", "accuracy"});
  for (const Json::Member& c : s.at("categories").members()) {
    const double records = c.value.at("records").as_double();
    const double correct = c.value.at("correct").as_double();
    categories.add_row(
        {c.key, fmt::format("{}", records), fmt::format("{}", correct), percent(correct, records)});
  }
  const double records = s.at("records").as_double();
  categories.add_row({"all (micro)", fmt::format("{}", records),
                      fmt::format("{}", s.at("correct").as_double()),
                      percent(s.at("correct").as_double(), records)});
  categories.print();
  Table parts({"how the answer was found", "questions", "correct", "accuracy"});
  const auto add = [&](const std::string& name, double count, double correct) {
    parts.add_row(
        {name, fmt::format("{}", count), fmt::format("{}", correct), percent(correct, count)});
  };
  for (const Json::Member& level : s.at("levels").members()) {
    add("level " + level.key, level.value.as_double(),
        s.at("level_correct").at(level.key).as_double());
  }
  const double unanswered = s.at("unanswered").as_double(), lucky = s.at("lucky").as_double();
  add("not at all: a guess", unanswered, lucky);
  if (const Json* cut = s.find("hit_limit")) {
    add("cut off by the limit", cut->as_double(), s.at("hit_limit_correct").as_double());
  }
  fmt::print("\n");
  parts.print();
  const Json& error = s.at("accuracy_stderr");
  fmt::print(
      "\nrule {}: accuracy {:.4f} +- {:.4f} (micro), {:.4f} (macro), {:.4f} without guesses\n",
      s.at("rule").as_string(), s.at("accuracy").as_double(),
      error.is_null() ? std::nan("") : error.as_double(), s.at("macro").as_double(),
      s.at("strict_accuracy").as_double());
}

class Evaluate {
 public:
  Evaluate(const Options& o, const CommonOptions& common, std::string command)
      : o_(o), common_(common), command_(std::move(command)), begin_(seconds_since_1970()) {}

  void run() {
    const int modes = !o_.replay.empty() + !o_.requests.empty() + !o_.tasks.empty();
    ESP_REQUIRE(modes == 1, UsageError, "give exactly one of --task, --requests and --replay");
    if (o_.replay.empty()) {
      ESP_REQUIRE(!o_.model.empty(), UsageError, "--model is required");
    }
    if (!o_.replay.empty()) {
      replay();
    } else if (!o_.requests.empty()) {
      prepare_model();
      answer();
    } else {
      check_tasks();
      prepare_model();
      tasks();
    }
  }

 private:
  void make_output() const {
    std::error_code error;
    fs::create_directories(o_.output, error);
    if (error) io::detail::throw_errno(o_.output, "create", error.value());
  }

  void replay() const {
    const eval::MmluProRule rule = eval::mmlu_pro_rule(o_.rule);
    const eval::Replay r = eval::replay(o_.replay, rule);
    make_output();
    eval::write_replay(r, rule, o_.output);
    const Json summary = eval::to_json(r.score, rule);
    if (common_.json) {
      fmt::print("{}\n", io::dump(summary));
    } else {
      print_mmlu_pro(summary);
    }
  }

  // --- the model ---
  /// What can be known to be wrong is said before a large model is loaded.
  void check_tasks() {
    for (const std::string& task : o_.tasks) {
      ESP_REQUIRE(std::count(o_.tasks.begin(), o_.tasks.end(), task) == 1, UsageError, "--task ",
                  task, " stands twice");
      if (task == "loss") {
        ESP_REQUIRE(!o_.text.empty(), UsageError, "--task loss needs --text FILE");
        continue;
      }
      ESP_REQUIRE(!o_.data.empty(), UsageError, "--task ", task, " needs --data DIR");
      if (task == "mmlu_pro") {
        mmlu_pro_ = std::make_unique<eval::MmluProTask>(eval::load_mmlu_pro_data(o_.data),
                                                        mmlu_pro_options());
      } else {
        choices_[task] = eval::load_choices(eval::choice_file(o_.data, task));
      }
    }
  }

  eval::MmluProOptions mmlu_pro_options() const {
    eval::MmluProOptions m;
    m.rule = eval::mmlu_pro_rule(o_.rule);
    m.limits = eval::limits_of(m.rule);
    if (o_.shots >= 0) m.limits.shots = o_.shots;
    if (o_.max_new_tokens > 0) m.limits.max_new_tokens = o_.max_new_tokens;
    if (o_.max_length > 0) m.limits.max_length = static_cast<int>(o_.max_length);
    m.limit = o_.limit;
    m.subjects = o_.subjects;
    return m;
  }

  void prepare_model() {
    checkpoint_ = std::make_unique<hub::Checkpoint>(o_.model);
    tokenizer_ = std::make_unique<text::Tokenizer>(text::Tokenizer::load(o_.model));
    eval::EngineOptions options;
    options.batch = o_.batch_size;
    visit_compute(common_.device, o_.dtype, [&]<class T, class D>() {
      engine_ = std::make_unique<eval::DecoderEngine<T, D>>(
          hub::load_model<T, D>(*checkpoint_, o_.adapter), *tokenizer_, options);
    });
    engine_->on_pass = [this](std::int64_t tokens) {
      tokens_ += tokens;
      stop_if_interrupted();
    };
    session_.model = engine_.get();
    session_.encode = [this](std::string_view text, bool add_special) {
      return tokenizer_->encode(text, add_special);
    };
    session_.start = tokenizer_->bos_id().value_or(tokenizer_->eos_id().value_or(-1));
    session_.max_length = checkpoint_->config().max_position_embeddings;
    session_.model_name = name_of_folder(o_.model);
    if (!o_.adapter.empty()) session_.model_name += "+" + name_of_folder(o_.adapter);
    session_.fingerprint = eval::fingerprint_of_model(*checkpoint_, o_.adapter, o_.dtype);
    session_.output = o_.output;
    session_.resume = o_.resume;
    session_.progress = [this](const std::string& task, std::size_t done, std::size_t total) {
      show(task, done, total);
      stop_if_interrupted();
    };
    (void)interrupted();  // from here on Ctrl-C ends between two passes
    make_output();
  }

  void stop_if_interrupted() {
    if (!interrupted()) return;
    if (progress_) progress_->clear();
    write_run_file(false);
    throw Interrupted(
        fmt::format("all answers so far are saved in {}; to go on: {}", o_.output, command_));
  }

  void show(const std::string& task, std::size_t done, std::size_t total) {
    if (!progress_ || progress_task_ != task) {
      if (progress_) progress_->finish();
      progress_ = std::make_unique<Progress>(task, static_cast<std::int64_t>(total), "questions");
      progress_->start_at(static_cast<std::int64_t>(done));
      progress_task_ = task;
    }
    progress_->update(static_cast<std::int64_t>(done));
  }

  // --- the tasks ---
  void tasks() {
    for (const std::string& task : o_.tasks) {
      if (task == "mmlu_pro") {
        summary_["mmlu_pro"] = mmlu_pro_->run(session_);
      } else if (task == "loss") {
        add(held_out());
      } else {
        const eval::ChoiceOptions options{std::max(o_.shots, 0), o_.limit};
        add(eval::ChoiceTask(task, choices_.at(task), options).run(session_));
      }
    }
    if (progress_) progress_->finish();
    const eval::RunDescription description{
        session_.model_name, o_.dtype, common_.device, o_.limit, begin_, seconds_since_1970()};
    if (!results_.empty()) eval::write_lighteval_results(results_, description, o_.output);
    Json all = Json::object();
    all["model"] = describe_model();
    all["tasks"] = summary_;
    io::write_text(fs::path(o_.output) / "summary.json", io::dump(all, 2) + "\n");
    write_run_file(true);
    if (common_.json) {
      fmt::print("{}\n", io::dump(all));
    } else {
      print();
    }
  }

  void add(eval::TaskResult result) {
    Json& s = summary_[result.task];
    s["shots"] = result.shots;
    s["documents"] = result.documents;
    eval::detail::put_metrics(s, result);
    results_.push_back(std::move(result));
  }

  eval::TaskResult held_out() const {
    const auto chosen = text::choose_template(o_.model, *tokenizer_, o_.chat_template);
    train::RenderChat render;
    if (chosen.chat) {
      render = [&](const std::vector<text::Message>& m) { return chosen.chat->render_segments(m); };
    }
    train::DatasetOptions options;
    options.max_length = o_.max_length > 0 ? o_.max_length : session_.max_length;
    const auto& eos = checkpoint_->config().eos_token_ids;
    if (!eos.empty()) options.eos = eos.front();
    const train::Dataset data =
        train::DatasetReader(session_.encode, render, options).read(o_.text);
    if (data.joined_pairs > 0) {
      fmt::print(stderr, "{}: prompts and responses are joined without a chat template ({})\n",
                 o_.text, chosen.why_none);
    }
    return eval::held_out_loss(session_, data.examples, o_.limit);
  }

  void answer() {
    const std::size_t count = eval::answer_requests(session_, o_.requests, o_.limit);
    if (progress_) progress_->finish();
    write_run_file(true);
    if (common_.json) {
      Json j = Json::object();
      j["requests"] = count;
      j["output"] = (fs::path(o_.output) / "requests.jsonl").string();
      fmt::print("{}\n", io::dump(j));
    } else {
      fmt::print("{}/requests.jsonl: {} requests\n", o_.output, count);
    }
  }

  // --- what stays ---
  /// Enough for tables over several models: how many experts, and why these.
  Json describe_model() const {
    const DecoderConfig& c = checkpoint_->config();
    Json m = Json::object();
    m["name"] = session_.model_name;
    m["fingerprint"] = session_.fingerprint;
    m["dtype"] = o_.dtype;
    m["layers"] = c.num_hidden_layers;
    m["experts"] = c.mixture.experts;
    m["experts_per_token"] = c.mixture.router.top_k;
    m["weight_bytes"] = checkpoint_->total_bytes();
    const fs::path plan = fs::path(o_.model) / "pruning_plan.json";
    if (!fs::exists(plan)) return m;
    const Json p = io::read_json(plan);
    m["pruning"]["criterion"] = nullptr;
    if (const Json* provenance = p.find_value("provenance")) {
      if (const Json* criterion = provenance->find_value("criterion")) {
        m["pruning"]["criterion"] = *criterion;
      }
    }
    return m;
  }

  /// A session per run; those of earlier runs into the same folder stay.
  void write_run_file(bool finished) const {
    const fs::path path = fs::path(o_.output) / "run.json";
    Json file = Json::object();
    file["sessions"] = Json::array();
    if (o_.resume && fs::exists(path)) {
      try {
        const Json earlier = io::read_json(path);
        for (const Json& s : earlier.at("sessions").items()) {
          file["sessions"].push_back(s);
        }
      } catch (const Error&) {  // the clock's notes are not worth a failed run
        file["sessions"] = Json::array();
      }
    }
    const double end = seconds_since_1970();
    Json s = Json::object();
    s["command"] = command_;
    s["finished"] = finished;
    s["start_date"] = date_text(begin_);
    s["end_date"] = date_text(end);
    s["seconds"] = end - begin_;
    s["tokens"] = tokens_;
    s["tokens_per_second"] = static_cast<double>(tokens_) / std::max(end - begin_, 1e-9);
    s["threads"] = num_threads();
    s["instructions"] = cpu::name(cpu::isa());
    s["peak_memory_bytes"] = peak_memory_bytes();
    file["sessions"].push_back(std::move(s));
    io::write_text(path, io::dump(file, 2) + "\n");
  }

  void print() const {
    if (const Json* pro = summary_.find("mmlu_pro")) print_mmlu_pro(*pro);
    if (results_.empty()) return;
    if (summary_.find("mmlu_pro") != nullptr) fmt::print("\n");
    Table table({"task", "shots", "questions", "metric", "value", "stderr"});
    for (const eval::TaskResult& r : results_) {
      for (const eval::Metric& m : r.metrics) {
        table.add_row({r.task, std::to_string(r.shots), std::to_string(r.documents), m.name,
                       fmt::format("{:.4f}", m.estimate.value),
                       fmt::format("{:.4f}", m.estimate.standard_error)});
      }
    }
    table.print();
  }

  const Options& o_;
  const CommonOptions& common_;
  std::string command_;
  double begin_;
  std::int64_t tokens_ = 0;
  std::unique_ptr<eval::MmluProTask> mmlu_pro_;
  std::map<std::string, eval::ChoiceData> choices_;
  std::unique_ptr<hub::Checkpoint> checkpoint_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::unique_ptr<eval::LanguageModel> engine_;
  eval::Session session_;
  std::vector<eval::TaskResult> results_;
  Json summary_ = Json::object();
  std::unique_ptr<Progress> progress_;
  std::string progress_task_;
};

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "evaluate",
      "Measures a model on tasks, answers likelihood requests, or scores recorded answers anew.",
      [&](CLI::App& app) { declare(app, o); },
      [&](const CommonOptions& common) {
        const TraceSession trace;  // where ESPALIER_TRACE names a file
        Evaluate(o, common, shell_command_with(argc, argv, "--resume")).run();
      });
}
