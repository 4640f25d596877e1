// SPDX-License-Identifier: Apache-2.0
// Which chat template a program uses: one rule for training, evaluation and generation, so that a
// model is asked in the words in which it was taught.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/choose_template.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <optional>
#include <string>

#include <espalier/core/inline.hpp>
#include <espalier/text/chat_template.hpp>
#include <espalier/text/tokenizer.hpp>

namespace espalier::text {

struct ChosenTemplate {
  std::optional<ChatTemplate> chat;
  std::string why_none;  // where there is none
};

/// `asked`: "auto" for the one in `folder`, "none", or the name of one that is built in, which
/// takes the tokenizer's own texts for begin and end.
/// @throws UsageError for an unknown name
[[nodiscard]] ESP_INLINE ChosenTemplate choose_template(const std::filesystem::path& folder,
                                                        const Tokenizer& tokenizer,
                                                        const std::string& asked) {
  if (asked == "none") return {std::nullopt, "no chat template was asked for"};
  if (asked != "auto") {
    const auto text_of = [&](std::optional<std::int32_t> id, const char* fallback) {
      return id ? tokenizer.token(*id) : std::string(fallback);
    };
    return {ChatTemplate::named(asked, text_of(tokenizer.bos_id(), "<s>"),
                                text_of(tokenizer.eos_id(), "</s>")),
            ""};
  }
  try {
    return {ChatTemplate::detect(folder), ""};
  } catch (const FormatError& e) {
    return {std::nullopt, e.what()};
  }
}

}  // namespace espalier::text
