// SPDX-License-Identifier: Apache-2.0
// The program generate: its ways to ask and what it prints.
#include <cstdlib>

#include <espalier/io/jsonl.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using Catch::Contains;

namespace {

const std::string kModel = std::string(ESPALIER_TESTS_DIR) + "/golden/tiny_mixtral/model";

class World {
 public:
  /// Runs `script` in bash, in the folder; @ stands for generate with the golden model.
  int run(std::string script) {
    const std::string program =
        std::string(ESPALIER_BIN_DIR) + "/generate --threads 1 --model " + kModel + " ";
    for (std::size_t at = 0; (at = script.find('@', at)) != script.npos; at += program.size()) {
      script.replace(at, 1, program);
    }
    test::write_bytes(folder / "script", "cd '" + folder.path().string() + "'\n" + script + "\n");
    const int status =
        std::system(("bash " + (folder / "script").string() + " >" + (folder / "stdout").string() +
                     " 2>" + (folder / "stderr").string())
                        .c_str());
    printed = test::read_bytes(folder / "stdout");
    said = test::read_bytes(folder / "stderr");
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::vector<io::Json> lines() const { return io::read_jsonl(folder / "stdout"); }

  test::TemporaryFolder folder;
  std::string printed, said;
};

}  // namespace

TEST_CASE("generate: a stop string ends the text, which says so", "[tools][generate]") {
  World w;
  REQUIRE(w.run("@ --prompt 'the tree' --max-new-tokens 12 --json") == 0);
  const std::string whole = w.lines().at(0).at("text").as_string();
  CHECK(w.lines()[0].at("finish_reason").as_string() == "length");
  REQUIRE(whole.size() > 6);
  const std::string stop = whole.substr(4, 2);
  test::write_bytes(w.folder / "stop", stop);
  const std::string options =
      "--prompt 'the tree' --max-new-tokens 12 --stop never --stop \"$(cat stop)\"";
  REQUIRE(w.run("@ --json " + options) == 0);
  CHECK(w.lines().at(0).at("text").as_string() == whole.substr(0, whole.find(stop)));
  CHECK(w.lines()[0].at("finish_reason").as_string() == "stop");
  REQUIRE(w.run("@ " + options) == 0);
  CHECK(w.printed == whole.substr(0, whole.find(stop)) + "\n");
}

TEST_CASE("generate: log probabilities of the chosen and the likeliest tokens",
          "[tools][generate]") {
  World w;
  REQUIRE(w.run("@ --prompt 'the tree' --max-new-tokens 3 --json --logprobs 2") == 0);
  const io::Json line = w.lines().at(0);
  REQUIRE(line.at("logprobs").size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    const io::Json& token = line.at("logprobs").at(i);
    CHECK(token.at("id").as_int() == line.at("ids").at(i).as_int());
    REQUIRE(token.at("best").size() == 2);
    // A greedy token is the likeliest one.
    CHECK(token.at("best").at(0).at("id").as_int() == token.at("id").as_int());
    CHECK(token.at("best").at(0).at("log_prob").as_double() == token.at("log_prob").as_double());
    CHECK(token.at("best").at(1).at("log_prob").as_double() <= token.at("log_prob").as_double());
    CHECK(token.at("log_prob").as_double() < 0);
  }
}

TEST_CASE("generate: a file of prompts gives a line for each, in its order", "[tools][generate]") {
  World w;
  test::write_bytes(w.folder / "p.jsonl",
                    "{\"prompt\": \"the tree\"}\n"
                    "{\"messages\": [{\"role\": \"user\", \"content\": \"flowers\"}]}\n"
                    "{\"prompt\": \"a\"}\n");
  REQUIRE(w.run("@ --prompts p.jsonl --batch-size 2 --max-new-tokens 5 --chat-template mixtral") ==
          0);
  const auto together = w.lines();
  REQUIRE(together.size() == 3);
  const std::string single[] = {"--prompt 'the tree'", "--chat flowers", "--prompt a"};
  for (std::size_t i = 0; i < 3; ++i) {
    REQUIRE(w.run("@ --json --max-new-tokens 5 --chat-template mixtral " + single[i]) == 0);
    const io::Json alone = w.lines().at(0);
    for (const char* key : {"ids", "text", "finish_reason", "prompt_tokens"}) {
      CHECK(io::dump(together[i].at(key)) == io::dump(alone.at(key)));
    }
  }
  const std::string rest = " --max-new-tokens 5 --chat-template mixtral";
  REQUIRE(w.run("@ --prompts - --output out.jsonl <p.jsonl" + rest) == 0);
  CHECK(w.printed.empty());
  const auto written = io::read_jsonl(w.folder / "out.jsonl");
  REQUIRE(written.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) CHECK(io::dump(written[i]) == io::dump(together[i]));
  // One by one: the same seed, the same draws; other prompts draw other numbers.
  test::write_bytes(w.folder / "p.txt", "the tree\nthe tree\n");
  REQUIRE(w.run("@ --prompts p.txt --temperature 2 --seed 3 --max-new-tokens 12") == 0);
  const std::string first = w.printed;
  CHECK(io::dump(w.lines().at(0).at("ids")) != io::dump(w.lines().at(1).at("ids")));
  REQUIRE(w.run("@ --prompts p.txt --temperature 2 --seed 3 --max-new-tokens 12") == 0);
  CHECK(w.printed == first);
}

TEST_CASE("generate: a chat keeps its turns; Ctrl-C ends an answer, not the chat",
          "[tools][generate]") {
  World w;
  REQUIRE(w.run("printf 'tree\\n\\nand flowers?\\n' | "
                "@ --interactive --json --max-new-tokens 4 --chat-template mixtral") == 0);
  const auto turns = w.lines();
  REQUIRE(turns.size() == 2);
  REQUIRE(w.run("@ --chat tree --json --max-new-tokens 4 --chat-template mixtral") == 0);
  CHECK(io::dump(turns[0].at("ids")) == io::dump(w.lines().at(0).at("ids")));
  CHECK(turns[1].at("prompt_tokens").as_int() > turns[0].at("prompt_tokens").as_int());

  // Rewarded for repetition, this model never comes to an end.
  REQUIRE(w.run("mkfifo in; exec 3<>in\n"
                "@ --interactive --json --max-new-tokens 1000000 --repetition-penalty 0.2 "
                "--chat-template mixtral <in & chat=$!\n"
                "echo tree >&3; sleep 1; kill -INT $chat; sleep 1\n"
                "kill -INT $chat; wait $chat") == 130);
  REQUIRE(w.lines().size() == 1);
  CHECK(w.lines()[0].at("finish_reason").as_string() == "cut");
  CHECK_THAT(w.said, Contains("the chat was ended at its prompt"));
}

TEST_CASE("generate: warns once of more tokens than the model has positions", "[tools][generate]") {
  World w;
  test::write_bytes(w.folder / "p.txt", "tree\ntree\n");
  REQUIRE(w.run("@ --prompts p.txt --max-new-tokens 255 --stop e") == 0);
  CHECK_THAT(w.said, Contains("max_position_embeddings of 256"));
  CHECK(w.said.find("max_position") == w.said.rfind("max_position"));
  REQUIRE(w.run("@ --prompt tree --max-new-tokens 5") == 0);
  CHECK_THAT(w.said, !Contains("warning"));
}

TEST_CASE("generate: computes in bf16, and refuses what does not fit together",
          "[tools][generate]") {
  World w;
  CHECK(w.run("@ --prompt tree --max-new-tokens 2 --dtype bf16") == 0);
  const auto refused = [&](const std::string& options, const char* why) {
    CHECK(w.run("@ " + options) == 2);
    CHECK_THAT(w.said, Contains(why));
  };
  refused("--prompt tree --dtype f64", "--dtype");
  refused("", "give exactly one of");
  refused("--prompt tree --chat tree", "give exactly one of");
  refused("--prompt tree --system s", "--system needs a chat");
  refused("--prompt tree --output o", "--output needs --prompts");
  refused("--prompt tree --logprobs 2", "--logprobs needs --json");
  refused("--prompt tree --chat-template llama", "--chat-template");
  refused("--prompt tree --min-p nan", "--min-p");
  CHECK(w.run("@ --prompt tree --repetition-penalty 1.5 --top-k 3 --min-p 0.1 --top-p 0.9 "
              "--temperature 1 --max-new-tokens 3") == 0);
}
