// SPDX-License-Identifier: Apache-2.0
// Runs a task that measures the perplexity of whole texts (WikiText), as lm-evaluation-harness
// does: a text is cut into windows of what the model takes; each token is predicted once, in a
// window that begins with the last token of the window before, or with BOS.
//   word_perplexity exp(-sum log p / words), byte_perplexity exp(-sum log p / bytes), bits_per_byte
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/text_task.hpp is host-only; include it from a .cpp"
#endif

#include <cmath>
#include <numbers>

#include <espalier/eval/prompted_task.hpp>
#include <espalier/eval/wikitext.hpp>

namespace espalier::eval {

/// The windows of a text. The last one looks back as far as the model takes.
/// @param start stands before the first token
[[nodiscard]] inline std::vector<infer::Continuation> rolling_windows(
    std::span<const std::int32_t> ids, std::int32_t start, std::int64_t max_length) {
  std::vector<std::int32_t> all = {start};
  all.insert(all.end(), ids.begin(), ids.end());
  const auto most = static_cast<std::size_t>(max_length);
  std::vector<infer::Continuation> windows;
  for (std::size_t done = 1; done < all.size();) {
    const std::size_t end = std::min(done + most, all.size());
    // `most` tokens are inputs; the last one is only predicted.
    const std::size_t begin = windows.empty() ? 0 : end - most - 1;
    const auto at = [&](std::size_t i) { return all.begin() + static_cast<std::ptrdiff_t>(i); };
    windows.push_back({{at(begin), at(done)}, {at(done), at(end)}});
    done = end;
  }
  return windows;
}

class TextTask final : public Task {
 public:
  TextTask(std::string name, Prompts texts) : name_(std::move(name)), texts_(std::move(texts)) {
    ESP_REQUIRE(!texts_.options().chat, UsageError, name_,
                ": the perplexity of a text has no chat template");
  }

  const std::string& name() const override { return name_; }

  TaskResult run(const Session& session) override {
    TaskResult result = result_of(name_, texts_);
    ESP_REQUIRE(session.start >= 0, FormatError, name_,
                ": a text begins after BOS, but the tokenizer has neither BOS nor EOS");
    std::vector<std::vector<infer::Continuation>> asked;
    std::vector<Journal::Question> keys;
    io::Fingerprint all;
    for (std::size_t i = 0; i < texts_.size(); ++i) {
      const std::vector<std::int32_t> ids =
          session.encode(texts_.question(i).continuation(0), false);
      asked.push_back(rolling_windows(ids, session.start, session.max_length));
      keys.push_back({static_cast<std::int64_t>(texts_.row(i)), prompt_fingerprint(asked[i])});
      all.add(keys.back().prompt);
    }
    Journal journal(journal_path(session, name_), "id",
                    journal_key(session, texts_.data().definition), std::move(keys),
                    session.resume);
    score_missing(session, name_, journal, asked,
                  [&](std::size_t i, auto found) { return describe(i, asked[i], found); });
    journal.finish();
    add_metrics(result, texts_,
                [&](const std::vector<std::size_t>& some) { return metrics(journal, some); });
    result.prompts = all.text();
    const TokenCounts tokens = count_tokens(asked);
    result.tokens_asked = tokens.asked;
    result.tokens_computed = tokens.computed;
    return result;
  }

 private:
  io::Json describe(std::size_t i, const std::vector<infer::Continuation>& asked,
                    std::span<const infer::Likelihood> found) const {
    const Question& q = texts_.question(i);
    double sum = 0;
    std::size_t tokens = 0;
    for (std::size_t w = 0; w < found.size(); ++w) {
      sum += found[w].log_prob;
      tokens += asked[w].continuation.size();
    }
    io::Json line = io::Json::object();
    line["logprob"] = sum;
    line["tokens"] = tokens;
    line["windows"] = asked.size();
    line["words"] = count_words(q.target);
    line["bytes"] = q.target.size();
    if (!q.part.empty()) line["part"] = q.part;
    return line;
  }

  std::vector<Metric> metrics(const Journal& journal, const std::vector<std::size_t>& some) const {
    std::vector<double> losses, words, bytes;
    for (const std::size_t i : some) {
      losses.push_back(-journal.entry(i).at("logprob").as_double());
      words.push_back(journal.entry(i).at("words").as_double());
      bytes.push_back(journal.entry(i).at("bytes").as_double());
    }
    std::vector<Metric> out;
    for (const std::string& name : texts_.data().definition.metrics) {
      const Estimate nats = ratio_of(losses, name == "word_perplexity" ? words : bytes);
      if (name == "bits_per_byte") {
        out.push_back(
            {name, {nats.value / std::numbers::ln2, nats.standard_error / std::numbers::ln2}});
        continue;
      }
      const double perplexity = std::exp(nats.value);
      out.push_back({name, {perplexity, perplexity * nats.standard_error}});
    }
    return out;
  }

  std::string name_;
  Prompts texts_;
};

}  // namespace espalier::eval
