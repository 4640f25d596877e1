// SPDX-License-Identifier: Apache-2.0
// Whole prompts: description, worked examples, chat. The conversations are those that
// lm-evaluation-harness 0.4.13 builds (ConfigurableTask.fewshot_context, multiturn_to_singleturn).
#include <espalier/eval/prompts.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::eval;

namespace {

TaskData animals(const std::string& more = "") {
  const TaskDefinition definition(io::parse_json(R"({
    "name": "animals", "version": "1", "prompt": "Q: {sound}\nA:", "choices": ["dog", "cow"],
    "gold": "{gold}", "metrics": ["acc"], "description": "Who says it?\n\n", "by": "{kind}",
    "shot_order": "first")" + more + "}",
                                                 "animals.json"));
  TaskData data{definition, {}};
  for (const char* row : {R"({"sound": "Moo", "gold": 1, "kind": "farm"})",
                          R"({"sound": "Wow", "gold": 0, "kind": "home"})",
                          R"({"sound": "Muh", "gold": 1, "kind": "farm"})"}) {
    data.questions.push_back(definition.question(io::parse_json(row, "row")));
  }
  return data;
}

std::string tagged(const std::vector<text::Message>& messages) {
  std::string out;
  for (const text::Message& m : messages) out += "<" + m.role + ">" + m.content;
  return out + "<assistant>";
}

}  // namespace

TEST_CASE("prompts: examples of the same part, after the description", "[eval]") {
  TaskData data = animals();
  data.shots = data.questions;
  data.shots[0].contexts = {"Q: Mow\nA:"};
  data.shots[2].contexts = {"Q: Muuh\nA:"};
  data.questions.erase(data.questions.begin() + 1);  // the only one of its part
  const Prompts prompts("animals", data, {.shots = 2, .limit = 1});
  CHECK(prompts.form() == "none");
  REQUIRE(prompts.size() == 1);
  CHECK(prompts.context(0, 0) == "Who says it?\n\nQ: Mow\nA: cow\n\nQ: Muuh\nA: cow\n\nQ: Moo\nA:");
  CHECK(prompts.continuation(0, 1) == " cow");
}

TEST_CASE("prompts: a conversation has the examples in the question, or as turns", "[eval]") {
  TaskData data = animals();
  PromptOptions options{.shots = 1, .limit = 1};
  options.chat = tagged;
  options.chat_name = "tagged";
  options.system = "Be short.";
  data.questions.erase(data.questions.begin() + 1);
  const Prompts single("animals", data, options);
  // The description brings its blank line, so no delimiter stands after it, and one before it.
  CHECK(single.context(0, 0) ==
        "<system>Be short.\n\nWho says it?\n\n<user>Q: Muh\nA: cow\n\nQ: Moo\nA:<assistant>");
  CHECK(single.continuation(0, 0) == "dog");
  CHECK(single.form() == "tagged, system prompt: Be short.");
  options.turns = true;
  const Prompts turns("animals", data, options);
  CHECK(turns.context(0, 0) ==
        "<system>Be short.\n\nWho says it?\n\n<user>Q: Muh\nA:<assistant>cow<user>Q: "
        "Moo\nA:<assistant>");
  CHECK(turns.form() == "tagged, shots as turns, system prompt: Be short.");
}

TEST_CASE("prompts: plain text begins with the system prompt", "[eval]") {
  PromptOptions options;
  options.system = "Be short.";
  const Prompts prompts("animals", animals(), options);
  CHECK(prompts.context(1, 0) == "Be short.\n\nWho says it?\n\nQ: Wow\nA:");
}

TEST_CASE("prompts: without another question there is no example", "[eval]") {
  CHECK(test::message_of<UsageError>([] { Prompts("animals", animals(), {.shots = 1}); }) ==
        "animals: 1 shots, there are 0 to choose from for home");
  CHECK(Prompts("animals", animals(R"(, "shots": 0)"), {}).shots() == 0);
}
