// SPDX-License-Identifier: Apache-2.0
#include <espalier/text/chat_template.hpp>

#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {

using namespace espalier;
using Catch::Matchers::Contains;
using text::ChatTemplate;
using text::Message;
using Messages = std::vector<Message>;

// As published with SmolLM2-135M-Instruct, Mixtral-8x7B-Instruct-v0.1 (December 2023, and 2024).
constexpr const char* kSmolLm2 =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
    "'<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
    "Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}";
constexpr const char* kMixtral =
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != "
    "(loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
    "user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ "
    "'[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ "
    "message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles "
    "are supported!') }}{% endif %}{% endfor %}";
constexpr const char* kMixtralV1 = R"({%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, roles must alternate') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- ' [INST] ' + system_message + '\n\n' + message['content'] + ' [/INST]' }}
        {%- else %}
            {{- ' [INST] ' + message['content'] + ' [/INST]' }}
        {%- endif %}
    {%- elif message.role == 'assistant' %}
        {{- ' ' + message.content + eos_token}}
    {%- else %}
        {{- raise_exception('Only user and assistant roles are supported!') }}
    {%- endif %}
{%- endfor %}
)";

ChatTemplate from(const std::string& source) {
  return ChatTemplate::from_source(source, "t", "<s>", "</s>");
}

std::string joined(const std::vector<text::TextSegment>& segments, bool only_completions) {
  std::string out;
  for (const auto& s : segments) {
    if (!only_completions || s.is_completion) out += "(" + s.text + ")";
  }
  return out;
}

const Messages kTurns = {{"user", "Hi"}, {"assistant", "Yo"}, {"user", "So?"}};

}  // namespace

TEST_CASE("chat template: SmolLM2's brings its system message, unless there is one",
          "[text][chat]") {
  const ChatTemplate t = from(kSmolLm2);
  CHECK(t.name() == "chatml");
  const std::string system =
      "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
      "Face<|im_end|>\n";
  const std::string turns =
      "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
      "<|im_start|>user\nSo?<|im_end|>\n";
  CHECK(t.render(kTurns, false) == system + turns);
  CHECK(t.render(kTurns, true) == system + turns + "<|im_start|>assistant\n");
  CHECK(t.render({{"system", "Be."}, {"user", "x"}}, false) ==
        "<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nx<|im_end|>\n");
  CHECK(ChatTemplate::named("chatml").render(kTurns, false) == turns);
}

TEST_CASE("chat template: Mixtral's two differ in their spaces and in system messages",
          "[text][chat]") {
  const ChatTemplate original = from(kMixtral), v1 = from(kMixtralV1);
  CHECK(original.name() == "mixtral");
  CHECK(v1.name() == "mixtral-v1");
  CHECK(original.render(kTurns, true) == "<s>[INST] Hi [/INST]Yo</s>[INST] So? [/INST]");
  CHECK(v1.render(kTurns, true) == "<s> [INST] Hi [/INST] Yo</s> [INST] So? [/INST]");
  CHECK(v1.render({{"system", "Be."}, {"user", "x"}}, true) == "<s> [INST] Be.\n\nx [/INST]");
  CHECK(ChatTemplate::named("mixtral-v1").render(kTurns, false) == v1.render(kTurns, false));
}

TEST_CASE("chat template: completions are the assistant's words and their end token",
          "[text][chat]") {
  CHECK(joined(from(kSmolLm2).render_segments(kTurns), true) == "(Yo<|im_end|>)");
  CHECK(joined(from(kMixtral).render_segments(kTurns), true) == "(Yo</s>)");
  CHECK(joined(from(kMixtralV1).render_segments(kTurns), false) ==
        "(<s> [INST] Hi [/INST])( Yo</s>)( [INST] So? [/INST])");
}

TEST_CASE("chat template: a wrong order of roles names the message", "[text][chat]") {
  const ChatTemplate t = from(kMixtral), v1 = from(kMixtralV1);
  CHECK_THROWS_WITH(t.render({{"user", "a"}, {"user", "b"}}, false),
                    Contains("message 1 has role 'user', expected 'assistant'"));
  CHECK_THROWS_WITH(t.render({{"system", "a"}, {"user", "b"}}, false),
                    Contains("message 0 has role 'system', expected 'user'"));
  CHECK_THROWS_WITH(v1.render({{"system", "a"}, {"assistant", "b"}}, false),
                    Contains("message 1 has role 'assistant', expected 'user'"));
  CHECK_THROWS_AS(t.render({}, true), FormatError);
}

TEST_CASE("chat template: layout, quotes and blanks do not hide a known template", "[text][chat]") {
  const ChatTemplate t = from(R"({% if not add_generation_prompt is defined %}
  {% set add_generation_prompt = false %}
{% endif %}
{# every turn alike #}
{% for message in messages %}
    {{- "<|im_start|>" + message.role + "\n" + message.content + "<|im_end|>\n" }}
{%- endfor %}
{% if add_generation_prompt %}
    {{- '<|im_start|>' + 'assistant\n' -}}
{% endif %}
)");
  CHECK(t.render(kTurns, true) == ChatTemplate::named("chatml").render(kTurns, true));
  CHECK(!t.default_system());
}

TEST_CASE("chat template: a literal that spells the code of ChatML is no code", "[text][chat]") {
  const std::string chatml = text::detail::chatml_source(false);
  REQUIRE(text::recognise_template(chatml));
  const std::string form = *text::detail::canonical_template(chatml);
  REQUIRE(form.size() > 4);
  CHECK_FALSE(text::recognise_template("{{ \"" + form + "\" }}"));
  CHECK_FALSE(text::recognise_template(form.substr(0, 10) + "{{ \"" + form.substr(10) + "\" }}"));
  CHECK(text::detail::canonical_template(R"({{ "a'}}{{'b" }})") !=
        text::detail::canonical_template("{{ 'a' }}{{ 'b' }}"));
  // A quote or a backslash in the default system message stays what it is.
  const auto known = text::recognise_template(
      "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
      "{{ '<|im_start|>system\nYou\\'re a \\\\ one<|im_end|>\n' }}{% endif %}"
      "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
      "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}");
  REQUIRE(known);
  CHECK(known->default_system == "You're a \\ one");
}

TEST_CASE("chat template: one that is almost known is refused, with a way out", "[text][chat]") {
  for (std::string source : {kSmolLm2, kMixtral, kMixtralV1}) {
    REQUIRE_NOTHROW(from(source));
    // Each character outside blanks matters, but for the wording of errors.
    const std::size_t at = source.find("message['content']");
    CHECK_THROWS_WITH(from(source.insert(at == std::string::npos ? 40 : at, "'x' + ")),
                      Contains("name the template that fits: chatml, mixtral, mixtral-v1"));
  }
  CHECK_THROWS_AS(from("{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"),
                  FormatError);
  CHECK_THROWS_AS(from("{% for"), FormatError);
  CHECK_THROWS_AS(from(std::string(kMixtral) + "{{ eos_token }}"), FormatError);
  CHECK_THROWS_AS(from(std::string(kMixtral) + "\n\n."), FormatError);
  CHECK_THROWS_WITH(ChatTemplate::named("llama"), Contains("expected one of: chatml, mixtral"));
}
