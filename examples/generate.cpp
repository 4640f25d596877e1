// SPDX-License-Identifier: Apache-2.0
// generate: continues a prompt, or answers in the checkpoint's chat format.
//   generate --model mixtral --prompt "The capital of France is" --max-new-tokens 20
//   generate --model mixtral --adapter run --chat "What is 12 times 7?" --temperature 0.7 --top-p
//   0.9
// Text appears as it is generated; rates go to stderr. --temperature 0 (the default) is greedy.
#include <chrono>
#include <numeric>

#include <espalier/hub/load_model.hpp>
#include <espalier/io/json.hpp>
#include <espalier/ops/trace_session.hpp>
#include <espalier/text/choose_template.hpp>
#include <espalier/text/decode_stream.hpp>

#include "cli/compute.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;

struct Options {
  std::string model, adapter, prompt, chat, chat_template = "auto";
  std::int64_t max_new_tokens = 256;
  double temperature = 0, top_p = 1;
};

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// The next id from a row of logits [V]: the best one, or a draw from the smallest set of most
// likely ids whose probabilities reach top_p (Holtzman et al. 2019, arXiv:1904.09751). Equals go to
// the lowest id.
std::int32_t sample(const Tensor<float>& logits, double temperature, double top_p, double uniform) {
  const float* z = logits.data();
  const auto vocab = static_cast<std::int32_t>(logits.numel());
  const auto best = static_cast<std::int32_t>(std::max_element(z, z + vocab) - z);
  if (temperature <= 0) return best;
  std::vector<double> p(vocab);
  for (std::int32_t i = 0; i < vocab; ++i) p[i] = std::exp((z[i] - z[best]) / temperature);
  std::vector<std::int32_t> order(vocab);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return p[a] > p[b]; });
  const double all = std::accumulate(p.begin(), p.end(), 0.0);
  double kept = 0;
  std::size_t count = 0;
  while (count < order.size() && (count == 0 || kept < top_p * all)) kept += p[order[count++]];
  double left = uniform * kept;
  for (std::size_t i = 0; i < count; ++i) {
    left -= p[order[i]];
    if (left < 0) return order[i];
  }
  return order[count - 1];
}

std::vector<std::int32_t> prompt_ids(const Options& o, const text::Tokenizer& tokenizer) {
  std::vector<std::int32_t> ids;
  if (o.chat.empty()) {
    ids = tokenizer.encode(o.prompt);
    if (ids.empty() && tokenizer.bos_id()) ids.push_back(*tokenizer.bos_id());
  } else {
    const auto chosen = text::choose_template(o.model, tokenizer, o.chat_template);
    ESP_REQUIRE(chosen.chat, FormatError, chosen.why_none);
    ids = tokenizer.encode(chosen.chat->render({{"user", o.chat}}, true), false);
  }
  ESP_REQUIRE(!ids.empty(), UsageError, "the prompt has no tokens");
  return ids;
}

template <FloatElement T, Device D>
void run(const Options& o, const CommonOptions& common) {
  ESP_REQUIRE(o.prompt.empty() != o.chat.empty(), UsageError, "give either --prompt or --chat");
  const hub::Checkpoint checkpoint(o.model);
  const auto tokenizer = text::Tokenizer::load(o.model);
  const auto model = hub::load_model<T, D>(checkpoint, o.adapter);
  const auto& config = model.config();
  const std::vector<std::int32_t> prompt = prompt_ids(o, tokenizer);
  for (const std::int32_t id : prompt) {
    ESP_REQUIRE(id < config.vocab_size, FormatError, o.model, ": the tokenizer gives id ", id,
                ", the model's vocabulary is ", config.vocab_size);
  }
  const auto& ends = config.eos_token_ids;
  const auto is_end = [&](std::int32_t id) {
    return std::find(ends.begin(), ends.end(), id) != ends.end() || id == tokenizer.eos_id();
  };

  auto cache = model.new_cache(static_cast<std::int64_t>(prompt.size()) + o.max_new_tokens);
  KvCache<T, D>* caches[] = {&cache};
  const auto begin = std::chrono::steady_clock::now();
  auto hidden = model.hidden(PackedTokens(prompt), caches);
  hidden = hidden.rows(hidden.shape(0) - 1, hidden.shape(0));
  const double prefill_seconds = seconds_since(begin);

  const Philox random(common.seed, stream_of("generate"));
  std::vector<std::int32_t> ids;
  std::string text;
  text::DecodeStream stream(tokenizer);
  const auto show = [&](const std::string& piece) {
    text += piece;
    if (common.json) return;
    fmt::print("{}", piece);
    std::fflush(stdout);
  };
  const auto decode_begin = std::chrono::steady_clock::now();
  while (static_cast<std::int64_t>(ids.size()) < o.max_new_tokens && !interrupted()) {
    const std::int32_t id = sample(Tensor<float>(model.logits(hidden).on_host()), o.temperature,
                                   o.top_p, random.uniform(ids.size()));
    ids.push_back(id);
    if (is_end(id)) break;
    show(stream.push(id));
    if (static_cast<std::int64_t>(ids.size()) < o.max_new_tokens) {
      hidden = model.hidden(PackedTokens({id}), caches);
    }
  }
  show(stream.finish());
  const double decode_seconds = seconds_since(decode_begin);
  const double prefill_rate = static_cast<double>(prompt.size()) / prefill_seconds;
  const double decode_rate = static_cast<double>(ids.size()) / std::max(decode_seconds, 1e-9);
  if (common.json) {
    io::Json result = io::Json::object();
    result["ids"] = io::Json::array(ids);
    result["text"] = text;
    result["prompt_tokens"] = prompt.size();
    result["prefill_tokens_per_second"] = prefill_rate;
    result["decode_tokens_per_second"] = decode_rate;
    fmt::print("{}\n", io::dump(result));
  } else {
    fmt::print("\n");
    std::fflush(stdout);
    fmt::print(stderr, "{} prompt tokens at {:.1f}/s, {} new tokens at {:.1f}/s\n", prompt.size(),
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
                       "auto (the checkpoint's), chatml, mixtral or mixtral-v1");
        app.add_option("--max-new-tokens", o.max_new_tokens, "Stop after that many")
            ->check(CLI::Range(1, 1 << 20));
        app.add_option("--temperature", o.temperature, "0 is greedy")
            ->check(CLI::Range(0.0, 100.0));
        app.add_option("--top-p", o.top_p,
                       "Draw from the likeliest ids that reach this probability")
            ->check(CLI::Range(1e-6, 1.0));
      },
      [&](const CommonOptions& common) {
        const TraceSession trace;  // where ESPALIER_TRACE names a file
        visit_compute(common.device, "f32", [&]<class T, class D>() { run<T, D>(o, common); });
      });
}
