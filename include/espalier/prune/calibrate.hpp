// SPDX-License-Identifier: Apache-2.0
// A calibration pass: texts through the model, and what its experts did with them. Each text is a
// sequence of its own with the special tokens that the tokenizer adds by default; nothing is packed
// or padded, so every token counts once.
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/calibrate.hpp is host-only; include it from a .cpp"
#endif

#include <functional>

#include <espalier/io/jsonl.hpp>
#include <espalier/models/decoder.hpp>
#include <espalier/prune/activation_scores.hpp>
#include <espalier/text/chat_template.hpp>
#include <espalier/text/tokenizer.hpp>

namespace espalier::prune {

struct CalibrationSet {
  std::vector<std::vector<std::int32_t>> sequences;
  std::int64_t tokens = 0;
};

/// The lines of a JSONL file, {"text": ...} or {"prompt": ..., "response": ...} (joined), up to
/// `max_tokens` in all (0: no limit); the last sequence is cut there.
/// @throws FormatError naming the line
[[nodiscard]] inline CalibrationSet read_calibration(
    const std::filesystem::path& path, std::int64_t max_tokens,
    const std::function<std::vector<std::int32_t>(std::string_view)>& encode,
    const std::function<std::vector<std::int32_t>(const std::vector<text::Message>&)>& encode_chat =
        {}) {
  CalibrationSet set;
  const std::string text = io::read_text(path);
  io::for_each_json_line(text, path.string(), [&](const io::Json& line, std::size_t) {
    if (max_tokens > 0 && set.tokens >= max_tokens) return;
    std::vector<std::int32_t> ids;
    if (encode_chat && line.is_object() && line.find_value("messages") != nullptr) {
      std::vector<text::Message> turns;
      for (const io::Json& m : line.at("messages").items()) {
        turns.push_back({m.at("role").as_string(), m.at("content").as_string()});
      }
      ids = encode_chat(turns);
    } else if (line.is_object() && line.find_value("prompt") != nullptr) {
      ids = encode(line.at("prompt").as_string() + line.at("response").as_string());
    } else {
      ESP_REQUIRE(line.is_object() && line.find_value("text") != nullptr, FormatError, line.where(),
                  ": expected an object with \"text\", \"messages\", or \"prompt\" and "
                  "\"response\"");
      ids = encode(line.at("text").as_string());
    }
    if (max_tokens > 0) {
      const auto room = static_cast<std::size_t>(max_tokens - set.tokens);
      if (ids.size() > room) ids.resize(room);
    }
    set.tokens += static_cast<std::int64_t>(ids.size());
    if (!ids.empty()) set.sequences.push_back(std::move(ids));
  });
  ESP_REQUIRE(set.tokens > 0, FormatError, path.string(), ": has no text to calibrate with");
  return set;
}

/// The same with the tokenizer and the chat template of a checkpoint; the template is looked for
/// when a line has messages.
[[nodiscard]] inline CalibrationSet read_calibration(const std::filesystem::path& path,
                                                     std::int64_t max_tokens,
                                                     const text::Tokenizer& tokenizer,
                                                     const std::filesystem::path& folder) {
  std::optional<text::ChatTemplate> chat;
  return read_calibration(
      path, max_tokens, [&](std::string_view text) { return tokenizer.encode(text); },
      [&](const std::vector<text::Message>& turns) {
        if (!chat) chat = text::ChatTemplate::detect(folder);
        return tokenizer.encode(chat->render(turns, false), false);
      });
}

/// `progress` gets the tokens done so far after each sequence, and may throw to stop.
template <FloatElement T, Device D>
[[nodiscard]] ActivationScores calibrate(const Decoder<T, D>& model, const CalibrationSet& set,
                                         const std::function<void(std::int64_t)>& progress) {
  const DecoderConfig& c = model.config();
  ActivationScores scores(c.num_hidden_layers, c.mixture.experts);
  for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) {
    if (!c.has_mixture(l)) scores.remove_layer(l);
  }
  const MoeObserver<T, D> observer = [&](const MoeObservation<T, D>& o) {
    const Routing& routing = on_host(o.routing);
    const Tensor<acc_t<T>> weights(o.weights.on_host());
    const Tensor<T> outputs(o.outputs.on_host());
    std::vector<acc_t<T>> gates(static_cast<std::size_t>(routing.rows()));
    for (std::size_t row = 0; row < gates.size(); ++row) {
      gates[row] = weights[routing.slot_of_row[static_cast<std::int64_t>(row)]];
    }
    scores.add<T>(o.layer, routing.offsets, gates, outputs.span(), c.hidden_size);
  };
  std::int64_t done = 0;
  for (const std::vector<std::int32_t>& sequence : set.sequences) {
    for (const std::int32_t id : sequence) {
      ESP_REQUIRE(id >= 0 && id < c.vocab_size, FormatError, "calibration: token id ", id,
                  ", the model's vocabulary is 0 to ", c.vocab_size - 1,
                  "; is this another model's tokenizer?");
    }
    const NoGrad no_grad;
    (void)model.hidden(PackedTokens(sequence), &observer);
    done += static_cast<std::int64_t>(sequence.size());
    if (progress) progress(done);
  }
  return scores;
}

}  // namespace espalier::prune
