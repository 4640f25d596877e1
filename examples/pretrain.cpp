// SPDX-License-Identifier: Apache-2.0
// pretrain: trains every weight of a small checkpoint, dense or a mixture, and writes a new
// checkpoint folder. Weights, gradients and two moments are in f32, 16 bytes a parameter: for small
// models.
//   make_checkpoint --output untrained --hidden 128 --intermediate 192 --tokenizer tokenizer
//   pretrain --model untrained --data texts.jsonl --output trained --steps 2000 --batch-size 64
//            --lr 3e-3 --warmup 50 --aux-loss 0.02
// The folder appears when training is done: weights in the type they came in, train_log.jsonl (an
// object per step) and the loss curve beside them, everything else carried along.
#include <filesystem>
#include <map>
#include <optional>

#include <espalier/data/training_set.hpp>
#include <espalier/hub/checkpoint.hpp>
#include <espalier/io/atomic_folder.hpp>
#include <espalier/io/checkpoint_writer.hpp>
#include <espalier/io/companions.hpp>
#include <espalier/models/decoder.hpp>
#include <espalier/ops/trace_session.hpp>
#include <espalier/train/balancing.hpp>
#include <espalier/train/loss_curve.hpp>
#include <espalier/train/train_log.hpp>
#include <espalier/train/trainer.hpp>

#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;
namespace fs = std::filesystem;
using io::Json;

struct Options {
  std::string model, data, output, eval_data, schedule = "cosine", max_shard_size = "5GB";
  std::int64_t steps = 1000, batch_size = 32, max_length = 256, warmup = 20;
  double lr = 1e-3, weight_decay = 0, clip = 1, aux_loss = 0.02;
  bool packing = false;
  CLI::Option* aux_given = nullptr;
};

void declare(CLI::App& app, Options& o) {
  const auto positive = integer_within(1, kMostSteps);
  app.add_option("--model", o.model,
                 "Checkpoint folder to start from, as make_checkpoint writes it")
      ->required();
  app.add_option("--data", o.data, "JSONL with text, or prompt/response")->required();
  app.add_option("--output", o.output, "Checkpoint folder to write; must not exist")->required();
  app.add_option("--eval-data", o.eval_data, "Held-out JSONL; its loss is reported at the end");
  app.add_option("--steps", o.steps, "Optimizer steps")->check(positive);
  app.add_option("--batch-size", o.batch_size, "Rows per step")->check(integer_within(1, 1 << 20));
  app.add_option("--max-length", o.max_length, "Longer examples are cut on the right")
      ->check(integer_within(2, 1 << 24));
  app.add_flag("--packing", o.packing,
               "Several examples share a row of --max-length, each attending to itself only");
  app.add_option("--lr", o.lr, "Learning rate")->check(real_within(0, 1e3));
  app.add_option("--schedule", o.schedule, "constant, linear or cosine")
      ->check(CLI::IsMember({"constant", "linear", "cosine"}));
  app.add_option("--warmup", o.warmup, "Steps of linear warmup; the first has rate 0")
      ->check(integer_within(0, kMostSteps));
  app.add_option("--weight-decay", o.weight_decay, "Decoupled weight decay")
      ->check(real_within(0, 1e3));
  app.add_option("--clip", o.clip, "Largest gradient norm; 0: no clipping")
      ->check(real_within(0, 1e9));
  o.aux_given =
      app.add_option("--aux-loss", o.aux_loss,
                     "Coefficient of the load-balancing loss; 0: off, as it is where there is "
                     "nothing to balance")
          ->check(real_within(0, 1e6));
  app.add_option("--max-shard-size", o.max_shard_size, "Largest shard, such as 5GB or 500MB");
}

class Pretrain {
 public:
  Pretrain(const Options& o, const CommonOptions& common)
      : o_(o),
        common_(common),
        max_shard_bytes_(io::parse_bytes(o.max_shard_size)),
        folder_(o.output),
        base_(o.model),
        aux_loss_(aux_loss_of(o, base_)),
        words_(text::ChatTokenizer::load(o.model, "none")),
        data_(read(o.data), o.packing),
        model_(
            base_.config(), [this](const std::string& name) { return base_.tensor(name); },
            Decoder<float>::Base::trainable),
        sampler_(data_.rows(), data::SamplerConfig{o.batch_size, 1, true, common.seed}),
        trainer_(model_,
                 train::TrainerConfig{{optim::schedule_named(o.schedule), o.lr, o.warmup, o.steps},
                                      {0.9, 0.98, 1e-8, o.weight_decay},
                                      o.clip,
                                      aux_loss_,
                                      common.seed,
                                      false,
                                      train::has_balancing_loss(base_.config())}) {}

  void run() {
    train::TrainLog log(folder_.path() / "train_log.jsonl", {});
    train(log);
    std::optional<double> held_out;
    if (!o_.eval_data.empty()) {
      held_out = trainer_.evaluate(data::batches_in_order(read(o_.eval_data), o_.batch_size));
    }
    write_weights();
    const std::string no_curve =
        train::draw_loss_curve(log.entries(), folder_.path(), "Pretraining loss");
    if (!no_curve.empty()) print_warnings("pretrain", {no_curve});
    io::copy_companions(base_.folder(), folder_.path(),
                        {"train_log.jsonl", "loss.png", "loss.svg"});
    folder_.commit();
    report(log.entries(), held_out);
  }

 private:
  /// Checks too that the weights can be written again.
  static double aux_loss_of(const Options& o, const hub::Checkpoint& base) {
    const DecoderConfig& c = base.config();
    ESP_REQUIRE(!c.has_mixture() || c.mixture.storage == ExpertStorage::separate, UnsupportedError,
                o.model, ": a ", c.model_type,
                " keeps all experts of a layer in one tensor, which pretrain cannot write yet");
    const bool given = o.aux_given->count() > 0;
    if (given && o.aux_loss > 0) train::require_balancing_loss(base);
    return train::has_balancing_loss(c) ? o.aux_loss : 0;
  }

  data::Dataset read(const std::string& path) const {
    data::RecordEncoder encoder = data::record_encoder(words_, base_.config());
    data::Dataset data = data::read_dataset(path, encoder, o_.max_length);
    for (const std::string& line : data.summary()) print(stderr, "{}: {}\n", path, line);
    return data;
  }

  void train(train::TrainLog& log) {
    (void)interrupted();  // from here on Ctrl-C ends between two steps
    Progress progress("pretrain", o_.steps, "steps");
    for (std::int64_t step = 0; step < o_.steps; ++step) {
      const double begin = monotonic_seconds();
      const train::StepResult r =
          trainer_.step({data_.batch(sampler_.micro_batches(step).front())});
      log.append(train::log_entry(r, monotonic_seconds() - begin));
      progress.update(r.step, fmt::format("loss {:.4f}", r.loss));
      if (interrupted()) throw Interrupted("interrupted; nothing was written");
    }
  }

  void write_weights() const {
    std::map<std::string, AnyTensor> weights;
    for (const NamedParameter& p : model_.parameters()) weights[p.name] = p.var.any().on_host();
    const auto trained = [&](const std::string& name) {
      const auto it = weights.find(name);  // a router's selection bias has no gradient
      return it == weights.end() ? base_.tensor(name) : it->second;
    };
    const DType dtype = base_.dtype();
    io::CheckpointWriter out(folder_.path(), hub::tensor_specs(base_.config(), dtype),
                             max_shard_bytes_);
    for (const io::ShardSpec& shard : out.shards()) {
      for (const io::TensorSpec& t : shard.tensors) {
        visit_dtype<float, bf16, f16>("pretrain", dtype, [&]<class T>() {
          out.write(t.name, converted<T>(trained(t.name)));
        });
      }
    }
    out.commit();
  }

  void report(const std::vector<Json>& log, std::optional<double> held_out) const {
    std::int64_t tokens = 0, parameters = 0;
    for (const Json& entry : log) tokens += entry.at("tokens").as_int();
    for (const NamedParameter& p : model_.parameters()) parameters += p.var.any().numel();
    const double first = log.front().at("loss").as_double();
    const double last = log.back().at("loss").as_double();
    if (common_.json) {
      Json s = Json::object();
      s["output"] = o_.output;
      s["steps"] = log.size();
      s["parameters"] = parameters;
      s["tokens"] = tokens;
      s["first_loss"] = first;
      s["last_loss"] = last;
      if (held_out) s["eval_loss"] = *held_out;
      s["peak_memory_bytes"] = peak_memory_bytes();
      print("{}\n", io::dump(s));
      return;
    }
    print("checkpoint   {}\n", o_.output);
    print("steps        {} ({} tokens)\n", log.size(), tokens);
    print("parameters   {}, all trained\n", parameters);
    print("loss         {:.4f} at the first step, {:.4f} at the last\n", first, last);
    if (held_out) print("held-out     {:.4f}\n", *held_out);
    print("curve        {}\n", (fs::path(o_.output) / "loss.png").string());
  }

  const Options& o_;
  const CommonOptions& common_;
  std::size_t max_shard_bytes_;
  io::AtomicFolder folder_;
  hub::Checkpoint base_;
  double aux_loss_;
  text::ChatTokenizer words_;
  data::TrainingSet data_;
  Decoder<float> model_;
  data::Sampler sampler_;
  train::Trainer trainer_;
};

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "pretrain", "Trains all weights of a small checkpoint.",
      [&](CLI::App& app) { declare(app, o); },
      [&](const CommonOptions& common) {
        const TraceSession trace;  // where ESPALIER_TRACE names a file
        io::require_apart(o.output, o.model);
        Pretrain(o, common).run();
      });
}
