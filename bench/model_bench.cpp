// SPDX-License-Identifier: Apache-2.0
// Prefill and one LoRA step of a checkpoint, with a table of where the time goes.
//   model_bench --model DIR [--tokens 512] [--target q,k,v,o] [--lora-r 16] [--repeats 5]
// A peer on the same weights: bench/model_peer.py.
#include <algorithm>
#include <chrono>
#include <functional>

#include <espalier/hub/load_model.hpp>
#include <espalier/io/json.hpp>
#include <espalier/ops/cpu/ceilings.hpp>
#include <espalier/ops/scale.hpp>
#include <espalier/optim/adamw.hpp>

#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;

struct Options {
  std::string model;
  std::int64_t tokens = 512;
  int repeats = 5, rank = 16;
  std::vector<std::string> targets = {"q", "k", "v", "o"};
};

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// The median, after one run that warms caches and pool.
double median_seconds(int repeats, const std::function<void()>& work) {
  work();
  std::vector<double> all;
  for (int i = 0; i < repeats; ++i) all.push_back(seconds_of(work));
  std::sort(all.begin(), all.end());
  return all[all.size() / 2];
}

void print_trace(const char* title, const std::function<void()>& work) {
  const trace::Ceilings ceilings = cpu::measure_ceilings();
  trace::start();
  work();
  fmt::print("{}\n{}\n", title, trace::table(trace::stop(), ceilings));
}

void run(const Options& o, const CommonOptions& common) {
  const hub::Checkpoint checkpoint(o.model);
  auto model = hub::load_model(checkpoint);
  std::vector<std::int32_t> ids;
  const Philox random(common.seed);
  const auto vocab = static_cast<std::uint32_t>(model.config().vocab_size);
  for (std::int64_t i = 0; i < o.tokens; ++i) {
    ids.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(i), vocab)));
  }
  const PackedTokens tokens(ids);
  Tensor<std::int32_t> targets(Shape{o.tokens});
  for (std::int64_t i = 0; i < o.tokens; ++i) targets[i] = i + 1 < o.tokens ? ids[i + 1] : -1;

  const auto prefill = [&] {
    const NoGrad no_grad;
    (void)model.logits(model.hidden(tokens).value());
  };
  const double prefill_seconds = median_seconds(o.repeats, prefill);
  if (!common.json) print_trace("prefill", prefill);

  auto cache = model.new_cache(o.tokens);
  KvCache<float>* caches[] = {&cache};
  const double decode_seconds = median_seconds(16, [&] {
    const auto row = model.hidden(PackedTokens({ids[cache.length() % ids.size()]}), caches);
    (void)model.logits(row);
  });

  model.add_lora({o.rank, 2.0 * o.rank, 0, false, o.targets}, common.seed);
  optim::AdamW optimizer(model.parameters(), {});
  const auto step = [&] {
    const TrainContext training{false, 0, 0};
    optimizer.zero_grad();
    const auto loss = model.loss(tokens, targets, &training);
    backward(scale(loss.loss_sum, 1.0 / static_cast<double>(o.tokens - 1)));
    optimizer.step(1e-4);
  };
  const double step_seconds = median_seconds(o.repeats, step);
  if (!common.json) print_trace("LoRA step", step);

  const auto n = static_cast<double>(o.tokens);
  io::Json result = io::Json::object();
  result["isa"] = cpu::name(cpu::isa());
  result["threads"] = num_threads();
  result["tokens"] = o.tokens;
  result["prefill_tokens_per_second"] = n / prefill_seconds;
  result["decode_tokens_per_second"] = 1 / decode_seconds;
  result["lora_step_tokens_per_second"] = n / step_seconds;
  result["peak_memory_bytes"] = peak_memory_bytes();
  if (common.json) {
    fmt::print("{}\n", io::dump(result));
    return;
  }
  fmt::print("{} threads, {}; {} tokens; medians of {}\n", num_threads(), cpu::name(cpu::isa()),
             o.tokens, o.repeats);
  fmt::print("prefill      {:8.1f} tokens/s\ndecode       {:8.1f} tokens/s\n", n / prefill_seconds,
             1 / decode_seconds);
  fmt::print("LoRA step    {:8.1f} tokens/s\npeak memory  {:>8}\n", n / step_seconds,
             format_bytes(static_cast<double>(peak_memory_bytes())));
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "model_bench", "Times prefill, decoding and a LoRA step of a checkpoint.",
      [&](CLI::App& app) {
        app.add_option("--model", o.model, "Checkpoint folder")->required();
        app.add_option("--tokens", o.tokens, "Length of the sequence")
            ->check(CLI::Range(2, 1 << 20));
        app.add_option("--repeats", o.repeats, "Timed runs")->check(CLI::Range(1, 1000));
        app.add_option("--lora-r", o.rank, "Rank")->check(CLI::Range(1, 4096));
        app.add_option("--target", o.targets, "Comma list of q,k,v,o,gate,w1,w2,w3")
            ->delimiter(',');
      },
      [&](const CommonOptions& common) { run(o, common); });
}
