// SPDX-License-Identifier: Apache-2.0
// make_skills: the data of the demo. Text skills that experts can divide among themselves, one more
// skill to fine-tune on, and a byte-level tokenizer. Everything follows from --seed.
//   OUTPUT/tokenizer/                      tokenizer.json, tokenizer_config.json, config.json
//   OUTPUT/pretrain.jsonl, held_out.jsonl  {"text": "sort: cab = abc"} of the base skills
//   OUTPUT/fine_tune.jsonl                 {"prompt": "shift: abc =", "response": " bcd"}: the new
//                                          skill, and as many lines of the base skills, which
//                                          would be forgotten otherwise
//   OUTPUT/new_held_out.jsonl              the same, of the new skill alone
//   OUTPUT/calibration.jsonl               {"text": ...} of all skills, for analyze
//   OUTPUT/multiple_choice/SKILL.jsonl     {"context": "sort: cab =", "continuation": "abc"}:
//                                          for evaluate, which counts exact answers
#include <algorithm>
#include <functional>

#include <espalier/core/random.hpp>
#include <espalier/io/atomic_folder.hpp>
#include <espalier/io/file.hpp>
#include <espalier/io/json.hpp>
#include <espalier/text/byte_tokenizer.hpp>

#include "cli/program.hpp"

namespace {

using espalier::io::Json;

// Draws in order from one stream.
class Dice {
 public:
  Dice(std::uint64_t seed, std::uint64_t stream) : random_(seed, stream) {}
  int below(int n) {
    return static_cast<int>(random_.below(next_++, static_cast<std::uint32_t>(n)));
  }
  std::string word(int shortest, int longest) {
    std::string w;
    for (int n = shortest + below(longest - shortest + 1); n > 0; --n) {
      w += static_cast<char>('a' + below(26));
    }
    return w;
  }

 private:
  espalier::Philox random_;
  std::uint64_t next_ = 0;
};

struct Item {
  std::string question, answer;
};

struct Skill {
  const char* name;
  std::function<Item(Dice&)> make;
};

Item of_word(const char* name, const std::string& word, std::string answer) {
  return {std::string(name) + ": " + word + " =", " " + std::move(answer)};
}

const std::vector<Skill>& base_skills() {
  static const std::vector<Skill> skills = {
      {"copy",
       [](Dice& d) {
         const std::string w = d.word(3, 5);
         return of_word("copy", w, w);
       }},
      {"upper",
       [](Dice& d) {
         const std::string w = d.word(3, 5);
         std::string up = w;
         for (char& c : up) c = static_cast<char>(c - 'a' + 'A');
         return of_word("upper", w, up);
       }},
      {"reverse",
       [](Dice& d) {
         const std::string w = d.word(3, 4);
         return of_word("reverse", w, std::string(w.rbegin(), w.rend()));
       }},
      {"sort",
       [](Dice& d) {
         const std::string w = d.word(3, 4);
         std::string sorted = w;
         std::sort(sorted.begin(), sorted.end());
         return of_word("sort", w, sorted);
       }},
      {"add",
       [](Dice& d) {
         const int a = d.below(10), b = d.below(10);
         return of_word("add", std::to_string(a) + "+" + std::to_string(b), std::to_string(a + b));
       }},
      {"next",
       [](Dice& d) {
         const int first = d.below(22);
         std::string series;
         for (int i = 0; i < 3; ++i) {
           series += static_cast<char>('a' + first + i);
           series += i < 2 ? " " : "";
         }
         return of_word("next", series, std::string(1, static_cast<char>('a' + first + 3)));
       }},
  };
  return skills;
}

// The new skill: every letter moves one place on in the alphabet.
const Skill& new_skill() {
  static const Skill skill = {"shift", [](Dice& d) {
                                const std::string w = d.word(3, 5);
                                std::string shifted = w;
                                for (char& c : shifted)
                                  c = static_cast<char>('a' + (c - 'a' + 1) % 26);
                                return of_word("shift", w, shifted);
                              }};
  return skill;
}

void write_lines(const std::string& path, int count, const std::function<Json(int)>& line) {
  espalier::io::AtomicFile file(path);
  for (int i = 0; i < count; ++i) file.write(espalier::io::dump(line(i)) + "\n");
  file.commit();
}

// The continuation goes without its space: evaluate puts one in front of it.
Json question(const Skill& skill, Dice& dice) {
  const Item item = skill.make(dice);
  Json q = Json::object();
  q["context"] = item.question;
  q["continuation"] = item.answer.substr(1);
  return q;
}

constexpr const char* kEnd = "<|end|>";

struct Options {
  std::string output;
  int pretrain = 80000, fine_tune = 8000, held_out = 400, questions = 100;
};

void make(const Options& o, std::uint64_t seed) {
  namespace fs = std::filesystem;
  using espalier::io::write_text;
  const fs::path out = o.output;
  const espalier::io::OutputLock lock = espalier::io::open_output(out);
  fs::create_directories(out / "tokenizer");
  fs::create_directories(out / "multiple_choice");
  const Json tokenizer = espalier::text::byte_tokenizer_json(kEnd);
  write_text(out / "tokenizer/tokenizer.json", espalier::io::dump(tokenizer, 1) + "\n");
  Json config = Json::object();
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["eos_token"] = kEnd;
  config["clean_up_tokenization_spaces"] = false;
  write_text(out / "tokenizer/tokenizer_config.json", espalier::io::dump(config, 2) + "\n");
  Json tokens = Json::object();  // what make_checkpoint takes over
  tokens["vocab_size"] = espalier::text::kByteVocabulary;
  tokens["bos_token_id"] = nullptr;
  tokens["eos_token_id"] = 0;
  write_text(out / "tokenizer/config.json", espalier::io::dump(tokens, 2) + "\n");

  std::vector<Skill> all = base_skills();
  all.push_back(new_skill());
  const int base = static_cast<int>(base_skills().size());

  // Each line of one of the first `skills` skills.
  auto text_lines = [&](const char* name, int count, int skills, std::uint64_t stream) {
    Dice dice(seed, stream);
    write_lines(out / name, count, [&](int) {
      const Item item = all[static_cast<std::size_t>(dice.below(skills))].make(dice);
      Json line = Json::object();
      line["text"] = item.question + item.answer;
      return line;
    });
  };
  text_lines("pretrain.jsonl", o.pretrain, base, 1);
  text_lines("held_out.jsonl", o.held_out, base, 2);
  text_lines("calibration.jsonl", o.held_out, base + 1, 5);

  // The new skill in every `of`-th line.
  auto pair_lines = [&](const char* name, int count, int of, std::uint64_t stream) {
    Dice dice(seed, stream);
    write_lines(out / name, count, [&](int i) {
      const int skill = i % of == 0 ? base : dice.below(base);
      const Item item = all[static_cast<std::size_t>(skill)].make(dice);
      Json line = Json::object();
      line["prompt"] = item.question;
      line["response"] = item.answer;
      return line;
    });
  };
  pair_lines("fine_tune.jsonl", o.fine_tune, 2, 3);
  pair_lines("new_held_out.jsonl", o.held_out, 1, 4);

  for (std::size_t s = 0; s < all.size(); ++s) {
    Dice dice(seed, 100 + s);
    write_lines(out / "multiple_choice" / (std::string(all[s].name) + ".jsonl"), o.questions,
                [&](int) { return question(all[s], dice); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return espalier::run_program(
      argc, argv, "make_skills", "Makes the texts, questions and tokenizer of the demo.",
      [&](CLI::App& app) {
        const auto lines = espalier::integer_within(1, 1 << 30);
        app.add_option("--output", o.output, "Folder to write")->required();
        app.add_option("--pretrain", o.pretrain, "Lines of the base skills")->check(lines);
        app.add_option("--fine-tune", o.fine_tune, "Lines to fine-tune on")->check(lines);
        app.add_option("--held-out", o.held_out,
                       "Lines of each held-out file, and of the calibration file")
            ->check(lines);
        app.add_option("--questions", o.questions, "Questions a skill, for evaluate")->check(lines);
      },
      [&](const espalier::CommonOptions& common) {
        make(o, common.seed);
        if (common.json) {
          Json done = Json::object();
          done["output"] = o.output;
          fmt::print("{}\n", espalier::io::dump(done));
        } else {
          fmt::print("{} base skills and 1 new one are in {}\n", base_skills().size(), o.output);
        }
      });
}
