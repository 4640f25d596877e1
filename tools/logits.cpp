// SPDX-License-Identifier: Apache-2.0
// logits: the output of a model for given token ids, in f32, for comparison with other programs.
//   logits --model mixtral --tokens ids.jsonl --output logits.safetensors [--adapter DIR]
//          [--mask-experts pruning_plan.json]
// Lines {"ids": [...]} in; tensors logits.0, logits.1, ... [length, vocabulary] out.
#include <espalier/hub/load_model.hpp>
#include <espalier/infer/sampling.hpp>
#include <espalier/io/jsonl.hpp>
#include <espalier/io/safetensors_writer.hpp>
#include <espalier/prune/plan.hpp>

#include "cli/compute.hpp"
#include "cli/print.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;

struct Options {
  std::string model, tokens, output, adapter, plan, dtype = "f32";
};

std::vector<std::vector<std::int32_t>> read_ids(const std::string& path, std::int64_t vocab) {
  std::vector<std::vector<std::int32_t>> lines;
  for (const io::Json& line : io::read_jsonl(path)) {
    std::vector<std::int32_t> ids;
    for (const io::Json& id : line.at("ids").items()) {
      const std::int64_t v = id.as_int();
      ESP_REQUIRE(v >= 0 && v < vocab, FormatError, id.where(), ": id ", v,
                  ", the model's vocabulary is 0 to ", vocab - 1);
      ids.push_back(static_cast<std::int32_t>(v));
    }
    ESP_REQUIRE(!ids.empty(), FormatError, line.where(), ": no ids");
    lines.push_back(std::move(ids));
  }
  ESP_REQUIRE(!lines.empty(), FormatError, path, ": no lines");
  return lines;
}

/// The output replaces what stands under its name, so that must not be what is read.
void refuse_own_input(const Options& o, const hub::Checkpoint& checkpoint) {
  namespace fs = std::filesystem;
  std::vector<fs::path> read = {o.tokens, o.plan, fs::path(o.adapter) / io::kAdapterTensorFile,
                                fs::path(o.adapter) / io::kAdapterConfigFile,
                                checkpoint.folder() / "config.json"};
  for (const auto& shard : checkpoint.shards()) read.push_back(shard.content.path());
  for (const fs::path& path : read) {
    std::error_code ignored;
    ESP_REQUIRE(!fs::equivalent(o.output, path, ignored), UsageError, o.output, ": is ",
                path.string(), ", which is read; choose another --output");
  }
}

template <FloatElement T, Device D>
void run(const Options& o, const CommonOptions& common) {
  const hub::Checkpoint checkpoint(o.model);
  refuse_own_input(o, checkpoint);
  auto model = hub::load_model<T, D>(checkpoint, o.adapter);
  const auto& config = model.config();
  if (!o.plan.empty()) {
    hub::require_mixture(checkpoint, "mask");
    const auto plan = prune::read_plan(o.plan);
    prune::check_plan_fits(plan, checkpoint.mixture(), o.plan);
    model.mask_experts(plan.keep);
  }
  const auto lines = read_ids(o.tokens, config.vocab_size);

  std::vector<io::TensorSpec> specs;
  std::int64_t total = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const auto length = static_cast<std::int64_t>(lines[i].size());
    specs.push_back(
        io::make_spec("logits." + std::to_string(i), DType::f32, {length, config.vocab_size}));
    total += length;
  }
  io::SafetensorsWriter writer(o.output, specs);
  Progress progress("logits", total, "tokens");
  std::int64_t done = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const NoGrad no_grad;
    const auto hidden = model.hidden(PackedTokens(lines[i])).value();
    const AnyTensor logits = model.logits(hidden).on_host();
    infer::require_finite_output(
        std::span<const acc_t<T>>(reinterpret_cast<const acc_t<T>*>(logits.bytes()),
                                  static_cast<std::size_t>(logits.numel())));
    writer.write(specs[i].name, logits);
    progress.update(done += static_cast<std::int64_t>(lines[i].size()));
  }
  writer.commit();
  progress.finish();
  if (common.json) {
    io::Json result = io::Json::object();
    result["output"] = o.output;
    result["sequences"] = lines.size();
    result["tokens"] = total;
    print("{}\n", io::dump(result));
  } else {
    print("{}: {} sequences, {} tokens\n", o.output, lines.size(), total);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "logits", "Writes the logits of a model for lines of token ids.",
      [&](CLI::App& app) {
        app.add_option("--model", o.model, "Checkpoint folder in Hugging Face layout")->required();
        app.add_option("--tokens", o.tokens, "JSONL, lines {\"ids\": [...]}")->required();
        app.add_option("--output", o.output, "Safetensors file to write")->required();
        app.add_option("--adapter", o.adapter, "PEFT adapter folder to apply");
        app.add_option("--mask-experts", o.plan,
                       "Plan whose dropped experts get router logits of minus infinity");
        app.add_option("--dtype", o.dtype, "Compute type")->check(CLI::IsMember({"f32", "bf16"}));
      },
      [&](const CommonOptions& common) {
        visit_compute(common.device, o.dtype, [&]<class T, class D>() { run<T, D>(o, common); });
      });
}
