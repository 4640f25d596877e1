// SPDX-License-Identifier: Apache-2.0
// evaluate: measures a model, or scores recorded answers anew.
//   evaluate --model mixtral --task mmlu_pro,arc:easy,lambada --data data --output results
//   evaluate --model mixtral --requests requests.jsonl --output results
//   evaluate --replay outputs.json --rule leaderboard-2024 --output results
// Every answer is in a journal as soon as it is known: after Ctrl-C or a crash the same command
// with
// --resume goes on, and leaves the same files. Only run.json knows how long it took.
#include <espalier/core/shell.hpp>
#include <espalier/eval/evaluation.hpp>
#include <espalier/eval/replay.hpp>
#include <espalier/eval/run_file.hpp>
#include <espalier/ops/trace_session.hpp>

#include "cli/compute.hpp"
#include "cli/evaluation_tables.hpp"
#include "cli/print.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;
using io::Json;

struct Options {
  eval::EvaluationConfig run;
  std::string replay, requests;
};

void declare(CLI::App& app, Options& o) {
  app.add_option("--output", o.run.output, "Folder for results and journals");
  app.add_flag("--resume", o.run.resume, "Go on from the journals in --output, if there are any");

  const char* model = "Model";
  app.add_option("--model", o.run.model, "Checkpoint folder in Hugging Face layout")->group(model);
  app.add_option("--adapter", o.run.adapter, "PEFT adapter folder to apply")->group(model);
  app.add_option("--dtype", o.run.dtype, "Computation in f32 or bf16")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->group(model);
  app.add_option("--batch-size", o.run.engine.batch, "Sequences that are generated together")
      ->check(integer_within(1, 4096))
      ->group(model);

  const char* tasks = "Tasks";
  app.add_option(
         "--task", o.run.tasks,
         "Comma list: names of tasks, paths of definitions NAME.json, names of files of your "
         "own in --data, mmlu_pro, loss; `list` prints what ships (docs/tasks.md)")
      ->delimiter(',')
      ->group(tasks);
  app.add_option("--data", o.run.data, "Folder with rows of tasks: JSON lines or CSV")
      ->group(tasks);
  app.add_option("--text", o.run.text, "JSONL for the task loss: text, prompt/response or messages")
      ->group(tasks);
  app.add_option(
         "--limit", o.run.limit,
         "Questions per task: the first ones, of mmlu of each subject; of mmlu_pro the first "
         "ones of each category, spread evenly")
      ->check(integer_within(1, kMostSteps))
      ->default_str("all")
      ->group(tasks);
  app.add_option("--shots", o.run.shots, "Worked examples in front of a question")
      ->check(integer_within(0, 1000))
      ->default_str("5 for mmlu_pro and gsm8k, else 0")
      ->group(tasks);
  app.add_option("--max-new-tokens", o.run.max_new_tokens, "Longest answer")
      ->check(integer_within(1, 1 << 24))
      ->default_str("as the task says; mmlu_pro by --rule: 2048 or 256")
      ->group(tasks);

  const char* prompts = "Prompts";
  app.add_option("--chat-template", o.run.chat_template,
                 "Ask in a conversation: auto (the checkpoint's template), chatml, mixtral, "
                 "mixtral-v1, or none")
      ->check(CLI::IsMember({"auto", "none", "chatml", "mixtral", "mixtral-v1"}))
      ->default_str("none; auto for the task loss")
      ->group(prompts);
  app.add_option("--system", o.run.system, "System message, or in plain text what stands first")
      ->group(prompts);
  app.add_flag("--shots-as-turns", o.run.shots_as_turns,
               "Worked examples are turns of the conversation")
      ->group(prompts);

  const char* pro = "MMLU-Pro";
  app.add_option("--rule", o.run.rule,
                 "How answers count, and the limits of their time: current (three patterns, 2048 "
                 "new tokens), 2024-07 (guess seeded anew each time), leaderboard-2024 (first "
                 "pattern only, 256 new tokens)")
      ->check(CLI::IsMember({"current", "2024-07", "leaderboard-2024"}))
      ->group(pro);
  app.add_option("--max-length", o.run.max_length,
                 "Prompt and answer together; shots are dropped until they fit. For the task loss: "
                 "longer texts are cut")
      ->check(integer_within(2, 1 << 24))
      ->default_str("by --rule: 4096 or 2048; loss: what the model takes")
      ->group(pro);
  app.add_option("--subjects", o.run.subjects, "Comma list of (parts of) categories")->group(pro);

  const char* other = "Without a task";
  app.add_option("--replay", o.replay,
                 "Score these recorded MMLU-Pro outputs (file or folder) under --rule; no model")
      ->group(other);
  app.add_option("--requests", o.requests,
                 "JSONL {\"context\", \"continuation\"}: their likelihoods go to requests.jsonl")
      ->group(other);
}

void print_summary(const std::vector<eval::TaskResult>& results) {
  bool pro = false;
  for (const eval::TaskResult& r : results) {
    if (!r.summary.is_null()) print_mmlu_pro(r.summary), pro = true;
  }
  if (results.size() == (pro ? 1U : 0U)) return;
  if (pro) print("\n");
  print_results(results);
}

void replay(const Options& o, const CommonOptions& common) {
  const eval::MmluProRule rule = eval::mmlu_pro_rule(o.run.rule);
  const eval::Replay r = eval::replay(o.replay, rule);
  io::create_folders(o.run.output);
  eval::write_replay(r, rule, o.run.output);
  const Json summary = eval::to_json(r.score, rule);
  if (common.json) {
    print("{}\n", io::dump(summary));
  } else {
    print_mmlu_pro(summary);
  }
}

/// An evaluation with a bar on the screen, which Ctrl-C ends between two passes.
class Watched {
 public:
  Watched(const Options& o, const CommonOptions& common, std::string command)
      : o_(o), common_(common), command_(std::move(command)), run_(o.run) {
    run_.progress = [this](const std::string& task, std::size_t done, std::size_t total) {
      show(task, static_cast<std::int64_t>(done), static_cast<std::int64_t>(total));
      stop_if_interrupted();
    };
    run_.on_pass = [this] { stop_if_interrupted(); };
    run_.on_note = [](const std::string& line) { print(stderr, "{}\n", line); };
    (void)interrupted();  // from here on
    print_warnings("evaluate", run_.checkpoint().warnings());
  }

  void run_tasks() {
    const Json all = run_.run_tasks();
    finish();
    if (common_.json) {
      print("{}\n", io::dump(all));
    } else {
      print_summary(run_.results());
    }
  }

  void answer_requests() {
    const std::size_t count = run_.answer_requests(o_.requests);
    finish();
    const std::string file = o_.run.output + "/requests.jsonl";
    if (common_.json) {
      Json j = Json::object();
      j["requests"] = count;
      j["output"] = file;
      print("{}\n", io::dump(j));
    } else {
      print("{}: {} requests\n", file, count);
    }
  }

 private:
  void show(const std::string& task, std::int64_t done, std::int64_t total) {
    if (!bar_ || task_ != task) {
      if (bar_) bar_->finish();
      bar_ = std::make_unique<Progress>(escape_controls(task), total, "questions");
      bar_->start_at(done);
      task_ = task;
    }
    bar_->update(done);
  }
  void stop_if_interrupted() {
    if (!interrupted()) return;
    if (bar_) bar_->clear();
    write_run_file(false);
    throw Interrupted(
        fmt::format("all answers so far are saved in {}; to go on: {}", o_.run.output, command_));
  }
  void finish() {
    if (bar_) bar_->finish();
    write_run_file(true);
  }
  void write_run_file(bool finished) const {
    eval::write_run_file(o_.run.output, {command_, run_.begin_seconds(), run_.tokens(), finished},
                         o_.run.resume);
  }

  const Options& o_;
  const CommonOptions& common_;
  std::string command_;
  eval::Evaluation run_;
  std::unique_ptr<Progress> bar_;
  std::string task_;
};

void list_tasks() {
  Table table({"task", "rows on the hub", "files", "metrics"});
  const auto words = [](const std::vector<std::string>& list) {
    std::string text;
    for (const std::string& word : list) text += (text.empty() ? "" : ", ") + word;
    return text;
  };
  for (const eval::TaskDefinition& d : eval::shipped_tasks()) {
    table.add_row({d.id(), d.source.hub.empty() ? "-" : d.source.hub + " " + d.source.subset,
                   words(d.files), words(d.metrics)});
  }
  table.add_row({"mmlu_pro@tiger", "TIGER-Lab/MMLU-Pro", "mmlu_pro/test", "see --rule"});
  table.add_row({"loss", "-", "--text", "loss, ppl"});
  table.print();
}

void run(Options o, const CommonOptions& common, const std::string& command) {
  if (o.run.tasks == std::vector<std::string>{"list"}) return list_tasks();
  ESP_REQUIRE(!o.run.output.empty(), UsageError, "--output is required");
  const int modes = !o.replay.empty() + !o.requests.empty() + !o.run.tasks.empty();
  ESP_REQUIRE(modes == 1, UsageError, "give exactly one of --task, --requests and --replay");
  if (!o.replay.empty()) return replay(o, common);
  ESP_REQUIRE(!o.run.model.empty(), UsageError, "--model is required");
  o.run.device = common.device;
  if (common.seed != 0) o.run.shots_seed = static_cast<std::int64_t>(common.seed);
  visit_compute(common.device, o.run.dtype,
                [&]<class T, class D>() { o.run.load = infer::load_engine<T, D>; });
  Watched watched(o, common, command);
  if (!o.requests.empty()) {
    watched.answer_requests();
  } else {
    watched.run_tasks();
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "evaluate",
      "Measures a model on tasks, answers likelihood requests, or scores recorded answers anew.",
      [&](CLI::App& app) { declare(app, o); },
      [&](const CommonOptions& common) {
        const TraceSession trace;  // where ESPALIER_TRACE names a file
        run(o, common, shell_command_with(argc, argv, "--resume"));
      });
}
