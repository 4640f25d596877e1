// SPDX-License-Identifier: Apache-2.0
// merge_adapter: a full checkpoint with a LoRA adapter merged into its weights, W + scale · B A.
//   merge_adapter --model mixtral --adapter run --output merged
// One tensor at a time, in the shards of the base. The sum is formed in f32 and rounded once to the
// stored type; tensors that the adapter leaves alone are copied byte for byte.
#include <espalier/hub/adapter.hpp>
#include <espalier/hub/checkpoint.hpp>
#include <espalier/io/adapter.hpp>
#include <espalier/io/atomic_folder.hpp>
#include <espalier/io/checkpoint_writer.hpp>
#include <espalier/io/companions.hpp>
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

/// Experts that lie in one tensor [E, ...], each matrix with factors of its own: gate rows over up
/// rows, or transposed with gate in the even and up in the odd columns. `count` grows by the
/// factors that were merged; none when there are none.
std::optional<AnyTensor> merged_experts(const hub::Checkpoint& base, const std::string& name,
                                        int layer, const io::Adapter& adapter,
                                        std::int64_t& count) {
  const DecoderConfig& c = base.config();
  const bool transposed = c.mixture.storage == ExpertStorage::interleaved;
  const bool down = name == c.names.of(Part::experts_down, layer);
  const std::vector<Part> parts = down ? std::vector<Part>{Part::expert_down}
                                       : std::vector<Part>{Part::expert_gate, Part::expert_up};
  const AnyTensor weight = base.tensor(name);
  std::optional<Tensor<float>> sum;
  for (std::int64_t e = 0; e < c.mixture.experts; ++e) {
    for (std::size_t p = 0; p < parts.size(); ++p) {
      const io::LoraFactors lora = adapter.find(c.names.module(parts[p], layer, e));
      if (!lora) continue;
      if (!sum) sum = converted<float>(weight);
      ++count;
      const std::int64_t out = lora.b.shape(0), in = lora.a.shape(1), rank = lora.a.shape(0);
      Tensor<float> delta(Shape{out, in}, 0.0f);
      cpu::gemm<float>(out, in, rank, {lora.b.bytes(), lora.b.dtype(), rank},
                       {lora.a.bytes(), lora.a.dtype(), in}, delta.data(), in,
                       static_cast<float>(lora.scale), 0.0f);
      const auto n = static_cast<std::int64_t>(parts.size()), first = static_cast<std::int64_t>(p);
      float* expert = sum->data() + e * n * out * in;
      for (std::int64_t i = 0; i < out; ++i) {
        for (std::int64_t j = 0; j < in; ++j) {
          expert[transposed ? j * n * out + n * i + first : (first * out + i) * in + j] +=
              delta[i * in + j];
        }
      }
    }
  }
  if (!sum) return std::nullopt;
  return visit_dtype<float, bf16, f16>("merge_adapter", weight.dtype(),
                                       [&]<class T>() { return AnyTensor(converted<T>(*sum)); });
}

/// The layer of a tensor that holds a matrix of every expert; -1 for another one.
int fused_layer(const hub::Checkpoint& base, const std::string& name) {
  const DecoderConfig& c = base.config();
  if (!c.has_mixture() || c.mixture.storage == ExpertStorage::separate) return -1;
  const std::optional<ExpertTensor> t = base.expert_names().find(name);
  if (!t || t->expert >= 0 || t->mtp || t->layer >= c.num_hidden_layers) return -1;
  const bool matrix = name == c.names.of(Part::experts_gate_up, t->layer) ||
                      name == c.names.of(Part::experts_down, t->layer);
  return matrix ? t->layer : -1;
}

std::vector<io::ShardSpec> shards_of(const hub::Checkpoint& base) {
  std::vector<io::ShardSpec> shards;
  for (const auto& shard : base.shards()) {
    shards.push_back({shard.file, {}});
    for (const io::TensorInfo& t : shard.content.tensors()) shards.back().tensors.push_back(t);
  }
  return shards;
}

void run(const Options& o, const CommonOptions& common) {
  const hub::Checkpoint base(o.model);
  const io::Adapter adapter = io::read_adapter(o.adapter);
  hub::check_adapter_fits(adapter, base.config(), o.adapter);
  for (const std::string& input : {o.model, o.adapter}) io::require_apart(o.output, input);
  io::AtomicFolder folder(o.output);
  io::CheckpointWriter out(folder.path(), shards_of(base), io::companion_bytes(o.model, {}));
  Progress progress("merge_adapter", static_cast<std::int64_t>(base.names().size()), "tensors");
  std::int64_t done = 0, changed = 0, factors = 0;
  for (const io::ShardSpec& shard : out.shards()) {
    for (const io::TensorSpec& t : shard.tensors) {
      const std::string module = t.name.substr(0, t.name.rfind(".weight"));
      const int layer = fused_layer(base, t.name);
      const std::optional<AnyTensor> experts =
          layer < 0 ? std::nullopt : merged_experts(base, t.name, layer, adapter, factors);
      if (experts) {
        out.write(t.name, *experts);
        ++changed;
      } else if (const io::LoraFactors lora = adapter.find(module)) {
        out.write(t.name, merged(base.tensor(t.name), lora));
        ++changed;
        ++factors;
      } else {
        base.shard_of(t.name).content.for_each_piece(
            base.at(t.name),
            [&](const void* data, std::size_t bytes) { out.append(t.name, data, bytes); });
      }
      progress.update(++done);
    }
  }
  ESP_REQUIRE(std::cmp_equal(factors, adapter.modules.size()), FormatError, o.adapter, ": ",
              adapter.modules.size(), " modules, of which ", factors,
              " were found in the checkpoint");
  out.commit();
  io::copy_companions(base.folder(), folder.path(), {});
  folder.commit();
  progress.finish();
  if (common.json) {
    io::Json result = io::Json::object();
    result["output"] = o.output;
    result["merged"] = changed;
    result["tensors"] = done;
    print("{}\n", io::dump(result));
  } else {
    print("{}: {} of {} tensors carry the adapter\n", o.output, changed, done);
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
