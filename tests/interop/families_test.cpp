// SPDX-License-Identifier: Apache-2.0
// Every family against transformers and PEFT, live: checkpoints that families.py makes with another
// seed than the golden ones, our programs on them, and families.py as the judge.
//
// What PEFT 0.21 with transformers 5.23 loads of our adapters (`kSubjects` below holds it to this):
//   dense families                        everything
//   mixtral, qwen3_moe, olmoe,            everything, routers and experts too; an adapter on the
//   deepseek_v2, deepseek_v3, glm4_moe    experts must have no dropout
//   qwen2_moe, gpt_oss                    everything but the experts
//   granitemoe                            attention
// The modules that it does not find it leaves out without a word.
#include <algorithm>
#include <vector>

#include <espalier/hub/load_model.hpp>
#include <espalier/io/safetensors_writer.hpp>
#include <espalier/ops/scale.hpp>

#include "interop/peers.hpp"
#include "support/family_batch.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

constexpr int kSeed = 20;

/// What PEFT loads of an adapter on `targets`: all but modules with one of `without` in their name.
struct Loaded {
  std::vector<std::string> targets, without;
};

struct Subject {
  std::string model_type, name;  // of the family, and in tests/golden/family_models.py
  std::vector<Loaded> loaded;
};

const std::vector<Subject> kSubjects = {
    {"llama", "llama", {{{"all"}, {}}}},
    {"mistral", "mistral", {{{"all"}, {}}}},
    {"qwen2", "qwen2", {{{"all"}, {}}}},
    {"qwen3", "qwen3", {{{"all"}, {}}}},
    {"mixtral", "mixtral_window", {{{"all+router"}, {}}, {{"q", "w1", "w2", "w3"}, {}}}},
    {"qwen3_moe", "qwen3_moe", {{{"all+router"}, {}}, {{"q", "k", "v", "o"}, {}}}},
    {"olmoe", "olmoe", {{{"all+router"}, {}}}},
    {"qwen2_moe",
     "qwen2_moe",
     {{{"q", "k", "v", "o", "router", "shared_router"}, {}}, {{"all+router"}, {".experts."}}}},
    {"granitemoe", "granitemoe", {{{"q", "k", "v", "o"}, {}}, {{"all"}, {".experts."}}}},
    {"gpt_oss", "gpt_oss", {{{"q", "k", "v", "o", "router"}, {}}, {{"all+router"}, {".experts."}}}},
    {"deepseek_v2", "deepseek_v2", {{{"all+router"}, {}}}},
    {"deepseek_v2", "deepseek_v2_lite", {{{"all+router"}, {}}}},
    {"deepseek_v3", "deepseek_v3", {{{"all+router"}, {}}, {{"gate", "up", "down"}, {}}}},
    {"glm4_moe", "glm4_moe", {{{"all+router"}, {}}}},
};

/// Those that there is a forward pass for.
std::vector<Subject> subjects() {
  std::vector<Subject> list;
  for (const Subject& s : kSubjects) {
    const Family* family = find_family(s.model_type);
    if (family != nullptr && family->read != nullptr) list.push_back(s);
  }
  return list;
}

/// Commands for families.py, which are run together: starting torch takes longer than any of them.
class Batch {
 public:
  void add(const std::string& command) { lines_ += command + "\n"; }
  void run(const Scratch& scratch) const {
    python("families.py", "batch --commands " + scratch.write("commands.txt", lines_), scratch);
  }

 private:
  std::string lines_;
};

std::string make(const std::string& name, const std::string& output,
                 const std::string& options = {}) {
  return "make --family " + name + " --seed " + std::to_string(kSeed) + " --output " + output +
         " " + options;
}

std::string token_lines(const Scratch& scratch) {
  return scratch.write("tokens.jsonl",
                       "{\"ids\": [1, 5, 60, 42, 17, 33, 3, 3, 50, 8, 27]}\n"
                       "{\"ids\": [1, 63, 4, 56]}\n"
                       "{\"ids\": [40]}\n");
}

/// An adapter with values of its own on every matrix of these targets.
void write_adapter(const std::string& model, const std::vector<std::string>& targets,
                   const std::string& output) {
  const DecoderConfig config = hub::load_config(model);
  io::AdapterConfig adapter;
  adapter.r = 2;
  adapter.alpha = 4;
  adapter.target_modules = hub::target_modules_of(config, targets);
  const std::vector<std::string> resolved = resolve_targets(config, targets);
  std::vector<std::pair<std::string, AnyTensor>> tensors;
  std::uint64_t seed = kSeed;
  const auto add = [&](const std::string& name, const Shape& shape, double scale) {
    tensors.emplace_back(name, make_tensor<float>(shape, normal(shape.numel(), ++seed, scale)));
  };
  for (const LinearModule& m : linear_modules(config)) {
    const std::string_view target = target_of(m.part);
    if (std::find(resolved.begin(), resolved.end(), target) == resolved.end()) continue;
    add(m.name + ".lora_A.weight", {adapter.r, m.in}, 0.2);
    add(m.name + ".lora_B.weight", {m.out, adapter.r}, 0.15);
  }
  io::write_adapter(output, adapter, tensors);
}

/// Loss and gradients of an adapter over the sequences of a golden file, as the judge wants them.
void write_gradients(const std::string& model_folder, const std::string& adapter,
                     const std::string& batch_file, const std::string& output) {
  const hub::Checkpoint checkpoint(model_folder);
  const auto model = hub::load_model<float>(checkpoint, adapter);
  const FamilyBatch batch(batch_file);
  const auto loss = scale(model.loss(batch.tokens, batch.targets).loss_sum,
                          1.0 / static_cast<double>(batch.target_count));
  backward(loss);
  std::vector<std::pair<std::string, AnyTensor>> out = {{"loss", loss.value().reshaped({})}};
  for (const NamedParameter& p : model.parameters()) {
    out.emplace_back(std::string(io::kAdapterPrefix) + p.name, p.var.grad());
  }
  io::save_safetensors(output, out);
}

}  // namespace

TEST_CASE("interop: families: logits equal those of transformers, from f32 and bf16 checkpoints",
          "[.python][interop][families]") {
  const Scratch scratch;
  const std::string tokens = token_lines(scratch);
  Batch made, judged;
  for (const Subject& s : subjects()) {
    for (const std::string dtype : {"f32", "bf16"}) {
      made.add(make(s.name, scratch / (s.name + "_" + dtype), "--dtype " + dtype));
    }
  }
  made.run(scratch);
  for (const Subject& s : subjects()) {
    for (const std::string dtype : {"f32", "bf16"}) {
      const std::string model = scratch / (s.name + "_" + dtype), file = model + ".safetensors";
      ours("logits --model " + model + " --tokens " + tokens + " --output " + file, scratch);
      judged.add("logits --model " + model + " --tokens " + tokens + " --ours " + file);
    }
  }
  judged.run(scratch);
}

TEST_CASE("interop: families: logits with an adapter, and what PEFT loads of it",
          "[.python][interop][families]") {
  const Scratch scratch;
  const std::string tokens = token_lines(scratch);
  Batch made, judged;
  for (const Subject& s : subjects()) made.add(make(s.name, scratch / s.name));
  made.run(scratch);
  for (const Subject& s : subjects()) {
    const std::string model = scratch / s.name;
    for (std::size_t i = 0; i < s.loaded.size(); ++i) {
      const std::string adapter = model + "_adapter" + std::to_string(i),
                        file = adapter + ".safetensors",
                        both =
                            " --model " + model + " --adapter " + adapter + " --tokens " + tokens;
      write_adapter(model, s.loaded[i].targets, adapter);
      ours("logits" + both + " --output " + file, scratch);
      judged.add("logits" + both + " --ours " + file);
      std::string peft = "peft" + both;
      for (const std::string& name : s.loaded[i].without) peft += " --without " + name;
      judged.add(peft);
    }
  }
  judged.run(scratch);
}

TEST_CASE("interop: families: gradients of an adapter equal those of transformers",
          "[.python][interop][families]") {
  const std::vector<std::string> names = {"llama", "qwen3_moe", "gpt_oss", "deepseek_v3"};
  const Scratch scratch;
  Batch made, judged;
  for (const std::string& name : names) made.add(make(name, scratch / name));
  made.run(scratch);
  for (const std::string& name : names) {
    const std::string model = scratch / name, adapter = model + "_adapter",
                      file = model + ".safetensors",
                      batch = std::string(ESPALIER_TESTS_DIR) + "/golden/families/" + name +
                              "/forward.safetensors";
    write_adapter(model, {"all+router"}, adapter);
    write_gradients(model, adapter, batch, file);
    judged.add("adapter-gradients --model " + model + " --adapter " + adapter + " --batch " +
               batch + " --ours " + file);
  }
  judged.run(scratch);
}

TEST_CASE("interop: families: fine_tune's losses equal those of PEFT and torch",
          "[.python][interop][families]") {
  const std::vector<std::pair<std::string, std::vector<std::string>>> runs = {
      {"llama_plain", {"q", "k", "v", "o"}},
      {"qwen3", {"all"}},
      {"qwen3_moe", {"q", "k", "v", "o"}},
  };
  const Scratch scratch;
  const std::string data = scratch.write("train.jsonl",
                                         "{\"text\": \"the cat sat on the mat\"}\n"
                                         "{\"text\": \"a small tree is trained\"}\n"
                                         "{\"text\": \"the answer is (B).\"}\n"
                                         "{\"text\": \"what an expert is chosen for\"}\n"
                                         "{\"text\": \"a tree is pruned to a shape\"}\n"
                                         "{\"text\": \"the\"}\n");
  Batch made, judged;
  for (const auto& [name, targets] : runs) {
    made.add(make(name, scratch / name,
                  std::string("--vocab 128 --tokenizer ") + ESPALIER_TESTS_DIR +
                      "/golden/tiny_mixtral/model"));
  }
  made.run(scratch);
  for (const auto& [name, targets] : runs) {
    const std::string model = scratch / name, adapter = model + "_adapter",
                      tuned = model + "_tuned";
    write_adapter(model, targets, adapter);
    ours("fine_tune --model " + model + " --adapter " + adapter + " --data " + data + " --output " +
             tuned + " --steps 3 --batch-size 2 --lr 0.01 --schedule constant --no-shuffle",
         scratch);
    judged.add("training --model " + model + " --adapter " + adapter + " --data " + data +
               " --log " + tuned + "/train_log.jsonl --lr 0.01 --batch-size 2");
    // PEFT loads what was trained.
    judged.add("peft --model " + model + " --adapter " + tuned + " --tokens " +
               token_lines(scratch));
  }
  judged.run(scratch);
}

TEST_CASE("interop: SmolLM2: tokens and logits equal those of transformers",
          "[.smollm2][interop][families]") {
  if (std::getenv("ESPALIER_PEERS_PYTHON") == nullptr) {
    WARN("not compared: set ESPALIER_PEERS_PYTHON");
    return;
  }
  REQUIRE(std::getenv("ESPALIER_SMOLLM2") != nullptr);
  const Scratch scratch;
  const std::string model = std::getenv("ESPALIER_SMOLLM2"), ids = scratch / "ids.jsonl",
                    file = scratch / "logits.safetensors",
                    text = scratch.write(
                        "text.jsonl",
                        "{\"text\": \"The quick brown fox jumps over the lazy dog.\"}\n"
                        "{\"text\": \"def add(a, b):\\n    return a + b\\n\"}\n"
                        "{\"text\": \"Caf\\u00e9 au lait costs 3.50 in 2024, doesn't it?\"}\n");
  ours("tokenize --model " + model + " <" + text + " 2>&1 1>" + ids, scratch);
  python("compare.py", "ids --model " + model + " --text " + text + " --ours " + ids, scratch);
  ours("logits --model " + model + " --tokens " + ids + " --output " + file, scratch);
  python("families.py", "logits --model " + model + " --tokens " + ids + " --ours " + file,
         scratch);
}
