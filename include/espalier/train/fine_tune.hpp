// SPDX-License-Identifier: Apache-2.0
// Fine-tuning a checkpoint with LoRA, as an object for a loop of the caller's own; the program
// fine_tune is such a loop.
//   train::FineTune run({.model = "mixtral", .data = "train.jsonl", .output = "run"});
//   run.begin();
//   while (!run.done()) run.step();
//   run.finish();
// The output folder gets train_log.jsonl (a line per step), checkpoint-N/ folders, and at the end a
// PEFT adapter. A run that is stopped and resumed from a checkpoint writes the same bytes as an
// uninterrupted one, except for the rates in the log.
#pragma once

#ifdef __CUDACC__
#error "espalier/train/fine_tune.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <espalier/data/training_set.hpp>
#include <espalier/hub/forecast.hpp>
#include <espalier/hub/load_model.hpp>
#include <espalier/models/model_loss.hpp>
#include <espalier/train/checkpoints.hpp>
#include <espalier/train/run_state.hpp>
#include <espalier/train/train_log.hpp>

namespace espalier::train {

/// A model with adapters: its parameters, and the loss as a function of them.
struct Trainable {
  std::vector<NamedParameter> parameters;
  ObjectiveFunction objective;
};

/// The checkpoint's model, computing in T on D, with fresh LoRA adapters drawn from `seed`.
template <FloatElement T = float, Device D = Cpu>
[[nodiscard]] Trainable load_trainable(const hub::Checkpoint& base, const LoraConfig& lora,
                                       std::uint64_t seed) {
  Decoder<T, D> model(base.config(), [&](const std::string& name) { return base.tensor(name); });
  model.add_lora(lora, seed);
  return {model.parameters(), objective_of(model)};
}

struct FineTuneConfig {
  std::string model = {};      // checkpoint folder in Hugging Face layout
  std::string data = {};       // JSONL file (data/records.hpp)
  std::string output = {};     // folder for the adapter, the log and checkpoints
  std::string adapter = {};    // a PEFT adapter folder to go on from; empty: a fresh adapter
  std::string eval_data = {};  // held-out JSONL file; empty: none
  std::string chat_template = "auto";                     // as text::ChatTokenizer::load takes it
  LoraConfig lora{8, 8, 0, false, {"q", "k", "v", "o"}};  // with `adapter` its dropout only

  std::int64_t steps = 0;  // optimizer steps; 0: as many as `epochs` has
  double epochs = 1;
  std::int64_t batch_size = 1;  // rows per micro-batch
  std::int64_t grad_accum = 1;  // micro-batches per step
  std::int64_t max_length = 1024;
  bool packing = false, shuffle = true;
  std::int64_t eval_every = 0;  // steps between two held-out losses; 0: after the last one only

  double lr = 2e-4;
  std::string schedule = "linear";  // constant, linear or cosine
  std::int64_t warmup = 0;
  double weight_decay = 0;
  double clip = 1;      // largest gradient norm; 0: no clipping
  double aux_loss = 0;  // coefficient of the load-balancing loss
  bool recompute = false;
  std::uint64_t seed = 0;

  std::int64_t save_every = 100;  // steps between checkpoints; 0: only one, at the end
  int keep_checkpoints = 3;       // the newest; 0: all

  /// How the model computes, and `dtype`, its name in messages and state.
  std::function<Trainable(const hub::Checkpoint&, const LoraConfig&, std::uint64_t seed)> load =
      load_trainable<float, Cpu>;
  std::string dtype = "f32";
};

class FineTune {
 public:
  enum class Start { fresh, resume };

  /// Reads the data and loads the model; writes nothing.
  /// @throws UsageError, FormatError, IoError
  explicit FineTune(FineTuneConfig config);

  /// Prepares the output folder, and locks it for the life of this object. `fresh`: it must not
  /// hold a run. `resume`: continues from its newest checkpoint that can be read, if it has any.
  /// Deletes nothing.
  /// @throws IoError for a folder in use, or with an adapter of another origin; UsageError when the
  /// run began with other arguments, other weights or another tokenizer, naming them, and for an
  /// output within an input or around one
  void begin(Start how = Start::fresh);
  /// The checkpoint that `begin` resumed from.
  const std::optional<std::filesystem::path>& resumed_from() const { return resumed_from_; }
  /// Did `begin` find that all steps are done, and the adapter written?
  bool found_finished() const { return found_finished_; }
  /// Called with what `begin` and `finish` could not do, though the run goes on: a checkpoint that
  /// is damaged, a picture that cannot be written.
  std::function<void(const std::string&)> on_warning = {};

  bool done() const { return state_.step >= state_.max_steps; }
  /// One optimizer step, its line in the log, and a checkpoint where one is due. Returns the line.
  /// @throws Error if loss or gradient is not finite; the step then updates nothing
  const io::Json& step();
  /// Writes a checkpoint of this step. Returns its folder.
  std::filesystem::path save() const;
  /// Writes a checkpoint of the last step, the adapter, the state and the loss curve. Does nothing
  /// if `begin` found a finished run.
  void finish();

  const FineTuneConfig& config() const { return config_; }
  const hub::Checkpoint& base() const { return base_; }
  const data::TrainingSet& data() const { return data_; }
  const std::optional<data::Dataset>& eval_data() const { return eval_data_; }
  const std::vector<NamedParameter>& parameters() const { return trainable_.parameters; }
  /// Number of trained values.
  std::int64_t parameter_count() const;
  /// Steps done, of how many, the log so far.
  const RunState& state() const { return state_; }

  /// Memory that training will take.
  MemoryForecast memory_forecast() const;
  /// Tokens of a step and floating-point operations of a token, on average.
  double tokens_per_step() const;
  double flops_per_token() const;

 private:
  static LoraConfig lora_of(const FineTuneConfig& config, const hub::Checkpoint& base);
  void load_adapter(const std::filesystem::path& folder);
  void prepare_steps();
  io::Json arguments() const;
  bool is_finished() const;
  void take_up();
  std::string take_up(const std::filesystem::path& checkpoint);
  StepResult step_or_advise(const std::vector<data::Batch>& micro_batches);
  void write_adapter(const std::filesystem::path& folder) const;
  void write_state(const std::filesystem::path& folder) const;

  FineTuneConfig config_;
  std::filesystem::path output_;
  Checkpoints checkpoints_;
  hub::Checkpoint base_;
  LoraConfig lora_;
  text::ChatTokenizer words_;
  data::TrainingSet data_;
  std::optional<data::Dataset> eval_data_;
  std::vector<data::Batch> eval_batches_;
  Trainable trainable_;
  std::unique_ptr<data::Sampler> sampler_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<TrainLog> log_;
  std::optional<std::filesystem::path> resumed_from_;
  std::optional<io::OutputLock> lock_;
  bool found_finished_ = false;
  RunState state_;
};

}  // namespace espalier::train

#ifdef ESP_BODIES
#include <chrono>
#include <cmath>
#include <unordered_map>

#include <espalier/hub/fingerprint.hpp>
#include <espalier/train/balancing.hpp>
#include <espalier/train/loss_curve.hpp>

namespace espalier::train {

ESP_INLINE FineTune::FineTune(FineTuneConfig config)
    : config_(std::move(config)),
      output_(config_.output),
      checkpoints_(output_, config_.keep_checkpoints),
      base_(config_.model),
      lora_(lora_of(config_, base_)),
      words_(text::ChatTokenizer::load(config_.model, config_.chat_template)),
      data_(data::read_dataset(config_.data, data::record_encoder(words_, base_.config()),
                               config_.max_length),
            config_.packing) {
  if (!config_.eval_data.empty()) {
    eval_data_ = data::read_dataset(config_.eval_data, data::record_encoder(words_, base_.config()),
                                    config_.max_length);
    eval_batches_ = data::batches_in_order(*eval_data_, config_.batch_size);
  }
  trainable_ = config_.load(base_, lora_, config_.seed);
  if (!config_.adapter.empty()) load_adapter(config_.adapter);
  prepare_steps();
}

/// Checks the targets against the model before anything slow is read.
ESP_INLINE LoraConfig FineTune::lora_of(const FineTuneConfig& config, const hub::Checkpoint& base) {
  if (config.aux_loss > 0) require_balancing_loss(base);
  if (config.adapter.empty()) {
    (void)resolve_targets(base.config(), config.lora.targets);
    return config.lora;
  }
  const io::Adapter from = io::read_adapter(config.adapter);
  hub::check_adapter_fits(from, base.config(), config.adapter);
  LoraConfig lora = hub::lora_config_of(from, base.config(), config.adapter);
  lora.dropout = config.lora.dropout;
  return lora;
}

ESP_INLINE void FineTune::load_adapter(const std::filesystem::path& folder) {
  hub::load_adapter_values(trainable_.parameters, io::read_adapter(folder), folder.string());
}

ESP_INLINE void FineTune::prepare_steps() {
  sampler_ = std::make_unique<data::Sampler>(
      data_.rows(),
      data::SamplerConfig{config_.batch_size, config_.grad_accum, config_.shuffle, config_.seed});
  state_.steps_per_epoch = sampler_->steps_per_epoch();
  state_.max_steps = config_.steps;
  if (config_.steps == 0) {
    const double steps = config_.epochs * static_cast<double>(state_.steps_per_epoch);
    state_.max_steps = static_cast<std::int64_t>(std::ceil(steps));
  }
  state_.batch_size = config_.batch_size;
  state_.save_every = config_.save_every;
  state_.arguments = arguments();
  TrainerConfig trainer;
  trainer.schedule = {optim::schedule_named(config_.schedule), config_.lr, config_.warmup,
                      state_.max_steps};
  trainer.adamw = {0.9, 0.999, 1e-8, config_.weight_decay};
  trainer.clip = config_.clip;
  trainer.aux_coefficient = config_.aux_loss;
  trainer.seed = config_.seed;
  trainer.recompute_layers = config_.recompute;
  trainer.want_aux = has_balancing_loss(base_.config());
  trainer_ = std::make_unique<Trainer>(trainable_.parameters, trainable_.objective, trainer);
}

/// Everything that affects the result; of files, their content. With a constant rate a run may be
/// extended.
ESP_INLINE io::Json FineTune::arguments() const {
  const io::Json adapter =
      config_.adapter.empty() ? io::Json() : io::Json(hub::fingerprint_of_adapter(config_.adapter));
  const std::pair<const char*, io::Json> fields[] = {
      {"model", hub::fingerprint_of_weights(base_)},
      {"tokenizer and template", words_.fingerprint()},
      {"data", io::Fingerprint().add(data_.dataset().fingerprint).text()},
      {"adapter", adapter},
      {"lora_r", lora_.r},
      {"lora_alpha", lora_.alpha},
      {"lora_dropout", lora_.dropout},
      {"rslora", lora_.rslora},
      {"target", io::Json::array(lora_.targets)},
      {"batch_size", config_.batch_size},
      {"grad_accum", config_.grad_accum},
      {"max_length", config_.max_length},
      {"packing", config_.packing},
      {"shuffle", config_.shuffle},
      {"chat_template", words_.template_name()},
      {"lr", config_.lr},
      {"schedule", config_.schedule},
      {"warmup", config_.warmup},
      {"weight_decay", config_.weight_decay},
      {"clip", config_.clip},
      {"aux_loss", config_.aux_loss},
      {"dtype", config_.dtype},
      {"seed", config_.seed},
  };
  io::Json a = io::Json::object();
  for (const auto& [key, value] : fields) a[key] = value;
  if (config_.schedule != "constant") a["steps"] = state_.max_steps;
  return a;
}

/// Has an earlier run of the same arguments done all steps and written its adapter?
ESP_INLINE bool FineTune::is_finished() const {
  const std::filesystem::path state = output_ / "trainer_state.json";
  if (!std::filesystem::exists(output_ / io::kAdapterTensorFile)) return false;
  if (!std::filesystem::exists(state)) return false;
  const RunState done = read_run_state(state);
  require_same_arguments(done.arguments, state_.arguments, output_);
  return done.step >= state_.max_steps;
}

ESP_INLINE void FineTune::begin(Start how) {
  for (const std::string& input : {config_.model, config_.adapter}) {
    if (!input.empty()) io::require_apart(output_, input);
  }
  lock_ = io::open_output(output_);
  const bool adapter = std::filesystem::exists(output_ / io::kAdapterTensorFile);
  const bool run = std::filesystem::exists(output_ / "train_log.jsonl") ||
                   std::filesystem::exists(output_ / "trainer_state.json") ||
                   checkpoints_.newest().has_value();
  ESP_REQUIRE(how == Start::resume || !(adapter || run), IoError, config_.output,
              ": holds a run already; resume it, or choose another output folder");
  ESP_REQUIRE(run || !adapter, IoError, config_.output,
              ": holds an adapter that was not trained here, and would be lost; choose another "
              "output folder");
  if (run) {
    found_finished_ = is_finished();
    if (found_finished_) {
      RunState done = read_run_state(output_ / "trainer_state.json");
      state_.step = done.step;
      state_.log = std::move(done.log);
      return;
    }
    take_up();
  }
  log_ = std::make_unique<TrainLog>(output_ / "train_log.jsonl", state_.log);
}

/// Goes on from the newest checkpoint that can be read.
ESP_INLINE void FineTune::take_up() {
  const std::vector<Checkpoints::Entry> all = checkpoints_.list();
  std::string why;
  for (auto it = all.rbegin(); it != all.rend(); ++it) {
    const std::string damage = take_up(it->path);
    if (damage.empty()) {
      resumed_from_ = it->path;
      return;
    }
    if (on_warning) on_warning(damage);
    why += (why.empty() ? "" : "; ") + damage;
  }
  ESP_REQUIRE(all.empty(), FormatError, config_.output, ": no checkpoint can be used: ", why,
              "; remove them to start anew");
  ESP_REQUIRE(!std::filesystem::exists(output_ / "trainer_state.json"), IoError, config_.output,
              ": holds a finished adapter and no checkpoint to go on from; choose another output "
              "folder");
}

/// Returns why the checkpoint cannot be used, or nothing.
ESP_INLINE std::string FineTune::take_up(const std::filesystem::path& checkpoint) {
  try {
    RunState saved = read_run_state(checkpoint / "trainer_state.json");
    require_same_arguments(saved.arguments, state_.arguments, checkpoint);
    ESP_REQUIRE(saved.step <= state_.max_steps, UsageError, checkpoint.string(), ": step ",
                saved.step, " is beyond the last one, ", state_.max_steps,
                "; ask for more steps, or choose another output folder");
    const io::SafetensorsFile file(checkpoint / "optimizer.safetensors");
    std::unordered_map<std::string, AnyTensor> moments;
    for (const io::TensorInfo& t : file.tensors()) moments[t.name] = file.tensor(t);
    load_adapter(checkpoint);
    trainer_->optimizer().restore(saved.step, moments);
    state_.step = saved.step;
    state_.log = std::move(saved.log);
    return {};
  } catch (const UsageError&) {
    throw;
  } catch (const Error& e) {
    return espalier::detail::concat({checkpoint.string(), ": cannot be used: ", e.what()});
  }
}

ESP_INLINE const io::Json& FineTune::step() {
  ESP_REQUIRE(log_ && !done(), Error, "fine-tuning: begin() comes before step(), and after ",
              state_.max_steps, " steps there is none");
  const auto begin = std::chrono::steady_clock::now();
  std::vector<data::Batch> micro_batches;
  for (const auto& rows : sampler_->micro_batches(state_.step)) {
    micro_batches.push_back(data_.batch(rows));
  }
  const StepResult r = step_or_advise(micro_batches);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  state_.step = r.step;
  io::Json entry = log_entry(r, seconds.count(), state_.steps_per_epoch);
  const bool evaluate = done() || (config_.eval_every > 0 && state_.step % config_.eval_every == 0);
  if (evaluate && !eval_batches_.empty()) entry["eval_loss"] = trainer_->evaluate(eval_batches_);
  state_.log.push_back(entry);
  log_->append(std::move(entry));
  if (config_.save_every > 0 && state_.step % config_.save_every == 0) save();
  return state_.log.back();
}

ESP_INLINE StepResult FineTune::step_or_advise(const std::vector<data::Batch>& micro_batches) {
  try {
    return trainer_->step(micro_batches);
  } catch (const DivergedError& e) {
    const auto last = checkpoints_.newest();
    throw Error(espalier::detail::concat(
        {e.what(), "; the last checkpoint is ", last ? last->path.string() : std::string("none")}));
  }
}

ESP_INLINE void FineTune::write_adapter(const std::filesystem::path& folder) const {
  io::AdapterConfig config;
  config.base_model = config_.model;
  config.r = lora_.r;
  config.alpha = lora_.alpha;
  config.dropout = lora_.dropout;
  config.rslora = lora_.rslora;
  config.target_modules = hub::target_modules_of(base_.config(), lora_.targets);
  std::vector<std::pair<std::string, AnyTensor>> tensors;
  for (const NamedParameter& p : parameters()) tensors.emplace_back(p.name, p.var.any().on_host());
  io::write_adapter(folder, config, tensors);
}

ESP_INLINE void FineTune::write_state(const std::filesystem::path& folder) const {
  io::write_text(folder / "chat_template_probe.json", io::dump(words_.probe(), 2) + "\n");
  io::write_text(folder / "trainer_state.json", io::dump(to_json(state_), 2) + "\n");
}

ESP_INLINE std::filesystem::path FineTune::save() const {
  ESP_REQUIRE(lock_, Error, "fine-tuning: begin() comes before save()");
  return checkpoints_.save(state_.step, *lock_, [this](const std::filesystem::path& folder) {
    write_state(folder);
    const auto moments = trainer_->optimizer().state();
    for (const auto& [name, t] : moments) require_finite("optimizer.safetensors", name, t);
    io::save_safetensors(folder / "optimizer.safetensors", moments);
    write_adapter(folder);
  });
}

/// A run that is killed here goes on from the last checkpoint, and finishes again.
ESP_INLINE void FineTune::finish() {
  if (found_finished_) return;
  const auto newest = checkpoints_.newest();
  if (!newest || newest->step != state_.step) save();
  checkpoints_.remove_old();
  write_adapter(output_);
  const std::string no_curve = draw_loss_curve(state_.log, output_, "Training loss");
  if (!no_curve.empty() && on_warning) on_warning(no_curve);
  write_state(output_);  // the last file: it says that the others are there
}

ESP_INLINE std::int64_t FineTune::parameter_count() const {
  std::int64_t n = 0;
  for (const NamedParameter& p : parameters()) n += p.var.any().numel();
  return n;
}

ESP_INLINE MemoryForecast FineTune::memory_forecast() const {
  return forecast_fine_tuning(base_.config(), static_cast<double>(base_.total_bytes()), lora_,
                              parameter_count(), data_.largest_batch(config_.batch_size));
}

ESP_INLINE double FineTune::tokens_per_step() const {
  return static_cast<double>(data_.dataset().tokens) / static_cast<double>(state_.steps_per_epoch);
}

ESP_INLINE double FineTune::flops_per_token() const {
  const data::Dataset& d = data_.dataset();
  const double length = static_cast<double>(d.tokens) / static_cast<double>(d.examples.size());
  return forecast_flops_per_token(base_.config(), parameter_count(), length);
}

}  // namespace espalier::train
#endif
