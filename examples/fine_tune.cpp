// SPDX-License-Identifier: Apache-2.0
// fine_tune: trains LoRA adapters on a checkpoint, dense or a mixture, and writes them as a PEFT
// adapter folder.
//   fine_tune --model mixtral --data train.jsonl --output run --target q,k,v,o --lora-r 16
//             --lora-alpha 32 --epochs 1 --batch-size 2 --grad-accum 8 --lr 2e-4 --schedule cosine
// While it runs: train_log.jsonl (a line per step) and checkpoint-N/ folders. Ctrl-C saves one
// more; the same command with --resume goes on with the same bits as if nothing had happened.
#include <espalier/core/shell.hpp>
#include <espalier/ops/trace_session.hpp>
#include <espalier/train/fine_tune.hpp>

#include "cli/compute.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;
using io::Json;

struct Options {
  train::FineTuneConfig run;
  bool no_shuffle = false, resume = false;
};

void declare(CLI::App& app, Options& o) {
  const auto positive = integer_within(1, kMostSteps), rows = integer_within(1, 1 << 20);
  const auto count = integer_within(0, kMostSteps);
  app.add_option("--model", o.run.model, "Checkpoint folder in Hugging Face layout")->required();
  app.add_option("--data", o.run.data, "JSONL with messages, prompt/response, or text")->required();
  app.add_option("--output", o.run.output, "Folder for the adapter, the log and checkpoints")
      ->required();
  app.add_flag("--resume", o.resume,
               "Go on from the newest checkpoint in --output, if there is one");

  auto* adapter =
      app.add_option("--adapter", o.run.adapter,
                     "Continue from this PEFT adapter, with its rank, alpha and targets");
  const char* lora = "Adapter";
  adapter->group(lora);
  for (CLI::Option* option :
       {app.add_option("--lora-r", o.run.lora.r, "Rank")->check(integer_within(1, 1 << 16)),
        app.add_option("--lora-alpha", o.run.lora.alpha, "Scale is alpha / r")
            ->check(real_within(1e-6, 1e6)),
        static_cast<CLI::Option*>(
            app.add_flag("--rslora", o.run.lora.rslora, "Scale is alpha / sqrt(r)")),
        app.add_option("--target", o.run.lora.targets,
                       "Comma list of q,k,v,o,gate,up,down,router (of Mixtral w1,w3,w2, and gate "
                       "is its router); all (every linear layer but head and router), all+router")
            ->delimiter(',')}) {
    option->excludes(adapter)->group(lora);
  }
  app.add_option("--lora-dropout", o.run.lora.dropout, "Dropout before the adapter")
      ->check(real_within(0, 0.999))
      ->group(lora);

  const char* data = "Data";
  app.add_option("--max-length", o.run.max_length, "Longer examples are cut on the right")
      ->check(integer_within(2, 1 << 24))
      ->group(data);
  app.add_flag("--packing", o.run.packing,
               "Several examples share a row, each attending to itself only")
      ->group(data);
  app.add_flag("--no-shuffle", o.no_shuffle, "Keep the order of the file")->group(data);
  app.add_option("--chat-template", o.run.chat_template,
                 "auto (the checkpoint's), none, chatml, mixtral or mixtral-v1")
      ->check(CLI::IsMember({"auto", "none", "chatml", "mixtral", "mixtral-v1"}))
      ->group(data);
  app.add_option("--eval-data", o.run.eval_data, "Held-out JSONL; its loss is logged")->group(data);
  app.add_option("--eval-every", o.run.eval_every, "Steps between; 0: after the last step only")
      ->check(count)
      ->group(data);

  const char* training = "Training";
  auto* steps = app.add_option("--steps", o.run.steps, "Optimizer steps, instead of --epochs");
  steps->check(positive)->group(training);
  app.add_option("--epochs", o.run.epochs, "Passes over the data")
      ->check(real_within(1e-6, 1e6))
      ->excludes(steps)
      ->group(training);
  app.add_option("--batch-size", o.run.batch_size, "Rows per micro-batch")
      ->check(rows)
      ->group(training);
  app.add_option("--grad-accum", o.run.grad_accum, "Micro-batches per step")
      ->check(rows)
      ->group(training);
  app.add_option("--lr", o.run.lr, "Learning rate")->check(real_within(0, 1e3))->group(training);
  app.add_option("--schedule", o.run.schedule, "constant, linear or cosine")
      ->check(CLI::IsMember({"constant", "linear", "cosine"}))
      ->group(training);
  app.add_option("--warmup", o.run.warmup, "Steps of linear warmup; the first has rate 0")
      ->check(count)
      ->group(training);
  app.add_option("--weight-decay", o.run.weight_decay, "Decoupled weight decay")
      ->check(real_within(0, 1e3))
      ->group(training);
  app.add_option("--clip", o.run.clip, "Largest gradient norm; 0: no clipping")
      ->check(real_within(0, 1e9))
      ->group(training);
  app.add_option("--aux-loss", o.run.aux_loss, "Coefficient of the load-balancing loss; 0: off")
      ->check(real_within(0, 1e6))
      ->group(training);
  app.add_option("--dtype", o.run.dtype, "Computation in f32 or bf16")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->group(training);
  app.add_flag("--recompute", o.run.recompute,
               "Recompute layers in backward: less memory, the same result, more time")
      ->group(training);
  app.add_option("--save-every", o.run.save_every,
                 "Steps between checkpoints; 0: only at the end and on Ctrl-C")
      ->check(count)
      ->group(training);
  app.add_option("--keep-checkpoints", o.run.keep_checkpoints, "Newest checkpoints kept; 0: all")
      ->check(integer_within(0, 1 << 20))
      ->group(training);
}

void describe_data(const std::string& path, const data::Dataset& dataset) {
  for (const std::string& line : dataset.summary()) print(stderr, "{}: {}\n", path, line);
}

void report_forecast(const train::FineTune& run) {
  const MemoryForecast memory = run.memory_forecast();
  print(stderr,
        "memory: about {} = {} base weights (mapped) + {} adapter and gradients + {} optimizer "
        "+ {} activations of at most {} tokens\n",
        format_bytes(memory.total_bytes()), format_bytes(memory.weights_bytes),
        format_bytes(memory.adapter_bytes), format_bytes(memory.optimizer_bytes),
        format_bytes(memory.activation_bytes), run.data().largest_batch(run.config().batch_size));
  const auto steps = static_cast<double>(run.state().max_steps - run.state().step);
  const double tokens = run.tokens_per_step(), flops = run.flops_per_token();
  const double rate = measured_flops_per_second(run.base().config());
  print(stderr,
        "time: about {} for {:.0f} steps of {:.0f} tokens ({:.2f} GFLOP per token, {:.0f} "
        "GFLOP/s in a matrix product)\n",
        format_duration(steps * tokens * flops / rate), steps, tokens, flops * 1e-9, rate * 1e-9);
}

std::string note(const Json& entry) {
  std::string text = fmt::format("loss {:.4f}", entry.at("loss").as_double());
  if (const Json* held_out = entry.find("eval_loss")) {
    text += fmt::format(", held-out {:.4f}", held_out->as_double());
  }
  return text;
}

void train_all(train::FineTune& run, const std::string& command) {
  (void)interrupted();  // from here on Ctrl-C saves first
  const train::RunState& state = run.state();
  Progress progress("fine_tune", state.max_steps, "steps");
  progress.start_at(state.step);
  while (!run.done()) {
    const Json& entry = run.step();
    progress.update(state.step, note(entry));
    if (!interrupted() || run.done()) continue;
    const std::string saved = run.save().string();
    progress.clear();
    throw Interrupted(fmt::format("saved {}, {} of {} steps done; to go on: {}", saved, state.step,
                                  state.max_steps, command));
  }
}

Json summary(const train::FineTune& run) {
  const train::RunState& state = run.state();
  std::int64_t tokens = 0;
  for (const Json& entry : state.log) tokens += entry.at("tokens").as_int();
  Json s = Json::object();
  s["output"] = run.config().output;
  s["steps"] = state.step;
  s["epochs"] = static_cast<double>(state.step) / static_cast<double>(state.steps_per_epoch);
  s["trainable_parameters"] = run.parameter_count();
  s["first_loss"] = state.log.front().at("loss");
  s["last_loss"] = state.log.back().at("loss");
  if (const Json* held_out = state.log.back().find("eval_loss")) s["eval_loss"] = *held_out;
  s["tokens"] = tokens;
  s["peak_memory_bytes"] = peak_memory_bytes();
  return s;
}

void report(const Json& s) {
  const std::string output = s.at("output").as_string();
  print("adapter      {}\n", output);
  print("steps        {} ({:.2f} epochs, {} tokens)\n", s.at("steps").as_int(),
        s.at("epochs").as_double(), s.at("tokens").as_int());
  print("parameters   {} trained\n", s.at("trainable_parameters").as_int());
  print("loss         {:.4f} at the first step, {:.4f} at the last\n",
        s.at("first_loss").as_double(), s.at("last_loss").as_double());
  if (const Json* held_out = s.find("eval_loss")) {
    print("held-out     {:.4f}\n", held_out->as_double());
  }
  print("curve        {}\n", (std::filesystem::path(output) / "loss.png").string());
}

void run(Options o, const CommonOptions& common, const std::string& command) {
  o.run.shuffle = !o.no_shuffle;
  o.run.seed = common.seed;
  visit_compute(common.device, o.run.dtype,
                [&]<class T, class D>() { o.run.load = train::load_trainable<T, D>; });
  train::FineTune run(o.run);
  print_warnings("fine_tune", run.base().warnings());
  describe_data(o.run.data, run.data().dataset());
  if (run.eval_data()) describe_data(o.run.eval_data, *run.eval_data());
  run.on_warning = [](const std::string& text) { print_warnings("fine_tune", {text}); };
  run.begin(o.resume ? train::FineTune::Start::resume : train::FineTune::Start::fresh);
  if (run.found_finished()) {
    print(stderr, "{}: done already, {} steps\n", o.run.output, run.state().step);
  } else {
    if (run.resumed_from()) {
      print(stderr, "resuming from {} at step {}\n", run.resumed_from()->string(),
            run.state().step + 1);
    } else if (o.resume) {
      print(stderr, "{}: no checkpoint to resume from, starting at step 1\n", o.run.output);
    }
    report_forecast(run);
    train_all(run, command);
  }
  run.finish();
  const Json s = summary(run);
  if (common.json) {
    print("{}\n", io::dump(s));
  } else {
    report(s);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "fine_tune", "Trains LoRA adapters on a checkpoint.",
      [&](CLI::App& app) { declare(app, o); },
      [&](const CommonOptions& common) {
        const TraceSession trace;  // where ESPALIER_TRACE names a file
        run(o, common, shell_command_with(argc, argv, "--resume"));
      });
}
