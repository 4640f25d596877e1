// SPDX-License-Identifier: Apache-2.0
// Chat templates: ChatML and the two of Mixtral-Instruct, exactly as transformers renders them.
// A checkpoint's template is a Jinja program. It is not interpreted: its canonical form
// (template_source.hpp) is compared with the known ones, so a template is either fully supported or
// refused. Rendered text contains BOS and EOS: encode it with add_special_tokens = false.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/chat_template.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/io/file.hpp>
#include <espalier/io/json.hpp>
#include <espalier/text/special_tokens.hpp>
#include <espalier/text/template_source.hpp>

namespace espalier::text {

struct Message {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

/// A segment of a rendered conversation. `is_completion`: the assistant's text and its end token,
/// which are trained on.
struct TextSegment {
  std::string text;
  bool is_completion = false;
};

/// Renders conversations with a model's template.
using RenderChat = std::function<std::vector<TextSegment>(const std::vector<Message>&)>;

class ChatTemplate {
 public:
  enum class Kind { chatml, mixtral, mixtral_v1 };
  static constexpr std::string_view kNames = "chatml, mixtral, mixtral-v1";

  /// The template of a checkpoint folder: chat_template.jinja, or "chat_template" in
  /// tokenizer_config.json.
  /// @throws FormatError if there is none, or one that is not known
  ESP_INLINE static ChatTemplate detect(const std::filesystem::path& folder) {
    std::string where;
    const std::optional<std::string> source = find_source(folder, where);
    ESP_REQUIRE(source, FormatError, folder.string(),
                ": no chat_template.jinja, and no \"chat_template\" in tokenizer_config.json; name "
                "the template to use: ",
                kNames);
    const TokenizerFolder tokens(folder);
    return from_source(*source, where, tokens.token_text("bos_token").value_or("<s>"),
                       tokens.token_text("eos_token").value_or("</s>"));
  }

  /// As `detect`, from the Jinja text itself; `where` names it in messages.
  ESP_INLINE static ChatTemplate from_source(std::string_view source, std::string_view where,
                                             std::string bos, std::string eos) {
    const std::optional<KnownTemplate> known = recognise_template(source);
    ESP_REQUIRE(
        known, FormatError, where,
        ": this chat template is not one of the known ones; name the template that fits: ", kNames);
    ChatTemplate t(static_cast<Kind>(known->index));
    t.default_system_ = known->default_system;
    t.bos_ = std::move(bos);
    t.eos_ = std::move(eos);
    return t;
  }

  /// `chatml` (without a default system message), `mixtral` (December 2023) or `mixtral-v1` (2024:
  /// a space before [INST] and before the answer, an optional system message).
  ESP_INLINE static ChatTemplate named(std::string_view name, std::string bos = "<s>",
                                       std::string eos = "</s>") {
    ESP_REQUIRE(name == "chatml" || name == "mixtral" || name == "mixtral-v1", UsageError,
                "chat template '", name, "', expected one of: ", kNames);
    ChatTemplate t(name == "chatml"    ? Kind::chatml
                   : name == "mixtral" ? Kind::mixtral
                                       : Kind::mixtral_v1);
    t.bos_ = std::move(bos);
    t.eos_ = std::move(eos);
    return t;
  }

  /// The same template with a tokenizer's texts of BOS and EOS.
  ChatTemplate with_tokens(std::string bos, std::string eos) const {
    ChatTemplate t(*this);
    t.bos_ = std::move(bos);
    t.eos_ = std::move(eos);
    return t;
  }

  Kind kind() const { return kind_; }
  std::string_view name() const {
    constexpr std::string_view kByKind[] = {"chatml", "mixtral", "mixtral-v1"};
    return kByKind[static_cast<int>(kind_)];
  }
  /// The default system message, for conversations without one.
  const std::optional<std::string>& default_system() const { return default_system_; }

  /// What ends an assistant's message, in training too.
  std::string turn_end() const { return kind_ == Kind::chatml ? "<|im_end|>" : eos_; }
  /// What stands between the generation prompt and the assistant's text.
  std::string_view before_answer() const { return kind_ == Kind::mixtral_v1 ? " " : ""; }

  /// @param add_generation_prompt appends the prefix of the assistant's answer
  /// @throws FormatError naming the message, for an order of roles that the template refuses
  std::string render(const std::vector<Message>& messages, bool add_generation_prompt) const {
    std::string out;
    for (const TextSegment& s : render_segments(messages)) out += s.text;
    if (add_generation_prompt && kind_ == Kind::chatml) out += "<|im_start|>assistant\n";
    return out;
  }

  /// The text of render(messages, false), split into trained and untrained segments.
  ESP_INLINE std::vector<TextSegment> render_segments(const std::vector<Message>& messages) const {
    ESP_REQUIRE(!messages.empty(), FormatError, "chat template: a conversation without messages");
    return kind_ == Kind::chatml ? chatml(messages) : mixtral(messages);
  }

 private:
  explicit ChatTemplate(Kind kind) : kind_(kind) {}

  static std::optional<std::string> find_source(const std::filesystem::path& folder,
                                                std::string& where) {
    const std::filesystem::path jinja = folder / "chat_template.jinja";
    const std::filesystem::path config = folder / "tokenizer_config.json";
    where = jinja.string();
    if (std::filesystem::exists(jinja)) return io::read_text(jinja);
    if (!std::filesystem::exists(config)) return std::nullopt;
    const io::Json root = io::read_json(config);
    const io::Json* source = root.find_value("chat_template");
    if (source == nullptr) return std::nullopt;
    where = source->where();
    if (!source->is_array()) return source->as_string();
    for (const io::Json& entry : source->items()) {
      if (entry.at("name").as_string() == "default") return entry.at("template").as_string();
    }
    return std::nullopt;
  }

  static void append(std::vector<TextSegment>& out, std::string_view text, bool is_completion) {
    if (text.empty()) return;
    if (out.empty() || out.back().is_completion != is_completion)
      out.push_back({{}, is_completion});
    out.back().text += text;
  }

  std::vector<TextSegment> chatml(const std::vector<Message>& messages) const {
    std::vector<TextSegment> out;
    if (default_system_ && messages[0].role != "system") {
      append(out, "<|im_start|>system\n" + *default_system_ + "<|im_end|>\n", false);
    }
    for (const Message& m : messages) {
      append(out, "<|im_start|>" + m.role + "\n", false);
      append(out, m.content + "<|im_end|>", m.role == "assistant");
      append(out, "\n", false);
    }
    return out;
  }

  std::vector<TextSegment> mixtral(const std::vector<Message>& messages) const {
    const bool v1 = kind_ == Kind::mixtral_v1;
    const std::string space = v1 ? " " : "";
    const std::size_t first = v1 && messages[0].role == "system" ? 1 : 0;
    std::vector<TextSegment> out;
    append(out, bos_, false);
    for (std::size_t i = first; i < messages.size(); ++i) {
      const Message& m = messages[i];
      require_role(m, i, first);
      if (m.role == "user") {
        const std::string system = i == 1 && first == 1 ? messages[0].content + "\n\n" : "";
        append(out, space + "[INST] " + system + m.content + " [/INST]", false);
      } else {
        append(out, space + m.content + eos_, true);
      }
    }
    return out;
  }

  void require_role(const Message& m, std::size_t index, std::size_t first) const {
    const char* expected = (index - first) % 2 == 0 ? "user" : "assistant";
    ESP_REQUIRE(m.role == expected, FormatError, "chat template ", name(), ": message ", index,
                " has role '", m.role, "', expected '", expected, "': roles must alternate ",
                kind_ == Kind::mixtral_v1
                    ? "user/assistant/user/assistant after an optional system message"
                    : "user/assistant/user/assistant, without a system message");
  }

  Kind kind_;
  std::optional<std::string> default_system_;
  std::string bos_, eos_;
};

}  // namespace espalier::text
