// SPDX-License-Identifier: Apache-2.0
// fine_tune: trains LoRA adapters on a checkpoint, dense or a mixture, and writes them as a PEFT
// adapter folder.
//   fine_tune --model mixtral --data train.jsonl --output run --target q,k,v,o --lora-r 16
//             --lora-alpha 32 --epochs 1 --batch-size 2 --grad-accum 8 --lr 2e-4 --schedule cosine
// While it runs: train_log.jsonl (a line per step) and checkpoint-N/ folders. Ctrl-C saves one
// more; the same command with --resume goes on with the same bits as if nothing had happened.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>

#include <espalier/core/shell.hpp>
#include <espalier/eval/fingerprint.hpp>
#include <espalier/hub/forecast.hpp>
#include <espalier/hub/load_model.hpp>
#include <espalier/ops/trace_session.hpp>
#include <espalier/plot/curves.hpp>
#include <espalier/text/choose_template.hpp>
#include <espalier/text/tokenizer.hpp>
#include <espalier/train/balancing.hpp>
#include <espalier/train/checkpoints.hpp>
#include <espalier/train/dataset.hpp>
#include <espalier/train/packing.hpp>
#include <espalier/train/run_state.hpp>
#include <espalier/train/train_log.hpp>
#include <espalier/train/trainer.hpp>

#include "cli/compute.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;
namespace fs = std::filesystem;
using io::Json;

struct Options {
  std::string model, data, output, adapter, eval_data, dtype = "f32", schedule = "linear";
  std::string chat_template = "auto";
  LoraConfig lora{8, 8, 0, false, {"q", "k", "v", "o"}};
  std::int64_t steps = 0, batch_size = 1, grad_accum = 1, max_length = 1024, warmup = 0;
  std::int64_t save_every = 100, eval_every = 0;
  int keep_checkpoints = 3;
  double epochs = 1, lr = 2e-4, weight_decay = 0, clip = 1, aux_loss = 0;
  bool packing = false, no_shuffle = false, resume = false, recompute = false;
};

void declare(CLI::App& app, Options& o) {
  const auto positive = CLI::Range(std::int64_t{1}, std::int64_t{1} << 40);
  const auto count = CLI::Range(std::int64_t{0}, std::int64_t{1} << 40);
  app.add_option("--model", o.model, "Checkpoint folder in Hugging Face layout")->required();
  app.add_option("--data", o.data, "JSONL with messages, prompt/response, or text")->required();
  app.add_option("--output", o.output, "Folder for the adapter, the log and checkpoints")
      ->required();
  app.add_flag("--resume", o.resume,
               "Go on from the newest checkpoint in --output, if there is one");

  auto* adapter = app.add_option(
      "--adapter", o.adapter, "Continue from this PEFT adapter, with its rank, alpha and targets");
  const char* lora = "Adapter";
  adapter->group(lora);
  for (CLI::Option* option :
       {app.add_option("--lora-r", o.lora.r, "Rank")->check(CLI::Range(1, 1 << 16)),
        app.add_option("--lora-alpha", o.lora.alpha, "Scale is alpha / r")
            ->check(CLI::PositiveNumber),
        static_cast<CLI::Option*>(
            app.add_flag("--rslora", o.lora.rslora, "Scale is alpha / sqrt(r)")),
        app.add_option("--target", o.lora.targets,
                       "Comma list of q,k,v,o,gate,up,down,router (of Mixtral w1,w3,w2, and gate "
                       "is its router); all (every linear layer but head and router), all+router")
            ->delimiter(',')}) {
    option->excludes(adapter)->group(lora);
  }
  app.add_option("--lora-dropout", o.lora.dropout, "Dropout before the adapter")
      ->check(CLI::Range(0.0, 0.999))
      ->group(lora);

  const char* data = "Data";
  app.add_option("--max-length", o.max_length, "Longer examples are cut on the right")
      ->check(CLI::Range(std::int64_t{2}, std::int64_t{1} << 24))
      ->group(data);
  app.add_flag("--packing", o.packing,
               "Several examples share a row, each attending to itself only")
      ->group(data);
  app.add_flag("--no-shuffle", o.no_shuffle, "Keep the order of the file")->group(data);
  app.add_option("--chat-template", o.chat_template,
                 "auto (the checkpoint's), none, chatml, mixtral or mixtral-v1")
      ->check(CLI::IsMember({"auto", "none", "chatml", "mixtral", "mixtral-v1"}))
      ->group(data);
  app.add_option("--eval-data", o.eval_data, "Held-out JSONL; its loss is logged")->group(data);
  app.add_option("--eval-every", o.eval_every, "Steps between; 0: after the last step only")
      ->check(count)
      ->group(data);

  const char* training = "Training";
  auto* steps = app.add_option("--steps", o.steps, "Optimizer steps, instead of --epochs");
  steps->check(positive)->group(training);
  app.add_option("--epochs", o.epochs, "Passes over the data")
      ->check(CLI::PositiveNumber)
      ->excludes(steps)
      ->group(training);
  app.add_option("--batch-size", o.batch_size, "Rows per micro-batch")
      ->check(positive)
      ->group(training);
  app.add_option("--grad-accum", o.grad_accum, "Micro-batches per step")
      ->check(positive)
      ->group(training);
  app.add_option("--lr", o.lr, "Learning rate")->check(CLI::NonNegativeNumber)->group(training);
  app.add_option("--schedule", o.schedule, "constant, linear or cosine")
      ->check(CLI::IsMember({"constant", "linear", "cosine"}))
      ->group(training);
  app.add_option("--warmup", o.warmup, "Steps of linear warmup; the first has rate 0")
      ->check(count)
      ->group(training);
  app.add_option("--weight-decay", o.weight_decay, "Decoupled weight decay")
      ->check(CLI::NonNegativeNumber)
      ->group(training);
  app.add_option("--clip", o.clip, "Largest gradient norm; 0: no clipping")
      ->check(CLI::NonNegativeNumber)
      ->group(training);
  app.add_option("--aux-loss", o.aux_loss, "Coefficient of the load-balancing loss; 0: off")
      ->check(CLI::NonNegativeNumber)
      ->group(training);
  app.add_option("--dtype", o.dtype, "Computation in f32 or bf16")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->group(training);
  app.add_flag("--recompute", o.recompute,
               "Recompute layers in backward: less memory, the same result, more time")
      ->group(training);
  app.add_option("--save-every", o.save_every, "Steps between checkpoints; 0: none but on Ctrl-C")
      ->check(count)
      ->group(training);
  app.add_option("--keep-checkpoints", o.keep_checkpoints, "Newest checkpoints kept; 0: all")
      ->check(CLI::Range(0, 1 << 20))
      ->group(training);
}

class TrainingData {
 public:
  TrainingData(const Options& o, const DecoderConfig& config)
      : tokenizer_(text::Tokenizer::load(o.model)),
        chosen_(text::choose_template(o.model, tokenizer_, o.chat_template)),
        vocabulary_(config.vocab_size) {
    options_.max_length = o.max_length;
    if (!config.eos_token_ids.empty()) options_.eos = config.eos_token_ids.front();
    train_ = read(o.data);
    rows_ = o.packing ? train::pack_examples(train_.examples, o.max_length)
                      : train::one_example_per_row(train_.examples.size());
    if (o.eval_data.empty()) return;
    const train::Dataset held_out = read(o.eval_data);
    const auto rows = train::one_example_per_row(held_out.examples.size());
    const auto size = static_cast<std::size_t>(o.batch_size);
    for (std::size_t first = 0; first < rows.size(); first += size) {
      const std::size_t last = std::min(rows.size(), first + size);
      eval_.push_back(
          train::make_batch(held_out.examples, {rows.begin() + static_cast<std::ptrdiff_t>(first),
                                                rows.begin() + static_cast<std::ptrdiff_t>(last)}));
    }
  }

  const train::Dataset& examples() const { return train_; }
  const std::vector<train::Row>& rows() const { return rows_; }
  const std::vector<train::Batch>& eval_batches() const { return eval_; }
  std::string template_name() const {
    return chosen_.chat ? std::string(chosen_.chat->name()) : "none";
  }

  train::Batch batch(const std::vector<std::int64_t>& numbers) const {
    std::vector<train::Row> chosen;
    for (const std::int64_t i : numbers) chosen.push_back(rows_[static_cast<std::size_t>(i)]);
    return train::make_batch(train_.examples, chosen);
  }

  /// Of the tokenizer's file and of what the template makes of a conversation.
  std::uint64_t words_fingerprint() const {
    return stream_of(io::read_text(tokenizer_.file()) + io::dump(template_probe()));
  }

  /// Tokens of the longest rows that can meet in one micro-batch.
  std::int64_t largest_batch(std::int64_t batch_size) const {
    std::vector<std::int64_t> lengths;
    for (const train::Row& row : rows_) {
      std::int64_t length = 0;
      for (const std::int64_t i : row) {
        length +=
            static_cast<std::int64_t>(train_.examples[static_cast<std::size_t>(i)].ids.size());
      }
      lengths.push_back(length);
    }
    std::sort(lengths.rbegin(), lengths.rend());
    lengths.resize(
        static_cast<std::size_t>(std::min(batch_size, static_cast<std::int64_t>(lengths.size()))));
    return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  }

  /// What the adapter has learned to answer to: a fixed conversation as this run rendered it. A
  /// server whose template or tokenizer gives other ids than these will not match the training.
  Json template_probe() const {
    Json probe = Json::object();
    probe["template"] = template_name();
    if (!chosen_.chat) return probe;
    const std::vector<text::Message> messages = {
        {"user", "How many apples?"}, {"assistant", "Two."}, {"user", "And pears?"}};
    const std::string rendered = chosen_.chat->render(messages, true);
    Json list = Json::array();
    for (const text::Message& m : messages) {
      Json turn = Json::object();
      turn["role"] = m.role;
      turn["content"] = m.content;
      list.push_back(turn);
    }
    probe["messages"] = list;
    probe["text"] = rendered;
    probe["ids"] = Json::array(tokenizer_.encode(rendered, false));
    return probe;
  }

 private:
  train::Dataset read(const std::string& path) const {
    train::RenderChat render;
    if (chosen_.chat) {
      render = [this](const std::vector<text::Message>& m) {
        return chosen_.chat->render_segments(m);
      };
    }
    const auto encode = [this](std::string_view text, bool add_special) {
      return tokenizer_.encode(text, add_special);
    };
    train::Dataset data = train::DatasetReader(encode, render, options_).read(path);
    for (const train::Example& e : data.examples) {
      for (const std::int32_t id : e.ids) {
        ESP_REQUIRE(id < vocabulary_, FormatError, tokenizer_.file(), ": token id ", id,
                    " is beyond the model's vocabulary of ", vocabulary_,
                    "; tokenizer and checkpoint do not belong together");
      }
    }
    fmt::print(stderr, "{}: {} examples, {} tokens, {} of them trained on\n", path,
               data.examples.size(), data.tokens, data.targets);
    if (data.joined_pairs > 0) {
      fmt::print(stderr, "{}: prompts and responses are joined without a chat template ({})\n",
                 path, chosen_.why_none);
    }
    if (data.cut > 0) {
      fmt::print(stderr, "{}: {} examples cut to {} tokens\n", path, data.cut, options_.max_length);
    }
    if (data.dropped > 0) {
      fmt::print(stderr, "{}: {} examples dropped, nothing to train on within {} tokens\n", path,
                 data.dropped, options_.max_length);
    }
    return data;
  }

  text::Tokenizer tokenizer_;
  text::ChosenTemplate chosen_;
  std::int64_t vocabulary_;
  train::DatasetOptions options_;
  train::Dataset train_;
  std::vector<train::Row> rows_;
  std::vector<train::Batch> eval_;
};

/// f32 multiply-adds per second of a matrix product of the model's kind, for the forecast.
double measured_flops_per_second(const DecoderConfig& c) {
  const std::int64_t in = std::min<std::int64_t>(c.hidden_size, 1024);
  const std::int64_t out = std::min<std::int64_t>(
                         c.has_mixture() ? c.mixture.width : c.intermediate_size, 2048),
                     rows = 128;
  const NoGrad no_grad;
  const Var<float> x(Tensor<float>(Shape{rows, in}, 0.5f));
  const AnyVar w(Tensor<float>(Shape{out, in}, 0.5f));
  (void)linear(x, w);  // warms caches and threads
  const auto begin = std::chrono::steady_clock::now();
  double seconds = 0, flops = 0;
  while (seconds < 0.05) {
    (void)linear(x, w);
    flops += 2.0 * static_cast<double>(rows * in * out);
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  return flops / seconds;
}

class FineTune {
 public:
  FineTune(const Options& o, const CommonOptions& common, std::string command)
      : o_(o),
        common_(common),
        command_(std::move(command)),
        output_(o.output),
        checkpoints_(output_, o.keep_checkpoints),
        base_(o.model),
        lora_(adapter_of(o, base_)),
        data_(o, base_.config()) {
    visit_compute(common.device, o.dtype, [this]<class T, class D>() { load<T, D>(); });
    if (!o.adapter.empty()) load_adapter(o.adapter);
    plan_steps();
  }

  void run() {
    if (!begin()) return;
    report_forecast();
    train();
    finish();
  }

 private:
  // --- before the first step ---
  /// What is to be trained, checked against the model before anything is read that takes time.
  static LoraConfig adapter_of(const Options& o, const hub::Checkpoint& base) {
    if (o.aux_loss > 0) train::require_balancing_loss(base);
    if (o.adapter.empty()) {
      (void)resolve_targets(base.config(), o.lora.targets);
      return o.lora;
    }
    const io::Adapter from = io::read_adapter(o.adapter);
    hub::check_adapter_fits(from, base.config(), o.adapter);
    LoraConfig lora = hub::lora_config_of(from, base.config(), o.adapter);
    lora.dropout = o.lora.dropout;
    return lora;
  }
  template <FloatElement T, Device D>
  void load() {
    Decoder<T, D> model(base_.config(),
                        [this](const std::string& name) { return base_.tensor(name); });
    model.add_lora(lora_, common_.seed);
    parameters_ = model.parameters();
    objective_ = objective_of(model);
  }

  void load_adapter(const fs::path& folder) {
    hub::load_adapter_values(parameters_, io::read_adapter(folder), folder.string());
  }

  void plan_steps() {
    const auto rows = static_cast<std::int64_t>(data_.rows().size());
    sampler_ = std::make_unique<train::Sampler>(
        rows, train::SamplerConfig{o_.batch_size, o_.grad_accum, !o_.no_shuffle, common_.seed});
    const double per_epoch = static_cast<double>(sampler_->steps_per_epoch());
    state_.max_steps =
        o_.steps > 0 ? o_.steps : static_cast<std::int64_t>(std::ceil(o_.epochs * per_epoch));
    state_.steps_per_epoch = sampler_->steps_per_epoch();
    state_.batch_size = o_.batch_size;
    state_.save_every = o_.save_every;
    state_.arguments = arguments();
    const train::Schedule schedule{train::schedule_named(o_.schedule), o_.lr, o_.warmup,
                                   state_.max_steps};
    trainer_ = std::make_unique<train::Trainer>(
        parameters_, objective_,
        train::TrainerConfig{schedule,
                             {0.9, 0.999, 1e-8, o_.weight_decay},
                             o_.clip,
                             o_.aux_loss,
                             common_.seed,
                             o_.recompute,
                             train::has_balancing_loss(base_.config())});
  }

  static std::string fingerprint(std::uint64_t hash) { return fmt::format("{:016x}", hash); }

  /// Whatever would change the result. Of files, their content; with a constant rate a run may be
  /// made longer.
  Json arguments() const {
    Json a = Json::object();
    a["--model"] = eval::fingerprint_of_model(base_, {}, "weights");
    a["tokenizer and template of --model"] = fingerprint(data_.words_fingerprint());
    a["--data"] = fingerprint(data_.examples().fingerprint);
    a["--adapter"] = nullptr;
    if (!o_.adapter.empty()) {
      const std::string bytes = io::read_text(fs::path(o_.adapter) / "adapter_model.safetensors");
      a["--adapter"] = fingerprint(stream_of(bytes));
    }
    a["--lora-r"] = lora_.r;
    a["--lora-alpha"] = lora_.alpha;
    a["--lora-dropout"] = lora_.dropout;
    a["--rslora"] = lora_.rslora;
    a["--target"] = Json::array(lora_.targets);
    a["--batch-size"] = o_.batch_size;
    a["--grad-accum"] = o_.grad_accum;
    a["--max-length"] = o_.max_length;
    a["--packing"] = o_.packing;
    a["--no-shuffle"] = o_.no_shuffle;
    a["--chat-template"] = data_.template_name();
    a["--lr"] = o_.lr;
    a["--schedule"] = o_.schedule;
    a["--warmup"] = o_.warmup;
    a["--weight-decay"] = o_.weight_decay;
    a["--clip"] = o_.clip;
    a["--aux-loss"] = o_.aux_loss;
    a["--dtype"] = o_.dtype;
    a["--seed"] = common_.seed;
    if (o_.schedule != "constant") a["--steps"] = state_.max_steps;
    return a;
  }

  /// Starts or takes up the run. False: it is done already.
  bool begin() {
    const fs::path final_adapter = output_ / "adapter_model.safetensors";
    const bool used = fs::exists(final_adapter) || fs::exists(output_ / "train_log.jsonl") ||
                      checkpoints_.latest().has_value();
    ESP_REQUIRE(o_.resume || !used, IoError, o_.output,
                ": holds a run already; go on with --resume, or choose another --output");
    std::error_code error;
    fs::create_directories(output_, error);
    if (error) io::detail::throw_errno(output_, "create", error.value());
    checkpoints_.remove_leftovers();
    if (o_.resume && fs::exists(final_adapter) && fs::exists(output_ / "trainer_state.json")) {
      const train::RunState done = train::read_run_state(output_ / "trainer_state.json");
      train::require_same_arguments(done.arguments, state_.arguments, output_);
      if (done.step >= state_.max_steps) {
        fmt::print(stderr, "{}: done already, {} steps\n", o_.output, done.step);
        state_.step = done.step;
        state_.log = done.log;
        report();
        return false;
      }
    }
    if (o_.resume) take_up();
    fs::remove(final_adapter, error);  // it stands for a finished run
    log_ = std::make_unique<train::TrainLog>(output_ / "train_log.jsonl", state_.log);
    return true;
  }

  void take_up() {
    const auto from = checkpoints_.latest();
    if (!from) {
      fmt::print(stderr, "{}: no checkpoint to resume from, starting at step 1\n", o_.output);
      return;
    }
    const train::RunState saved = train::read_run_state(from->path / "trainer_state.json");
    train::require_same_arguments(saved.arguments, state_.arguments, from->path);
    load_adapter(from->path);
    const io::SafetensorsFile file(from->path / "optimizer.safetensors");
    std::unordered_map<std::string, AnyTensor> moments;
    for (const io::TensorInfo& t : file.tensors()) moments[t.name] = file.tensor(t);
    trainer_->optimizer().restore(saved.step, moments);
    state_.step = saved.step;
    state_.log = saved.log;
    fmt::print(stderr, "resuming from {} at step {}\n", from->path.string(), saved.step + 1);
  }

  std::int64_t trainable() const {
    std::int64_t n = 0;
    for (const NamedParameter& p : parameters_) n += p.var.any().numel();
    return n;
  }

  void report_forecast() const {
    const DecoderConfig& c = base_.config();
    const std::int64_t largest = data_.largest_batch(o_.batch_size);
    const auto memory = forecast_fine_tuning(c, static_cast<double>(base_.total_bytes()), lora_,
                                             trainable(), largest);
    const double examples = static_cast<double>(data_.examples().examples.size());
    const double tokens = static_cast<double>(data_.examples().tokens);
    const double rest = static_cast<double>(state_.max_steps - state_.step);
    const double per_step = tokens / static_cast<double>(state_.steps_per_epoch);
    const double flops = forecast_flops_per_token(c, trainable(), tokens / examples);
    const double rate = measured_flops_per_second(c);
    fmt::print(
        stderr,
        "memory: about {} = {} base weights (mapped) + {} adapter and gradients + {} optimizer "
        "+ {} activations of at most {} tokens\n",
        format_bytes(memory.total_bytes()), format_bytes(memory.weights_bytes),
        format_bytes(memory.adapter_bytes), format_bytes(memory.optimizer_bytes),
        format_bytes(memory.activation_bytes), largest);
    fmt::print(stderr,
               "time: about {} for {:.0f} steps of {:.0f} tokens ({:.2f} GFLOP per token, {:.0f} "
               "GFLOP/s in a matrix product)\n",
               format_duration(rest * per_step * flops / rate), rest, per_step, flops * 1e-9,
               rate * 1e-9);
  }

  // --- the steps ---
  void train() {
    (void)interrupted();  // from here on Ctrl-C saves first
    Progress progress("fine_tune", state_.max_steps, "steps");
    progress.start_at(state_.step);
    while (state_.step < state_.max_steps) {
      const Json entry = one_step();
      state_.log.push_back(entry);
      log_->append(entry);
      progress.update(state_.step, note(entry));
      const bool due = o_.save_every > 0 && state_.step % o_.save_every == 0;
      const bool stop = interrupted() && state_.step < state_.max_steps;
      if (due || stop) save_checkpoint();
      if (stop) {
        progress.clear();
        throw Interrupted(fmt::format("saved {}/checkpoint-{}, {} of {} steps done; to go on: {}",
                                      o_.output, state_.step, state_.step, state_.max_steps,
                                      command_));
      }
    }
  }

  Json one_step() {
    const auto begin = std::chrono::steady_clock::now();
    std::vector<train::Batch> micro_batches;
    for (const auto& rows : sampler_->micro_batches(state_.step)) {
      micro_batches.push_back(data_.batch(rows));
    }
    const train::StepResult r = step_or_advise(micro_batches);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    state_.step = r.step;
    Json entry = Json::object();
    entry["step"] = r.step;
    entry["epoch"] = static_cast<double>(r.step) / static_cast<double>(state_.steps_per_epoch);
    entry["loss"] = r.loss;
    entry["aux_loss"] = r.aux_loss;
    entry["grad_norm"] = r.grad_norm;
    entry["lr"] = r.lr;
    entry["tokens"] = r.tokens;
    entry["targets"] = r.targets;
    entry["tokens_per_second"] = static_cast<double>(r.tokens) / std::max(seconds, 1e-9);
    const bool evaluate =
        r.step == state_.max_steps || (o_.eval_every > 0 && r.step % o_.eval_every == 0);
    if (evaluate && !data_.eval_batches().empty()) {
      entry["eval_loss"] = trainer_->evaluate(data_.eval_batches());
    }
    return entry;
  }

  train::StepResult step_or_advise(const std::vector<train::Batch>& micro_batches) {
    try {
      return trainer_->step(micro_batches);
    } catch (const train::DivergedError& e) {
      const auto last = checkpoints_.latest();
      throw Error(fmt::format("{}; the last checkpoint is {}", e.what(),
                              last ? last->path.string() : std::string("none")));
    }
  }

  static std::string note(const Json& entry) {
    std::string text = fmt::format("loss {:.4f}", entry.at("loss").as_double());
    if (const Json* held_out = entry.find("eval_loss")) {
      text += fmt::format(", held-out {:.4f}", held_out->as_double());
    }
    return text;
  }

  void write_adapter(const fs::path& folder) const {
    io::AdapterConfig config;
    config.base_model = o_.model;
    config.r = lora_.r;
    config.alpha = lora_.alpha;
    config.dropout = lora_.dropout;
    config.rslora = lora_.rslora;
    config.target_modules = hub::target_modules_of(base_.config(), lora_.targets);
    std::vector<std::pair<std::string, AnyTensor>> tensors;
    for (const NamedParameter& p : parameters_) tensors.emplace_back(p.name, p.var.any().on_host());
    io::write_adapter(folder, config, tensors);
  }
  void write_state(const fs::path& folder) const {
    io::write_text(folder / "trainer_state.json", io::dump(train::to_json(state_), 2) + "\n");
    io::write_text(folder / "chat_template_probe.json", io::dump(data_.template_probe(), 2) + "\n");
  }

  void save_checkpoint() const {
    checkpoints_.save(state_.step, [this](const fs::path& folder) {
      write_state(folder);
      io::save_safetensors(folder / "optimizer.safetensors", trainer_->optimizer().state());
      write_adapter(folder);
    });
  }

  // --- after the last step ---
  void finish() const {
    write_state(output_);
    draw_curves();
    write_adapter(output_);  // the last file: now the folder is an adapter
    report();
  }

  void draw_curves() const {
    plot::Series loss{"loss", {}, {}}, held_out{"held-out loss", {}, {}};
    for (const Json& entry : state_.log) {
      const double step = entry.at("step").as_double();
      loss.x.push_back(step);
      loss.y.push_back(entry.at("loss").as_double());
      if (const Json* value = entry.find("eval_loss")) {
        held_out.x.push_back(step);
        held_out.y.push_back(value->as_double());
      }
    }
    loss.smoothing = static_cast<double>(state_.log.size()) / 50;
    held_out.markers = true;
    plot::Curves curves;
    curves.labels = {"Training loss", "optimizer step", "mean loss per target"};
    curves.series.push_back(loss);
    if (!held_out.x.empty()) curves.series.push_back(held_out);
    plot::save(curves, output_ / "loss.png");
    plot::save(curves, output_ / "loss.svg");
  }

  Json summary() const {
    std::int64_t tokens = 0;
    for (const Json& entry : state_.log) tokens += entry.at("tokens").as_int();
    Json s = Json::object();
    s["output"] = o_.output;
    s["steps"] = state_.step;
    s["epochs"] = static_cast<double>(state_.step) / static_cast<double>(state_.steps_per_epoch);
    s["trainable_parameters"] = trainable();
    s["first_loss"] = state_.log.front().at("loss");
    s["last_loss"] = state_.log.back().at("loss");
    if (const Json* held_out = state_.log.back().find("eval_loss")) s["eval_loss"] = *held_out;
    s["tokens"] = tokens;
    s["peak_memory_bytes"] = peak_memory_bytes();
    return s;
  }

  void report() const {
    const Json s = summary();
    if (common_.json) {
      fmt::print("{}\n", io::dump(s));
      return;
    }
    fmt::print("adapter      {}\n", o_.output);
    fmt::print("steps        {} ({:.2f} epochs, {} tokens)\n", state_.step,
               s.at("epochs").as_double(), s.at("tokens").as_int());
    fmt::print("parameters   {} trained\n", trainable());
    fmt::print("loss         {:.4f} at the first step, {:.4f} at the last\n",
               s.at("first_loss").as_double(), s.at("last_loss").as_double());
    if (const Json* held_out = s.find("eval_loss")) {
      fmt::print("held-out     {:.4f}\n", held_out->as_double());
    }
    fmt::print("curve        {}\n", (output_ / "loss.png").string());
  }

  const Options& o_;
  const CommonOptions& common_;
  std::string command_;
  fs::path output_;
  train::Checkpoints checkpoints_;
  hub::Checkpoint base_;
  LoraConfig lora_;
  TrainingData data_;
  ObjectiveFunction objective_;
  std::vector<NamedParameter> parameters_;
  std::unique_ptr<train::Sampler> sampler_;
  std::unique_ptr<train::Trainer> trainer_;
  std::unique_ptr<train::TrainLog> log_;
  train::RunState state_;
};

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "fine_tune", "Trains LoRA adapters on a checkpoint.",
      [&](CLI::App& app) { declare(app, o); },
      [&](const CommonOptions& common) {
        const TraceSession trace;  // where ESPALIER_TRACE names a file
        FineTune(o, common, shell_command_with(argc, argv, "--resume")).run();
      });
}
