// SPDX-License-Identifier: Apache-2.0
// merge_adapter: a full checkpoint with a LoRA adapter merged into its weights, W + scale · B A.
//   merge_adapter --model mixtral --adapter run --output merged
// One tensor at a time, in the shards of the base. The sum is formed in f32 and rounded once to the
// stored type; tensors that the adapter leaves alone are copied byte for byte.
#include <espalier/hub/checkpoint.hpp>
#include <espalier/io/adapter.hpp>
#include <espalier/io/checkpoint_writer.hpp>
#include <espalier/ops/cpu/gemm.hpp>

#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;

struct Options {
  std::string model, adapter, output;
};

AnyTensor merged(const AnyTensor& weight, const io::LoraFactors& lora) {
  const Tensor<float> sum = converted<float>(weight);
  const std::int64_t out = sum.shape(0), in = sum.shape(1), rank = lora.a.shape(0);
  cpu::gemm<float>(out, in, rank, {lora.b.bytes(), lora.b.dtype(), rank},
                   {lora.a.bytes(), lora.a.dtype(), in}, sum.data(), in,
                   static_cast<float>(lora.scale), 1.0f);
  return visit_dtype<float, bf16, f16>("merge_adapter", weight.dtype(),
                                       [&]<class T>() { return AnyTensor(converted<T>(sum)); });
}

std::vector<io::ShardPlan> shards_of(const hub::Checkpoint& base) {
  std::vector<io::ShardPlan> plan;
  for (const auto& shard : base.shards()) {
    plan.push_back({shard.file, {}});
    for (const io::TensorInfo& t : shard.content.tensors()) plan.back().tensors.push_back(t);
  }
  return plan;
}

void run(const Options& o, const CommonOptions& common) {
  const hub::Checkpoint base(o.model);
  const io::Adapter adapter = io::read_adapter(o.adapter);
  hub::check_adapter_fits(adapter, base.config(), o.adapter);
  io::AtomicFolder folder(o.output);
  io::CheckpointWriter out(folder.path(), shards_of(base));
  Progress progress("merge_adapter", static_cast<std::int64_t>(base.names().size()), "tensors");
  std::int64_t done = 0, changed = 0;
  for (const io::ShardPlan& shard : out.shards()) {
    for (const io::TensorSpec& t : shard.tensors) {
      const std::string module = t.name.substr(0, t.name.rfind(".weight"));
      if (const io::LoraFactors lora = adapter.find(module)) {
        out.write(t.name, merged(base.tensor(t.name), lora));
        ++changed;
      } else {
        base.shard_of(t.name).content.for_each_piece(
            base.at(t.name),
            [&](const void* data, std::size_t bytes) { out.append(t.name, data, bytes); });
      }
      progress.update(++done);
    }
  }
  out.commit();
  io::copy_companions(base.folder(), folder.path(), {});
  folder.commit();
  progress.finish();
  if (common.json) {
    io::Json result = io::Json::object();
    result["output"] = o.output;
    result["merged"] = changed;
    result["tensors"] = done;
    fmt::print("{}\n", io::dump(result));
  } else {
    fmt::print("{}: {} of {} tensors carry the adapter\n", o.output, changed, done);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "merge_adapter", "Merges a PEFT adapter into a checkpoint.",
      [&](CLI::App& app) {
        app.add_option("--model", o.model, "Checkpoint folder in Hugging Face layout")->required();
        app.add_option("--adapter", o.adapter, "PEFT adapter folder")->required();
        app.add_option("--output", o.output, "Folder to write; must not exist")->required();
      },
      [&](const CommonOptions& common) { run(o, common); });
}
