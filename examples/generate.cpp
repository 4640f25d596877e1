// SPDX-License-Identifier: Apache-2.0
// generate: continues a prompt, or answers in the checkpoint's chat format.
//   generate --model mixtral --prompt "The capital of France is" --max-new-tokens 20
//   generate --model mixtral --adapter run --chat "What is 12 times 7?" --temperature 0.7 --top-p
//   0.9
// Text appears as it is generated; rates go to stderr. --temperature 0 (the default) is greedy.
#include <espalier/core/clock.hpp>
#include <espalier/hub/load_model.hpp>
#include <espalier/infer/decode.hpp>
#include <espalier/io/json.hpp>
#include <espalier/ops/trace_session.hpp>
#include <espalier/text/chat_tokenizer.hpp>
#include <espalier/text/decode_stream.hpp>

#include "cli/compute.hpp"
#include "cli/print.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;

struct Options {
  std::string model, adapter, prompt, chat, chat_template = "auto";
  infer::DecodeOptions decode;
};

std::vector<std::int32_t> prompt_ids(const Options& o, const text::ChatTokenizer& words) {
  if (!o.chat.empty()) return words.encode_chat({{"user", o.chat}}, true);
  const text::Tokenizer& tokenizer = words.tokenizer();
  std::vector<std::int32_t> ids = tokenizer.encode(o.prompt);
  if (ids.empty() && tokenizer.bos_id()) ids.push_back(*tokenizer.bos_id());
  ESP_REQUIRE(!ids.empty(), UsageError, "the prompt has no tokens");
  return ids;
}

template <FloatElement T, Device D>
void run(const Options& o, const CommonOptions& common) {
  ESP_REQUIRE(o.prompt.empty() != o.chat.empty(), UsageError, "give either --prompt or --chat");
  const hub::Checkpoint checkpoint(o.model);
  print_warnings("generate", checkpoint.warnings());
  const auto words = text::ChatTokenizer::load(o.model, o.chat_template);
  const text::Tokenizer& tokenizer = words.tokenizer();
  const auto model = hub::load_model<T, D>(checkpoint, o.adapter);
  const std::vector<std::int32_t> prompt = prompt_ids(o, words);
  tokenizer.require_within(prompt, model.config().vocab_size);

  const auto& ends = model.config().eos_token_ids;
  std::string text;
  text::DecodeStream stream(tokenizer);
  const auto show = [&](const std::string& piece) {
    text += piece;
    if (common.json) return;
    print("{}", piece);
    std::fflush(stdout);
  };
  const double begin = monotonic_seconds();
  double prompt_done = begin;
  infer::DecodeOptions options = o.decode;
  options.seed = common.seed;
  const std::vector<std::int32_t> ids = infer::decode(
      model, prompt, options,
      [&](std::int32_t id) {
        if (std::find(ends.begin(), ends.end(), id) != ends.end() || id == tokenizer.eos_id()) {
          return false;
        }
        show(stream.push(id));
        return !interrupted();
      },
      [&] { prompt_done = monotonic_seconds(); });
  show(stream.finish());
  const auto rate = [](std::size_t tokens, double seconds) {
    return static_cast<double>(tokens) / std::max(seconds, 1e-9);
  };
  const double prefill_rate = rate(prompt.size(), prompt_done - begin);
  const double decode_rate = rate(ids.size(), monotonic_seconds() - prompt_done);
  if (common.json) {
    io::Json result = io::Json::object();
    result["ids"] = io::Json::array(ids);
    result["text"] = text;
    result["prompt_tokens"] = prompt.size();
    result["prefill_tokens_per_second"] = prefill_rate;
    result["decode_tokens_per_second"] = decode_rate;
    print("{}\n", io::dump(result));
  } else {
    print("\n");
    std::fflush(stdout);
    print(stderr, "{} prompt tokens at {:.1f}/s, {} new tokens at {:.1f}/s\n", prompt.size(),
          prefill_rate, ids.size(), decode_rate);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "generate", "Continues a prompt or answers a message.",
      [&](CLI::App& app) {
        app.add_option("--model", o.model, "Checkpoint folder in Hugging Face layout")->required();
        app.add_option("--adapter", o.adapter, "PEFT adapter folder to apply");
        app.add_option("--prompt", o.prompt, "Text to continue");
        app.add_option("--chat", o.chat, "A user's message to answer");
        app.add_option("--chat-template", o.chat_template,
                       "auto (the checkpoint's), none, chatml, mixtral or mixtral-v1");
        app.add_option("--max-new-tokens", o.decode.max_new_tokens, "Stop after that many")
            ->check(integer_within(1, 1 << 20));
        app.add_option("--temperature", o.decode.sampling.temperature, "0 is greedy")
            ->check(real_within(0, 100));
        app.add_option("--top-p", o.decode.sampling.top_p,
                       "Draw from the likeliest ids that reach this probability")
            ->check(real_within(1e-6, 1));
      },
      [&](const CommonOptions& common) {
        const TraceSession trace;  // where ESPALIER_TRACE names a file
        visit_compute(common.device, "f32", [&]<class T, class D>() { run<T, D>(o, common); });
      });
}
