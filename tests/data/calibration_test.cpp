// SPDX-License-Identifier: Apache-2.0
// Calibration files, and that they are read as training data is.
#include <espalier/data/calibration.hpp>
#include <espalier/data/dataset.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::data;
using espalier::test::message_of;
namespace fs = std::filesystem;

namespace {

constexpr const char* kChatML =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt "
    "%}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// The tokenizer of the tiny Mixtral, whose own chat template is not a known one.
class Model {
 public:
  Model() {
    fs::copy(std::string(ESPALIER_TESTS_DIR) + "/golden/tiny_mixtral/model", folder_ / "m",
             fs::copy_options::recursive);
  }
  fs::path path() const { return folder_ / "m"; }
  void set_template(const std::string& source) const {
    io::Json config = io::read_json(path() / "tokenizer_config.json");
    config["chat_template"] = source;
    test::write_bytes(path() / "tokenizer_config.json", io::dump(config));
  }
  RecordEncoder encoder() const {
    DecoderConfig c;
    c.eos_token_ids = {2};
    return record_encoder(text::ChatTokenizer::load(path()), c);
  }
  fs::path data(const std::string& lines) const {
    test::write_bytes(folder_ / "c.jsonl", lines);
    return folder_ / "c.jsonl";
  }

 private:
  test::TemporaryFolder folder_;
};

using Sequences = std::vector<std::vector<std::int32_t>>;

}  // namespace

TEST_CASE("calibration file: messages are rendered by the template of the checkpoint",
          "[data][calibration]") {
  const Model model;
  const fs::path file = model.data(
      "{\"messages\": [{\"role\": \"user\", \"content\": \"the cat\"}, "
      "{\"role\": \"assistant\", \"content\": \"sat\"}]}\n");
  CHECK_THAT(message_of<FormatError>([&] { (void)read_calibration(file, model.encoder(), 0); }),
             Catch::Contains("this chat template is not one of the known ones"));
  model.set_template(kChatML);
  const auto words = text::ChatTokenizer::load(model.path());
  const std::string rendered =
      words.chat().value().render({{"user", "the cat"}, {"assistant", "sat"}}, false);
  CHECK(rendered.starts_with("<|im_start|>user\nthe cat<|im_end|>"));
  CHECK(read_calibration(file, model.encoder(), 0).sequences ==
        Sequences{words.tokenizer().encode(rendered, false)});
}

TEST_CASE("calibration file: prompt and response have the tokens that training sees",
          "[data][calibration]") {
  const Model model;
  const fs::path file = model.data("{\"prompt\": \"the cat \", \"response\": \"sat\"}\n");
  for (const bool with_template : {false, true}) {
    if (with_template) model.set_template(kChatML);
    const Dataset trained = read_dataset(file, model.encoder(), 100);
    CHECK(trained.joined_pairs == (with_template ? 0 : 1));
    CHECK(read_calibration(file, model.encoder(), 0).sequences ==
          Sequences{trained.examples[0].ids});
  }
}

TEST_CASE("calibration file: a sequence per line, cut at the limit in all", "[data][calibration]") {
  test::TemporaryFolder folder;
  RecordEncoder encoder;
  encoder.encode = [](std::string_view text, bool add_special) {
    std::vector<std::int32_t> ids;
    if (add_special) ids.push_back(1);
    for (const char c : text) ids.push_back(c);
    return ids;
  };
  encoder.eos = 2;
  test::write_bytes(folder / "c.jsonl",
                    "{\"text\": \"ab\"}\n\n{\"prompt\": \"c\", \"response\": \"d\"}\n{\"text\": "
                    "\"\"}\n{\"text\": \"efg\"}\n");
  const CalibrationSet all = read_calibration(folder / "c.jsonl", encoder, 0);
  CHECK(all.sequences == Sequences{{1, 'a', 'b'}, {1, 'c', 'd', 2}, {1}, {1, 'e', 'f', 'g'}});
  CHECK(all.tokens == 12);
  const CalibrationSet some = read_calibration(folder / "c.jsonl", encoder, 5);
  CHECK(some.sequences == Sequences{{1, 'a', 'b'}, {1, 'c'}});
  CHECK(some.tokens == 5);
  test::write_bytes(folder / "bad.jsonl", "{\"text\": \"ab\"}\n{\"txt\": \"\"}\n");
  CHECK(message_of<FormatError>([&] { (void)read_calibration(folder / "bad.jsonl", encoder, 0); },
                                folder.path()) ==
        "bad.jsonl: line 2: has none of \"messages\", \"prompt\" and \"response\", \"text\"; its "
        "keys are \"txt\"");
  test::write_bytes(folder / "empty.jsonl", "\n");
  CHECK(message_of<FormatError>([&] { (void)read_calibration(folder / "empty.jsonl", encoder, 0); },
                                folder.path()) == "empty.jsonl: has no text to calibrate with");
}
