// SPDX-License-Identifier: Apache-2.0
// The program itself on the tiny Mixtral of tests/golden: what it writes, and that killing it at
// any moment costs nothing but time.
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include <espalier/io/adapter.hpp>
#include <espalier/io/jsonl.hpp>
#include <espalier/train/fine_tune.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

constexpr const char* kLog = "train_log.jsonl";
constexpr const char* kTensors = "adapter_model.safetensors";

class Bench {
 public:
  Bench() {
    std::string rows;
    for (int i = 0; i < 9; ++i) {
      rows += "{\"text\": \"tree " + std::to_string(i * i) + " grows, is trained and pruned\"}\n";
    }
    test::write_bytes(folder_ / "data.jsonl", rows);
  }

  fs::path operator/(const std::string& name) const { return folder_ / name; }

  /// The command without output folder; one thread, since the tests run beside others.
  std::string command(const std::string& more = {}) const {
    return std::string(ESPALIER_BIN_DIR) + "/fine_tune --threads 1 --model " + ESPALIER_TESTS_DIR +
           "/golden/tiny_mixtral/model --data " + (*this / "data.jsonl").string() +
           " --max-length 24 --batch-size 2 --grad-accum 2 --seed 3 " + more;
  }
  /// Runs `script` in a shell; `said` is what it wrote to standard error. Returns the exit code.
  int shell(const std::string& script) {
    const fs::path out = *this / "stdout", err = *this / "stderr";
    const int status =
        std::system(("{ " + script + "\n} >" + out.string() + " 2>" + err.string()).c_str());
    printed = test::read_bytes(out);
    said = test::read_bytes(err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  /// Starts `command`, sends `signal` once its log has `lines` lines, and waits for its end.
  int interrupted(const std::string& command, const fs::path& output, int lines,
                  const std::string& signal) {
    const std::string log = (output / kLog).string();
    return shell(command + " & p=$!\nwhile kill -0 $p && [ $(cat " + log +
                 " 2>/dev/null | wc -l) -lt " + std::to_string(lines) +
                 " ]; do sleep 0.01; done\nkill -" + signal + " $p\nwait $p");
  }
  std::string last_line() const {
    const std::size_t end = said.find_last_not_of('\n'), before = said.rfind('\n', end);
    return said.substr(before + 1, end - before);
  }

  std::string printed, said;

 private:
  test::TemporaryFolder folder_;
};

/// The log without what depends on the clock.
std::vector<io::Json> log_of(const fs::path& output) {
  std::vector<io::Json> rows = io::read_jsonl(output / kLog);
  for (io::Json& row : rows) row.erase("tokens_per_second");
  return rows;
}

const std::string kLong =
    "--steps 40 --lr 1e-2 --save-every 4 --target q,v,gate,w1,w2,w3 --lora-dropout 0.1 --aux-loss "
    "0.01"
    " --weight-decay 0.1 --schedule cosine --warmup 3";

}  // namespace

TEST_CASE("fine_tune: leaves an adapter, its log and its curve", "[train][fine_tune]") {
  Bench b;
  const fs::path out = b / "out";
  REQUIRE(
      b.shell(b.command("--epochs 2 --lr 1e-2 --target q,gate,w2 --lora-r 4 --lora-alpha 8 --json"
                        " --warmup 1 --eval-data " +
                        (b / "data.jsonl").string() + " --output " + out.string())) == 0);
  const io::Json summary = io::parse_json(b.printed, "stdout");
  CHECK(summary.at("steps").as_int() == 6);  // 9 rows: 5 micro-batches, 3 steps per epoch
  const auto log = io::read_jsonl(out / kLog);
  REQUIRE(log.size() == 6);
  for (std::size_t i = 0; i < log.size(); ++i) {
    CHECK(log[i].at("step").as_int() == static_cast<std::int64_t>(i) + 1);
    for (const char* key : {"loss", "aux_loss", "grad_norm", "tokens", "tokens_per_second"}) {
      CHECK(log[i].at(key).as_double() > 0);
    }
  }
  CHECK(log[0].at("lr").as_double() == 0);
  CHECK(log[1].at("lr").as_double() == 1e-2);
  CHECK(log[5].at("eval_loss").as_double() < log[0].at("loss").as_double());
  const io::Json state = io::read_json(out / "trainer_state.json");
  CHECK(state.at("global_step").as_int() == 6);
  CHECK(state.at("log_history").at(1).at("learning_rate").as_double() == 1e-2);
  for (const char* name : {"loss.png", "loss.svg", "chat_template_probe.json"}) {
    CHECK(fs::file_size(out / name) > 10);
  }

  const io::SafetensorsFile file(out / kTensors);
  std::set<std::string> names;
  for (const io::TensorInfo& t : file.tensors()) {
    CHECK(t.type == "F32");
    names.insert(t.name);
  }
  CHECK(names.size() == 2 * 2 * (1 + 1 + 8));  // two matrices, two layers
  CHECK(names.count("base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight") == 1);
  CHECK(names.count("base_model.model.model.layers.0.block_sparse_moe.gate.lora_B.weight") == 1);
  CHECK(names.count(
            "base_model.model.model.layers.0.block_sparse_moe.experts.7.w2.lora_B.weight") == 1);
  const io::Json config = io::read_json(out / "adapter_config.json");
  CHECK(config.at("r").as_int() == 4);
  CHECK(config.at("lora_alpha").as_double() == 8);
  CHECK(config.at("target_modules") ==
        io::Json::array(std::vector<std::string>{"q_proj", "gate", "w2"}));
}

TEST_CASE("fine_tune: killed or interrupted and resumed, it ends with the same bytes",
          "[train][fine_tune]") {
  Bench b;
  const fs::path whole = b / "whole", out = b / "out";
  REQUIRE(b.shell(b.command(kLong + " --output " + whole.string())) == 0);
  CHECK(log_of(whole).size() == 40);

  const std::string command = b.command(kLong + " --resume --output " + out.string());
  CHECK(b.interrupted(command, out, 6, "KILL") != 0);
  CHECK_FALSE(fs::exists(out / kTensors));
  test::write_bytes(out / kLog, test::read_bytes(out / kLog) + "{\"step\": 7, \"lo");
  const int code = b.interrupted(command, out, 14, "INT");
  if (code == 130) {
    CHECK_THAT(b.last_line(), Catch::Contains("of 40 steps done; to go on:"));
    CHECK_THAT(b.last_line(), Catch::Contains("--resume"));
    CHECK_FALSE(fs::exists(out / kTensors));
  }
  REQUIRE(b.shell(command) == 0);
  CHECK(test::read_bytes(out / kTensors) == test::read_bytes(whole / kTensors));
  CHECK(log_of(out) == log_of(whole));
  REQUIRE(b.shell(command) == 0);
  CHECK_THAT(b.said, Catch::Contains("done already, 40 steps"));
}

TEST_CASE("fine_tune: goes on only under the same arguments", "[train][fine_tune]") {
  Bench b;
  const std::string out = (b / "out").string();
  const std::string command = b.command("--steps 30 --save-every 2 --output " + out);
  CHECK(b.interrupted(command, out, 4, "KILL") != 0);
  CHECK(b.shell(command) == 1);
  CHECK_THAT(b.last_line(), Catch::Contains("holds a run already; resume it"));
  CHECK(b.shell(command + " --clip 0.5 --lora-r 4 --resume") == 2);
  CHECK_THAT(b.last_line(), Catch::Contains("lora_r was 8, is 4, clip was 1.0, is 0.5"));
  test::write_bytes(b / "data.jsonl", "{\"text\": \"something else\"}\n");
  CHECK(b.shell(command + " --resume") == 2);
  CHECK_THAT(b.last_line(), Catch::Contains("data was"));
}

TEST_CASE("fine_tune: does not go on over other weights, or with another tokenizer",
          "[train][fine_tune]") {
  Bench b;
  const std::string golden = std::string(ESPALIER_TESTS_DIR) + "/golden/tiny_mixtral/model";
  const std::string model = (b / "model").string();
  fs::copy(golden, model, fs::copy_options::recursive);
  std::string command = b.command("--steps 30 --save-every 2 --output " + (b / "out").string());
  command.replace(command.find(golden), golden.size(), model);
  CHECK(b.interrupted(command, b / "out", 4, "KILL") != 0);

  const fs::path shard = fs::path(model) / "model-00002-of-00002.safetensors";
  const std::string bytes = test::read_bytes(shard);
  for (const std::size_t from_end : {std::size_t{1}, bytes.size() / 2, bytes.size() / 3}) {
    std::string other = bytes;
    other[bytes.size() - from_end] ^= 1;  // one bit of one weight
    test::write_bytes(shard, other);
    CHECK(b.shell(command + " --resume") == 2);
    CHECK_THAT(b.last_line(), Catch::Contains("model was"));
  }
  test::write_bytes(shard, bytes);

  const fs::path tokenizer = fs::path(model) / "tokenizer.json";
  const std::string words = test::read_bytes(tokenizer);
  test::write_bytes(tokenizer, words + " ");
  CHECK(b.shell(command + " --resume") == 2);
  CHECK_THAT(b.last_line(), Catch::Contains("tokenizer and template was"));
  test::write_bytes(tokenizer, words);
  CHECK(b.shell(command + " --resume") == 0);
}

TEST_CASE("fine_tune: continues an adapter with the adapter's own rank and targets",
          "[train][fine_tune]") {
  Bench b;
  const std::string first = (b / "first").string(), second = (b / "second").string();
  REQUIRE(b.shell(b.command("--steps 2 --lora-r 3 --lora-alpha 5 --rslora --target k,w1 --output " +
                            first)) == 0);
  REQUIRE(b.shell(b.command("--steps 1 --lr 0 --adapter " + first + " --output " + second)) == 0);
  CHECK(test::read_bytes(b / "first" / kTensors) == test::read_bytes(b / "second" / kTensors));
  const io::AdapterConfig c = io::read_adapter(second).config;
  CHECK(c.r == 3);
  CHECK(c.alpha == 5);
  CHECK(c.rslora);
  CHECK(b.shell(b.command("--adapter " + first + " --lora-r 4 --output " + second)) == 2);
}

TEST_CASE("fine_tune: a loop of one's own makes the program's adapter", "[train][fine_tune]") {
  Bench b;
  const fs::path program = b / "program", own = b / "own";
  REQUIRE(b.shell(b.command("--steps 5 --lr 1e-2 --target q,w2 --lora-dropout 0.1 --save-every 2 "
                            "--output " +
                            program.string())) == 0);
  train::FineTuneConfig config;
  config.model = std::string(ESPALIER_TESTS_DIR) + "/golden/tiny_mixtral/model";
  config.data = (b / "data.jsonl").string();
  config.output = own.string();
  config.lora.targets = {"q", "w2"};
  config.lora.dropout = 0.1;
  config.steps = 5;
  config.lr = 1e-2;
  config.max_length = 24;
  config.batch_size = config.grad_accum = 2;
  config.seed = 3;
  config.save_every = 0;
  {
    train::FineTune run(config);
    run.begin();
    while (run.state().step < 3) CHECK(run.step().at("loss").as_double() > 0);
    CHECK(run.save() == own / "checkpoint-3");
  }
  train::FineTune run(config);
  run.begin(train::FineTune::Start::resume);
  CHECK(run.resumed_from() == own / "checkpoint-3");
  CHECK(run.state().step == 3);
  while (!run.done()) run.step();
  run.finish();
  CHECK(test::read_bytes(own / kTensors) == test::read_bytes(program / kTensors));
  CHECK(log_of(own) == log_of(program));
}

TEST_CASE("fine_tune: what is wrong is said in one line", "[train][fine_tune]") {
  Bench b;
  const std::string out = " --output " + (b / "out").string();
  CHECK(b.shell(b.command("--dtype f16" + out)) == 2);
  CHECK_THAT(b.said, Catch::Contains("--dtype: f16 not in {f32,bf16}"));
  CHECK(b.shell(b.command("--target q,x" + out)) == 2);
  CHECK(b.shell(b.command("--steps 30 --lr 1000 --weight-decay 100 --schedule constant" + out)) ==
        1);
  CHECK_THAT(b.last_line(), Catch::Matches("fine_tune: step [23]: the .* is -?(nan|inf); .*"));
  CHECK_FALSE(fs::exists(b / "out" / kTensors));
  test::write_bytes(b / "data.jsonl", "{\"text\": \"a\"}\n{\"text\": 1}\n");
  CHECK(b.shell(b.command(" --output " + (b / "other").string())) == 1);
  CHECK_THAT(b.said, Catch::Contains("data.jsonl: line 2: at \"text\": expected a string"));
  CHECK(std::count(b.said.begin(), b.said.end(), '\n') == 1);
  CHECK_FALSE(fs::exists(b / "other"));
}

TEST_CASE("fine_tune: HUP, USR1 and XCPU save as INT and TERM do", "[train][fine_tune]") {
  Bench b;
  for (const char* signal : {"HUP", "USR1", "XCPU", "TERM"}) {
    CAPTURE(signal);
    const fs::path out = b / signal;
    const int code = b.interrupted(
        b.command("--steps 4000 --save-every 0 --output " + out.string()), out, 2, signal);
    CHECK(code == 130);
    CHECK_THAT(b.last_line(), Catch::Contains("of 4000 steps done; to go on:"));
    CHECK(train::Checkpoints(out, 0).newest().has_value());
  }
}

TEST_CASE("fine_tune: two at one output are one run and one refusal", "[train][fine_tune]") {
  Bench b;
  const fs::path out = b / "out";
  const std::string command =
      b.command("--steps 40 --save-every 5 --resume --output " + out.string());
  CHECK(b.shell(command + " & p=$!; " + command + "; q=$?; wait $p; exit $((10 * $? + q))") % 9 ==
        1);
  CHECK_THAT(b.said, Catch::Contains("out: another run is writing it (process "));
  const auto log = io::read_jsonl(out / kLog);
  REQUIRE(log.size() == 40);
  for (std::size_t i = 0; i < log.size(); ++i) {
    CHECK(log[i].at("step").as_int() == static_cast<std::int64_t>(i) + 1);
  }
}

TEST_CASE("fine_tune: an adapter of another origin is not touched", "[train][fine_tune]") {
  Bench b;
  const fs::path out = b / "out";
  fs::copy(std::string(ESPALIER_TESTS_DIR) + "/golden/tiny_mixtral/adapter", out);
  const std::string before = test::read_bytes(out / kTensors);
  CHECK(b.shell(b.command("--steps 2 --resume --output " + out.string())) == 1);
  CHECK_THAT(b.last_line(), Catch::Contains("holds an adapter that was not trained here"));
  CHECK(test::read_bytes(out / kTensors) == before);
  CHECK_FALSE(fs::exists(out / kLog));
}

TEST_CASE("fine_tune: a finished run goes on, and keeps its adapter until the next is whole",
          "[train][fine_tune]") {
  Bench b;
  const std::string constant = "--lr 1e-2 --schedule constant --save-every 0 --resume --output ";
  const fs::path whole = b / "whole", out = b / "out";
  REQUIRE(b.shell(b.command("--steps 20 " + constant + whole.string())) == 0);
  REQUIRE(b.shell(b.command("--steps 3 " + constant + out.string())) == 0);
  const std::string third = test::read_bytes(out / kTensors);
  CHECK(b.interrupted(b.command("--steps 100000 " + constant + out.string()), out, 5, "KILL") != 0);
  CHECK(test::read_bytes(out / kTensors) == third);
  REQUIRE(b.shell(b.command("--steps 20 " + constant + out.string())) == 0);
  CHECK_THAT(b.said, Catch::Contains("checkpoint-3 at step 4"));
  CHECK(test::read_bytes(out / kTensors) == test::read_bytes(whole / kTensors));
  CHECK(log_of(out) == log_of(whole));

  fs::remove_all(out / "checkpoint-20");
  fs::remove_all(out / "checkpoint-3");
  CHECK(b.shell(b.command("--steps 30 " + constant + out.string())) == 1);
  CHECK_THAT(b.last_line(), Catch::Contains("holds a finished adapter and no checkpoint to go on"));
  CHECK(test::read_bytes(out / kTensors) == test::read_bytes(whole / kTensors));

  std::string state = test::read_bytes(out / "trainer_state.json");
  for (std::size_t at; (at = state.find("\"tokens\"")) != std::string::npos;) {
    state.replace(at, 8, "\"tokans\"");
  }
  test::write_bytes(out / "trainer_state.json", state);
  CHECK(b.shell(b.command("--steps 30 " + constant + out.string())) == 1);
  CHECK_THAT(b.last_line(),
             Catch::Contains("out/trainer_state.json") && Catch::Contains("\"tokens\" is missing"));
  CHECK(fs::exists(out / kTensors));
}

TEST_CASE("fine_tune: a damaged checkpoint is passed over in words", "[train][fine_tune]") {
  Bench b;
  const fs::path whole = b / "whole", out = b / "out";
  const std::string arguments = "--steps 12 --lr 1e-2 --save-every 2 --resume --output ";
  REQUIRE(b.shell(b.command(arguments + whole.string())) == 0);
  for (const char* file : {"optimizer.safetensors", kTensors, "trainer_state.json"}) {
    CAPTURE(file);
    fs::remove_all(out);
    fs::copy(whole, out, fs::copy_options::recursive);
    for (const char* finished : {kTensors, "trainer_state.json"}) fs::remove(out / finished);
    fs::resize_file(out / "checkpoint-12" / file, fs::file_size(out / "checkpoint-12" / file) / 2);
    fs::create_directory(out / "checkpoint-999");
    REQUIRE(b.shell(b.command(arguments + out.string())) == 0);
    CHECK_THAT(b.said, Catch::Contains("warning: " + (out / "checkpoint-12").string() +
                                       ": cannot be used: ") &&
                           Catch::Contains("warning: " + (out / "checkpoint-999").string()) &&
                           Catch::Contains("checkpoint-10 at step 11"));
    CHECK(test::read_bytes(out / kTensors) == test::read_bytes(whole / kTensors));
    CHECK(log_of(out) == log_of(whole));
  }
  for (const auto& checkpoint : train::Checkpoints(out, 0).list()) {
    fs::remove(checkpoint.path / "optimizer.safetensors");
  }
  fs::remove(out / "trainer_state.json");
  CHECK(b.shell(b.command(arguments + out.string())) == 1);
  CHECK_THAT(b.last_line(), Catch::Contains("no checkpoint can be used: ") &&
                                Catch::EndsWith("remove them to start anew"));
  CHECK(fs::exists(out / kTensors));
}

TEST_CASE("fine_tune: a picture that cannot be written is a warning", "[train][fine_tune]") {
  Bench b;
  const fs::path out = b / "out";
  fs::create_directories(out / "loss.png/in the way");
  REQUIRE(b.shell(b.command("--steps 2 --output " + out.string())) == 0);
  CHECK_THAT(b.said, Catch::Contains("fine_tune: warning: ") && Catch::Contains("loss.png"));
  CHECK(fs::exists(out / kTensors));
}

TEST_CASE("fine_tune: a disk that takes no more leaves whole checkpoints only",
          "[train][.file_limit]") {
  Bench b;
  const fs::path out = b / "out";
  // A limit on the size of a file stands in for a full disk: the log fits, the moments do not.
  CHECK(b.shell("trap '' XFSZ; ulimit -f 16; " +
                b.command("--steps 9 --save-every 3 --target w1,w2,w3 --output " + out.string())) ==
        1);
  CHECK_THAT(b.last_line(), Catch::Contains("cannot write: File too large"));
  std::set<std::string> left;
  for (const auto& item : fs::directory_iterator(out)) left.insert(item.path().filename());
  CHECK(left == std::set<std::string>{kLog});
  CHECK(log_of(out).size() == 3);
}
