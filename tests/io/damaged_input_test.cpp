// SPDX-License-Identifier: Apache-2.0
// Thousands of damaged files, the same ones every time: each is read or refused with an `Error`,
// never a crash, another exception or a read out of bounds (the asan preset watches).
#include <functional>

#include <espalier/core/random.hpp>
#include <espalier/hub/checkpoint.hpp>
#include <espalier/io/checkpoint_writer.hpp>
#include <espalier/io/jsonl.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_config.hpp"

using namespace espalier;
using namespace espalier::io;

namespace {

class Damage {
 public:
  explicit Damage(std::uint64_t seed) : philox_(seed) {}

  std::string operator()(std::string bytes) {
    const int changes = 1 + static_cast<int>(below(3));
    for (int i = 0; i < changes; ++i) change(bytes);
    return bytes;
  }
  std::uint32_t below(std::size_t n) {
    return philox_.below(next_++, static_cast<std::uint32_t>(std::max<std::size_t>(n, 1)));
  }

 private:
  void change(std::string& s) {
    static const char* const kPieces[] = {"{",
                                          "}",
                                          "[",
                                          "]",
                                          ",",
                                          ":",
                                          "\"",
                                          "\\",
                                          "\\u",
                                          "\\ud800",
                                          "null",
                                          "-1",
                                          "1e400",
                                          "0",
                                          "18446744073709551616",
                                          "9223372036854775807",
                                          "\xff",
                                          "\xc3",
                                          "\xf4\x90\x80\x80",
                                          "F32",
                                          " ",
                                          "99999999999999999999999999999",
                                          "1.5",
                                          "true",
                                          "../x",
                                          "\n"};
    const std::size_t at = below(s.size());
    switch (below(6)) {
      case 0:
        s.resize(at);
        break;
      case 1:
        if (!s.empty()) s[at] = static_cast<char>(s[at] ^ (1 << below(8)));
        break;
      case 2:
        if (!s.empty()) s[at] = static_cast<char>(below(256));
        break;
      case 3:
        s.erase(at, 1 + below(20));
        break;
      case 4:
        s.insert(at, s.substr(below(s.size()), below(40)));
        break;
      default:
        s.insert(at, kPieces[below(std::size(kPieces))]);
    }
  }

  Philox philox_;
  std::uint64_t next_ = 0;
};

struct Outcome {
  int read = 0, refused = 0, failed = 0;
  std::string failure;
};

/// Runs `use` on damaged copies of `good`.
Outcome damage_and_use(const std::string& good, int rounds, std::uint64_t seed,
                       const std::function<void(const std::string&)>& use) {
  Outcome outcome;
  Damage damage(seed);
  for (int i = 0; i < rounds; ++i) {
    try {
      use(damage(good));
      ++outcome.read;
    } catch (const Error& e) {
      ++outcome.refused;
      const std::string_view text = e.what();
      if (text.empty()) outcome.failure = "an empty message";
    } catch (const std::exception& e) {
      ++outcome.failed;
      outcome.failure = e.what();
    }
  }
  return outcome;
}

/// Reads the first and the last byte of every tensor.
unsigned touch(const SafetensorsFile& file) {
  unsigned sum = 0;
  for (const TensorInfo& info : file.tensors()) {
    if (!dtype_of_type(info.type) || info.shape.size() > Shape::kMaxRank) continue;
    const AnyTensor t = file.tensor(info);
    if (t.size_bytes() == 0) continue;
    sum += std::to_integer<unsigned>(t.bytes()[0]);
    sum += std::to_integer<unsigned>(t.bytes()[t.size_bytes() - 1]);
  }
  return sum;
}

}  // namespace

TEST_CASE("Damaged JSON is read or refused, and what is read is written and read again") {
  const std::string good = R"({"a": [1, -2.5e3, "x\u00e9\ud83d\ude00\\", null, true, {"b": {}}],
      "n": 1000000000000000019884624838656, "s": "tail", "deep": [[[[[[0]]]]]]})";
  const Outcome o = damage_and_use(good, 20000, 1, [](const std::string& text) {
    const Json j = parse_json(text, "damaged");
    if (!(parse_json(dump(j), "again") == j)) throw std::logic_error("compact text differs");
    if (!(parse_json(dump_python(j, 2), "again") == j)) throw std::logic_error("text differs");
  });
  INFO(o.failure);
  CHECK(o.failed == 0);
  CHECK(o.failure.empty());
  CHECK(o.read > 500);
  CHECK(o.refused > 5000);
}

TEST_CASE("Damaged JSON lines are read or refused") {
  const std::string good = "{\"text\": \"one\"}\n\n{\"messages\": [{\"role\": \"user\"}]}\n";
  const Outcome o = damage_and_use(good, 5000, 2, [](const std::string& text) {
    for_each_json_line(text, "damaged", [](const Json& j, std::size_t) { (void)dump(j); });
  });
  INFO(o.failure);
  CHECK(o.failed == 0);
  CHECK(o.read > 100);
  CHECK(o.refused > 1000);
}

TEST_CASE("Damaged safetensors files are read or refused") {
  test::TemporaryFolder folder;
  save_safetensors(folder / "good", {{"weight", Tensor<float>(Shape{2, 3}, 1.0f)},
                                     {"bytes", Tensor<std::uint8_t>(Shape{5}, std::uint8_t{7})},
                                     {"scalar", Tensor<double>(Shape{}, 2.0)},
                                     {"none", Tensor<float>(Shape{0, 3})}});
  const std::string good = test::read_bytes(folder / "good");
  unsigned sum = 0;
  const auto use = [&](const std::string& bytes) {
    test::write_bytes(folder / "damaged", bytes);
    sum += touch(SafetensorsFile(folder / "damaged"));
  };
  const Outcome anywhere = damage_and_use(good, 6000, 3, use);
  // The header only, with its length put right: gets past the first checks.
  std::uint64_t length = 0;
  std::memcpy(&length, good.data(), 8);
  const std::string header = good.substr(8, length), data = good.substr(8 + length);
  const Outcome inside = damage_and_use(header, 6000, 4, [&](const std::string& text) {
    std::string bytes(8, '\0');
    const std::uint64_t n = text.size();
    std::memcpy(bytes.data(), &n, 8);
    use(bytes + text + data);
  });
  INFO(anywhere.failure << inside.failure);
  CHECK(anywhere.failed == 0);
  CHECK(inside.failed == 0);
  CHECK(anywhere.refused > 1000);
  CHECK(inside.refused > 1000);
  CHECK(anywhere.read + inside.read > 200);
  CHECK(sum > 0);
}

TEST_CASE("Damaged configs and index files are read or refused") {
  test::TemporaryFolder folder;
  const DecoderConfig c = test::tiny_config(
      {.hidden = 8, .width = 4, .layers = 1, .heads = 2, .kv_heads = 1, .experts = 2, .vocab = 6});
  const std::string config = dump(hub::config_json(c, DType::f32), 2);
  test::write_bytes(folder / "config.json", config);
  const std::vector<TensorSpec> tensors = hub::tensor_specs(c, DType::f32);
  CheckpointWriter out(folder.path(), tensors, 300);
  for (const TensorSpec& t : tensors) out.write(t.name, Tensor<float>(shape_of(t, ""), 0.5f));
  out.commit();
  const std::string index = test::read_bytes(folder / kIndexFile);

  const auto damage_file = [&](const char* file, const std::string& good, std::uint64_t seed) {
    const Outcome o = damage_and_use(good, 3000, seed, [&](const std::string& bytes) {
      test::write_bytes(folder / file, bytes);
      (void)hub::Checkpoint(folder.path()).total_bytes();
    });
    test::write_bytes(folder / file, good);
    INFO(file << ": " << o.failure);
    CHECK(o.failed == 0);
    CHECK(o.refused > 1000);
  };
  CHECK_NOTHROW(hub::Checkpoint(folder.path()));
  damage_file("config.json", config, 5);
  damage_file(kIndexFile, index, 6);
}
