// SPDX-License-Identifier: Apache-2.0
// Scores of the tiny Mixtral against those that transformers and PEFT give in double precision
// (tests/golden/make_pruning_golden.py), and the reading of calibration files.
#include <espalier/prune/calibrate.hpp>
#include <espalier/prune/criteria.hpp>
#include <espalier/prune/scores.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_mixtral.hpp"

using namespace espalier;
using namespace espalier::prune;
using espalier::test::message_of;
namespace fs = std::filesystem;

namespace {

void require_close(const std::string& name, const LayerScores& got, const LayerScores& want,
                   double rtol) {
  REQUIRE(got.size() == want.size());
  for (std::size_t l = 0; l < got.size(); ++l) {
    const auto m = test::compare(got[l], want[l], 1e-9, rtol);
    INFO(name << " layer " << l << ": " << m);
    CHECK(m.count == 0);
  }
}

CalibrationSet golden_sequences() {
  CalibrationSet set;
  const auto golden = test::golden_file("forward.safetensors");
  for (int s = 0; s < test::kGoldenSequences; ++s) {
    set.sequences.push_back(test::golden_ids(golden, s));
    set.tokens += static_cast<std::int64_t>(set.sequences.back().size());
  }
  return set;
}

}  // namespace

TEST_CASE("criteria: every score of the tuned tiny Mixtral equals that of transformers and PEFT") {
  const Scores golden =
      read_scores(std::string(ESPALIER_TESTS_DIR) + "/golden/pruning_scores.json");
  std::int64_t seen = 0;
  const auto activations = calibrate(test::tiny_mixtral_with_adapter<float>(), golden_sequences(),
                                     [&](std::int64_t done) { seen = done; });
  CHECK(seen == golden_sequences().tokens);
  const hub::Checkpoint base(test::tiny_mixtral_path("model"));
  const io::Adapter adapter = io::read_adapter(test::tiny_mixtral_path("adapter"));
  const WeightNorms norms = weight_norms({base, nullptr, &adapter}, {});
  std::size_t checked = 0;
  for (const Criterion& c : kCriteria) {
    if (c.kind == CriterionKind::random) continue;
    const bool from_data = c.kind == CriterionKind::activations;
    // Activations are f32; a drift is a small difference of norms of f32 factors.
    require_close(c.name, from_data ? activations.scores(c.name) : weight_scores(c.name, norms),
                  golden.at(c.name, "golden"), from_data ? 2e-5 : 1e-6);
    ++checked;
  }
  CHECK(checked == golden.criteria.size());
}

TEST_CASE("calibrate: the same bits for any number of threads") {
  const CalibrationSet set = golden_sequences();
  const auto model = test::tiny_mixtral<float>();
  set_num_threads(1);
  const auto one = calibrate(model, set, {});
  set_num_threads(3);
  const auto three = calibrate(model, set, {});
  set_num_threads(2);
  for (const char* name : {"soft_frequency", "ean", "reap", "msan", "max_activation"}) {
    CHECK(one.scores(name) == three.scores(name));
  }
  CHECK(message_of<FormatError>([&] {
          (void)calibrate(model, {{{1, 128}}, 2}, {});
        }) ==
        "calibration: token id 128, the model's vocabulary is 0 to 127; is this another model's "
        "tokenizer?");
}

TEST_CASE("calibration file: messages are rendered by the template of the checkpoint") {
  test::TemporaryFolder folder;
  const std::string model = std::string(ESPALIER_TESTS_DIR) + "/golden/tiny_mixtral/model";
  fs::copy(model, folder / "m", fs::copy_options::recursive);
  const auto tokenizer = text::Tokenizer::load(folder / "m");
  test::write_bytes(folder / "c.jsonl",
                    "{\"messages\": [{\"role\": \"user\", \"content\": \"the cat\"}, "
                    "{\"role\": \"assistant\", \"content\": \"sat\"}]}\n");
  const auto read = [&] {
    return read_calibration(folder / "c.jsonl", 0, tokenizer, folder / "m");
  };
  CHECK_THAT(message_of<FormatError>([&] { (void)read(); }),
             Catch::Contains("this chat template is not one of the known ones"));
  io::Json config = io::read_json(folder / "m/tokenizer_config.json");
  config["chat_template"] =
      "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
      "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt "
      "%}{{ '<|im_start|>assistant\\n' }}{% endif %}";
  test::write_bytes(folder / "m/tokenizer_config.json", io::dump(config));
  const std::string rendered = text::ChatTemplate::detect(folder / "m")
                                   .render({{"user", "the cat"}, {"assistant", "sat"}}, false);
  CHECK(rendered.starts_with("<|im_start|>user\nthe cat<|im_end|>"));
  CHECK(read().sequences ==
        std::vector<std::vector<std::int32_t>>{tokenizer.encode(rendered, false)});
}

TEST_CASE("calibration file: a sequence per line, cut at the limit in all") {
  test::TemporaryFolder folder;
  const auto encode = [](std::string_view text) {
    std::vector<std::int32_t> ids = {1};
    for (const char c : text) ids.push_back(c);
    return ids;
  };
  test::write_bytes(folder / "c.jsonl",
                    "{\"text\": \"ab\"}\n\n{\"prompt\": \"c\", \"response\": \"d\"}\n{\"text\": "
                    "\"\"}\n{\"text\": \"efg\"}\n");
  const CalibrationSet all = read_calibration(folder / "c.jsonl", 0, encode);
  CHECK(all.sequences == std::vector<std::vector<std::int32_t>>{
                             {1, 'a', 'b'}, {1, 'c', 'd'}, {1}, {1, 'e', 'f', 'g'}});
  CHECK(all.tokens == 11);
  const CalibrationSet some = read_calibration(folder / "c.jsonl", 5, encode);
  CHECK(some.sequences == std::vector<std::vector<std::int32_t>>{{1, 'a', 'b'}, {1, 'c'}});
  CHECK(some.tokens == 5);
  test::write_bytes(folder / "bad.jsonl", "{\"text\": \"ab\"}\n{\"txt\": \"\"}\n");
  CHECK(message_of<FormatError>([&] { (void)read_calibration(folder / "bad.jsonl", 0, encode); },
                                folder.path()) ==
        "bad.jsonl: line 2: expected an object with \"text\", \"messages\", or \"prompt\" and "
        "\"response\"");
  test::write_bytes(folder / "empty.jsonl", "\n");
  CHECK(message_of<FormatError>([&] { (void)read_calibration(folder / "empty.jsonl", 0, encode); },
                                folder.path()) == "empty.jsonl: has no text to calibrate with");
}
