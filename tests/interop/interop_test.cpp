// SPDX-License-Identifier: Apache-2.0
// The programs' output read by transformers and PEFT, live. Each case runs our programs on the
// golden Mixtral and lets compare.py judge; the other families are in families_test.cpp.
#include "interop/peers.hpp"

using namespace espalier::test;

namespace {

namespace fs = std::filesystem;

const std::string kModel = std::string(ESPALIER_TESTS_DIR) + "/golden/tiny_mixtral/model";
const std::string kAdapter = std::string(ESPALIER_TESTS_DIR) + "/golden/tiny_mixtral/adapter";

void judge(const std::string& arguments, const Scratch& scratch) {
  python("compare.py", arguments, scratch);
}

std::string token_lines(const Scratch& scratch) {
  return scratch.write("tokens.jsonl",
                       "{\"ids\": [1, 5, 99, 42, 17, 64, 3, 3, 120, 8, 77]}\n"
                       "{\"ids\": [1, 127, 4, 56]}\n"
                       "{\"ids\": [90]}\n");
}

/// Our logits of `model` (with more options for both sides) against those of transformers.
void same_logits(const std::string& model, const std::string& options, const Scratch& scratch) {
  const std::string tokens = token_lines(scratch), file = scratch / "logits.safetensors";
  fs::remove(file);
  const std::string both = " --model " + model + " --tokens " + tokens + " " + options;
  ours("logits" + both + " --output " + file, scratch);
  judge("logits" + both + " --ours " + file, scratch);
}

}  // namespace

TEST_CASE("interop: logits equal those of transformers", "[.python][interop]") {
  const Scratch scratch;
  same_logits(kModel, "", scratch);
}

TEST_CASE("interop: logits with an adapter equal those of PEFT", "[.python][interop]") {
  const Scratch scratch;
  same_logits(kModel, "--adapter " + kAdapter, scratch);
}

TEST_CASE("interop: transformers loads a synthetic checkpoint", "[.python][interop]") {
  const Scratch scratch;
  ours("make_checkpoint --output " + scratch / "made" +
           " --layers 3 --hidden 48 --intermediate 40 --heads 6 --kv-heads 3 --experts 5 --top-k 3"
           " --vocab 128 --dtype bf16 --max-shard-size 60KB --seed 3",
       scratch);
  same_logits(scratch / "made", "", scratch);
}

TEST_CASE("interop: PEFT loads an adapter that fine_tune wrote", "[.python][interop]") {
  const Scratch scratch;
  const std::string data = scratch.write("train.jsonl",
                                         "{\"text\": \"the cat sat on the mat\"}\n"
                                         "{\"text\": \"a small tree is trained\"}\n"
                                         "{\"text\": \"the answer is (B).\"}\n");
  ours("fine_tune --model " + kModel + " --data " + data + " --output " + scratch / "tuned" +
           " --steps 6 --batch-size 2 --lr 0.01 --lora-r 4 --lora-alpha 8 --lora-dropout 0"
           " --target q,k,v,o,gate,w1,w2,w3",
       scratch);
  same_logits(kModel, "--adapter " + scratch / "tuned", scratch);
}

TEST_CASE("interop: transformers loads pruned folders in both layouts", "[.python][interop]") {
  const auto* layout = GENERATE("standard", "consolidated");
  CAPTURE(layout);
  const Scratch scratch;
  const std::string plan = scratch.write("plan.json", "{\"keep\": [[0, 2, 3, 7], [1, 4, 5, 6]]}");
  ours("prune --model " + kModel + " --plan " + plan + " --layout " + layout + " --output " +
           scratch / "pruned",
       scratch);
  same_logits(scratch / "pruned", "", scratch);

  // The pruned model is the base with the dropped experts' logits at minus infinity.
  const std::string tokens = token_lines(scratch), file = scratch / "masked.safetensors";
  ours("logits --model " + kModel + " --mask-experts " + plan + " --tokens " + tokens +
           " --output " + file,
       scratch);
  judge("logits --model " + scratch / "pruned" + " --tokens " + tokens + " --ours " + file,
        scratch);
  judge("logits --model " + kModel + " --mask-experts " + plan + " --tokens " + tokens +
            " --ours " + file,
        scratch);
}

TEST_CASE("interop: a merged adapter is the adapted model", "[.python][interop]") {
  const Scratch scratch;
  ours("merge_adapter --model " + kModel + " --adapter " + kAdapter + " --output " +
           scratch / "merged",
       scratch);
  same_logits(scratch / "merged", "", scratch);
  const std::string tokens = token_lines(scratch), file = scratch / "merged.safetensors";
  ours("logits --model " + scratch / "merged" + " --tokens " + tokens + " --output " + file,
       scratch);
  judge("logits --model " + kModel + " --adapter " + kAdapter + " --tokens " + tokens + " --ours " +
            file,
        scratch);
}

TEST_CASE("interop: token ids equal those of the tokenizer", "[.python][interop]") {
  const Scratch scratch;
  const std::string text = scratch.write(
      "text.jsonl",
      "{\"text\": \"the answer is (A).\"}\n{\"text\": \"\"}\n{\"text\": \"  two  spaces\"}\n"
      "{\"text\": \"caf\\u00e9 </s> line\\nbreak\"}\n{\"text\": \"<s>[INST] hi [/INST]\"}\n");
  shell(std::string(ESPALIER_BIN_DIR) + "/tokenize --model " + kModel + " <" + text + " 2>&1 1>" +
            scratch / "ids.jsonl",
        scratch);
  judge("ids --model " + kModel + " --text " + text + " --ours " + scratch / "ids.jsonl", scratch);
}
