// SPDX-License-Identifier: Apache-2.0
// Texts for people: sessions, stop strings, conversations and files of prompts, on the golden
// model.
#include <algorithm>
#include <set>

#include <espalier/hub/load_model.hpp>
#include <espalier/infer/answer_prompts.hpp>
#include <espalier/infer/chat.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace espalier::infer {
namespace {

using Ids = std::vector<std::int32_t>;

struct Tiny {
  std::string folder = ESPALIER_TESTS_DIR "/golden/tiny_mixtral/model";
  Decoder<float> model = hub::load_model(hub::Checkpoint(folder));

  text::ChatTokenizer words(const std::string& chat_template = "mixtral") const {
    return text::ChatTokenizer::load(folder, chat_template);
  }
};

GeneratorOptions short_answers(std::int64_t tokens) {
  GeneratorOptions options;
  options.decode.max_new_tokens = tokens;
  return options;
}

Ids ids_of(const Answer& answer) {
  Ids ids;
  for (const ChosenToken& token : answer.tokens) ids.push_back(token.id);
  return ids;
}

/// Logits of the token after `ids`, from one pass without a cache.
std::vector<float> plain_logits(const Decoder<float>& model, const Ids& ids) {
  const NoGrad no_grad;
  const auto all = model.logits(model.hidden(PackedTokens(ids)).value());
  const std::int64_t v = all.shape()[1];
  const float* row = all.data() + (std::ssize(ids) - 1) * v;
  return {row, row + v};
}

TEST_CASE("decode session: later prompts reuse what they share, with the bits of a new session",
          "[infer]") {
  const Tiny tiny;
  const auto words = tiny.words();
  const Ids first = words.tokenizer().encode("the tree grows in the garden");
  Ids second = first;
  for (const std::int32_t id : {9, 30, 12, 40}) second.push_back(id);
  DecodeOptions options;
  options.max_new_tokens = 6;
  options.log_probs = 3;
  options.sampling.temperature = 0.9;
  const auto decoded = [&](DecodeSession<float>& session, const Ids& prompt) {
    std::vector<double> found;
    (void)session.decode(prompt, options, [&](const ChosenToken& t) {
      for (const TokenLogProb& p : t.log_probs)
        found.insert(found.end(), {double(p.id), p.log_prob});
      return true;
    });
    return found;
  };
  DecodeSession<float> session(tiny.model), fresh(tiny.model), again(tiny.model);
  const auto of_first = decoded(session, first);
  CHECK(session.reused() == 0);
  CHECK(decoded(session, second) == decoded(fresh, second));
  CHECK(session.reused() >= std::ssize(first));
  CHECK(decoded(session, first) == of_first);
  CHECK(session.reused() == std::ssize(first) - 1);
  options.sequence = 1;  // other random numbers
  CHECK(decoded(again, first) != of_first);
}

TEST_CASE("decode session: the repetition penalty applies to prompt and answer", "[infer]") {
  const Tiny tiny;
  const Ids prompt = tiny.words().tokenizer().encode("the tree grows in the garden");
  DecodeOptions options;
  options.max_new_tokens = 8;
  options.sampling.repetition_penalty = 1.8;
  DecodeSession<float> session(tiny.model);
  const Ids found = session.decode(prompt, options, [](const ChosenToken&) { return true; });
  Ids all = prompt, want;
  for (int i = 0; i < 8; ++i) {
    std::vector<float> z = plain_logits(tiny.model, all);
    for (const std::int32_t id : std::set<std::int32_t>(all.begin(), all.end())) {
      float& x = z[static_cast<std::size_t>(id)];
      x = x > 0 ? x / 1.8f : x * 1.8f;
    }
    want.push_back(static_cast<std::int32_t>(std::max_element(z.begin(), z.end()) - z.begin()));
    all.push_back(want.back());
  }
  CHECK(found == want);
  options.sampling.repetition_penalty = 1;
  CHECK(session.decode(prompt, options, [](const ChosenToken&) { return true; }) != want);
}

TEST_CASE("stopped text: shows no part of what may become a stop string", "[infer]") {
  const Tiny tiny;
  const auto words = tiny.words();
  const Ids prompt = words.tokenizer().encode("and");
  const Ids ids = words.tokenizer().encode("the answer stops here", false);
  for (const std::string stop : {"er st", "here!", "zzz"}) {
    const std::vector<std::string> stops = {stop, ""};
    StoppedText text(words.tokenizer(), prompt, stops);
    std::string shown;
    bool stopped = false;
    for (std::size_t i = 0; i < ids.size() && !stopped; ++i) {
      stopped = text.push(ids[i]);
      shown += text.take_settled();
      if (stopped) continue;
      // What was not shown begins a stop string.
      CHECK(stop.starts_with(text.text().substr(shown.size())));
    }
    text.finish();
    shown += text.take_settled();
    CAPTURE(stop, shown);
    CHECK(stopped == (stop == "er st"));
    CHECK(shown == text.text());
    CHECK(shown.ends_with(stopped ? "the answ" : "the answer stops here"));
    CHECK(text.take_settled().empty());
  }
}

TEST_CASE("chat: two turns equal one encoded conversation", "[infer]") {
  const Tiny tiny;
  for (const std::string name : {"mixtral", "mixtral-v1", "chatml"}) {
    const auto words = tiny.words(name);
    Generator<float> generator(tiny.model, words, short_answers(7));
    const std::string system = name == "mixtral" ? "" : "Be brief.";
    Chat<float> chat(generator, system);
    std::string shown;
    const Answer one = chat.say("tree", [&](const std::string& s) { return shown += s, true; });
    CHECK(shown == one.text);
    CHECK(one.reused_tokens == 0);
    const Answer two = chat.say("and flowers?", {});
    CHECK(two.reused_tokens > 0);

    std::vector<text::Message> messages;
    if (!system.empty()) messages.push_back({"system", system});
    messages.push_back({"user", "tree"});
    messages.push_back({"assistant", one.text});
    messages.push_back({"user", "and flowers?"});
    const Ids conversation = words.encode_chat(messages, true);
    CHECK(two.prompt_tokens == std::ssize(conversation));
    Ids all = conversation, want;
    for (int i = 0; i < 7; ++i) {
      const auto z = plain_logits(tiny.model, all);
      all.push_back(static_cast<std::int32_t>(std::max_element(z.begin(), z.end()) - z.begin()));
      if (all.back() == words.tokenizer().eos_id()) break;
      want.push_back(all.back());
    }
    CAPTURE(name);
    CHECK(ids_of(two) == want);
    messages.push_back({"assistant", two.text});
    REQUIRE(chat.messages().size() == messages.size());
    for (std::size_t i = 0; i < messages.size(); ++i) {
      CHECK(chat.messages()[i].role == messages[i].role);
      CHECK(chat.messages()[i].content == messages[i].content);
    }
  }
  const auto none = tiny.words("none");
  Generator<float> generator(tiny.model, none, short_answers(1));
  CHECK_THROWS_AS(Chat<float>(generator), FormatError);
}

TEST_CASE("chat: an answer says why it ended", "[infer]") {
  const Tiny tiny;
  const auto words = tiny.words();
  const Ids prompt = words.tokenizer().encode("the tree");
  Generator<float> plain(tiny.model, words, short_answers(12));
  const Answer whole = plain.answer(prompt, false, {});
  CHECK(whole.end == Answer::End::limit);
  REQUIRE(whole.text.size() > 8);
  GeneratorOptions options = short_answers(12);
  options.stop = {whole.text.substr(4, 2)};
  Generator<float> stopping(tiny.model, words, options);
  const Answer stopped = stopping.answer(prompt, false, {});
  CHECK(stopped.end == Answer::End::stop_string);
  CHECK(stopped.text == whole.text.substr(0, whole.text.find(options.stop[0])));
  const Answer cut = plain.answer(prompt, false, [](const std::string&) { return false; });
  CHECK(cut.end == Answer::End::cut);
  CHECK(cut.tokens.size() < whole.tokens.size());
  CHECK_THROWS_AS(plain.answer({1, 9999}, false, {}), FormatError);
}

TEST_CASE("chat tokenizer: templates use the tokenizer's BOS, or none if it has none", "[infer]") {
  const Tiny tiny;
  const test::TemporaryFolder folder;
  std::filesystem::copy(tiny.folder + "/tokenizer.json", folder / "tokenizer.json");
  const auto rendered = [&](const char* name) {
    const auto words = text::ChatTokenizer::load(folder.path(), name);
    REQUIRE(words.chat());
    return words.chat()->render({{"user", "Hi"}}, true);
  };
  // The token comes from config.json here, as some checkpoints have it.
  test::write_bytes(folder / "config.json", "{\"bos_token_id\": 2}");
  CHECK(rendered("mixtral") == "</s>[INST] Hi [/INST]");
  test::write_bytes(
      folder / "chat_template.jinja",
      "{{ bos_token }}{% for message in messages %}"
      "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('x') }}"
      "{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' "
      "}}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% else %}"
      "{{ raise_exception('y') }}{% endif %}{% endfor %}");
  CHECK(rendered("auto") == "</s>[INST] Hi [/INST]");
  test::write_bytes(folder / "config.json", "{}");
  CHECK(rendered("mixtral") == "[INST] Hi [/INST]");
  CHECK(rendered("auto") == "[INST] Hi [/INST]");
}

TEST_CASE("prompts: lines of text or of JSON, and errors that name the line", "[infer]") {
  const auto texts = parse_prompts("one\r\n\n  two \nthree", "p.txt");
  REQUIRE(texts.size() == 3);
  CHECK(texts[0].text == "one");
  CHECK(texts[1].text == "  two ");
  CHECK(texts[2].where == "p.txt: line 4");
  const auto rows = parse_prompts(
      "\n{\"prompt\": \"a\\nb\"}\n"
      "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, "
      "{\"role\": \"user\", \"content\": \"u\"}]}\n",
      "p.jsonl");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].text == "a\nb");
  REQUIRE(rows[1].messages.size() == 2);
  CHECK(rows[1].messages[1].content == "u");
  const auto fails = [](const std::string& content, const std::string& message) {
    CHECK_THROWS_WITH((void)parse_prompts(content, "p"), Catch::Contains(message));
  };
  fails(" \n", "p: has no prompts");
  fails("{\"prompt\": \"a\"}\nplain\n", "p: line 2");
  fails("{\"text\": \"a\"}", "p: line 1: has neither \"prompt\" nor \"messages\"");
  fails("{\"prompt\": \"a\", \"messages\": []}", "has both");
  fails("{\"messages\": []}", "must end with a message of the role user");
  fails("{\"messages\": [{\"role\": \"assistant\", \"content\": \"u\"}]}", "must end with");
}

TEST_CASE("prompts: a system message joins conversations that have none", "[infer]") {
  const Tiny tiny;
  const auto words = tiny.words("mixtral-v1");
  const Prompt bare{"p: line 1", "", {{"user", "tree"}}};
  const Prompt own{"p: line 2", "", {{"system", "mine"}, {"user", "tree"}}};
  const auto encoded = [&](const char* system) {
    return words.encode_chat({{"system", system}, {"user", "tree"}}, true);
  };
  CHECK(encode_prompt(bare, words, "yours") == encoded("yours"));
  CHECK(encode_prompt(own, words, "yours") == encoded("mine"));
  CHECK(encode_prompt(bare, words) == words.encode_chat({{"user", "tree"}}, true));
  CHECK(encode_prompt({"", "tree", {}}, words) == words.tokenizer().encode("tree"));
  const Prompt wrong{"p: line 3", "", {{"user", "a"}, {"user", "b"}}};
  CHECK_THROWS_WITH((void)encode_prompt(wrong, words),
                    Catch::StartsWith("p: line 3: chat template"));
}

TEST_CASE("prompts: answered together as one by one", "[infer]") {
  const Tiny tiny;
  const auto words = tiny.words("mixtral-v1");
  std::vector<Prompt> prompts;
  for (const char* text : {"the tree", "a garden of", "flowers"}) {
    prompts.push_back({"", text, {}});
    prompts.push_back({"", "", {{"user", text}}});
  }
  std::vector<Ids> ids;
  for (const Prompt& p : prompts) ids.push_back(encode_prompt(p, words));
  GeneratorOptions options = short_answers(9);
  options.stop = {"e"};
  Generator<float> generator(tiny.model, words, options);
  std::size_t answered = 0, passes = 0;
  answer_together(
      tiny.model, words, prompts, ids, options, 4, [&] { ++passes; },
      [&](std::size_t i, const Completion& found) {
        ++answered;
        const Answer want = generator.answer(ids[i], !prompts[i].messages.empty(), {});
        CAPTURE(i);
        CHECK(found.ids == ids_of(want));
        CHECK(found.text == want.text);
        CHECK(found.hit_limit == (want.end == Answer::End::limit));
      });
  CHECK(answered == prompts.size());
  CHECK(passes > 0);
}

}  // namespace
}  // namespace espalier::infer
