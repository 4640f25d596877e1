// SPDX-License-Identifier: Apache-2.0
// Tasks that compare likelihoods: the most likely choice, or whether the last word is predicted
// greedily. The data is one JSON object per line, in one of three forms; prompts are those of
// lm-evaluation-harness and LightEval.
//   {query, choices, gold}                    query + "\nAnswer:"  ->  " " + choice
//   {context_options, continuation, gold}     each context         ->  " " + continuation
//   {context, continuation}                   context              ->  " " + continuation
// acc: the largest sum of log p. acc_norm: the largest sum per character of the choice. ppl: the
// perplexity of a whole continuation, as LAMBADA counts it.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/multiple_choice.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>

#include <espalier/eval/python_random.hpp>
#include <espalier/eval/session.hpp>
#include <espalier/eval/statistics.hpp>

namespace espalier::eval {

enum class ChoiceForm { choices, contexts, single };

struct ChoiceQuestion {
  std::vector<std::string> contexts, continuations;  // a list of one serves all choices
  std::vector<std::size_t> characters;               // of each choice, for acc_norm
  std::size_t gold = 0;

  std::size_t size() const { return std::max(contexts.size(), continuations.size()); }
  const std::string& context(std::size_t i) const { return contexts[contexts.size() > 1 ? i : 0]; }
  const std::string& continuation(std::size_t i) const {
    return continuations[continuations.size() > 1 ? i : 0];
  }
  /// The question with its right answer, as a worked example for other questions.
  std::string solved() const { return context(gold) + continuation(gold); }
};

struct ChoiceData {
  ChoiceForm form = ChoiceForm::choices;
  std::vector<ChoiceQuestion> questions;
};

namespace detail {

[[nodiscard]] inline std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

inline std::size_t gold_of(const io::Json& row, std::size_t choices) {
  const std::int64_t gold = row.at("gold").as_int();
  ESP_REQUIRE(gold >= 0 && static_cast<std::size_t>(gold) < choices, FormatError,
              row.at("gold").where(), ": gold is ", gold, ", there are ", choices, " choices");
  return static_cast<std::size_t>(gold);
}

inline ChoiceQuestion parse_choices(const io::Json& row) {
  ChoiceQuestion q;
  q.contexts = {row.at("query").as_string() + "\nAnswer:"};
  for (const io::Json& choice : row.at("choices").items()) {
    ESP_REQUIRE(!choice.as_string().empty(), FormatError, choice.where(), ": an empty choice");
    q.continuations.push_back(" " + choice.as_string());
    q.characters.push_back(count_characters(choice.as_string()));
  }
  q.gold = gold_of(row, q.continuations.size());
  return q;
}

inline ChoiceQuestion parse_contexts(const io::Json& row) {
  ChoiceQuestion q;
  for (const io::Json& context : row.at("context_options").items()) {
    q.contexts.push_back(context.as_string());
  }
  q.continuations = {" " + row.at("continuation").as_string()};
  q.gold = gold_of(row, q.contexts.size());
  return q;
}

}  // namespace detail

[[nodiscard]] inline ChoiceData load_choices(const std::filesystem::path& path) {
  ChoiceData data;
  const std::string text = io::read_text(path);
  io::for_each_json_line(text, path.string(), [&](const io::Json& row, std::size_t) {
    ESP_REQUIRE(row.is_object(), FormatError, row.where(), ": expected an object, found ",
                row.kind_name());
    const ChoiceForm form = row.find("choices")           ? ChoiceForm::choices
                            : row.find("context_options") ? ChoiceForm::contexts
                                                          : ChoiceForm::single;
    ESP_REQUIRE(data.questions.empty() || form == data.form, FormatError, row.where(),
                ": has other keys than the lines before");
    data.form = form;
    if (form == ChoiceForm::choices) {
      data.questions.push_back(detail::parse_choices(row));
    } else if (form == ChoiceForm::contexts) {
      data.questions.push_back(detail::parse_contexts(row));
    } else {
      data.questions.push_back(
          {{row.at("context").as_string()}, {" " + row.at("continuation").as_string()}, {}, 0});
    }
  });
  ESP_REQUIRE(!data.questions.empty(), FormatError, path.string(), ": no question in it");
  return data;
}

/// Finds the file of a task. Names are those of LightEval: arc:easy is arc_easy.jsonl.
[[nodiscard]] inline std::filesystem::path choice_file(const std::filesystem::path& data,
                                                       std::string task) {
  ESP_REQUIRE(!task.empty() && task.find('/') == task.npos, UsageError, "task ", task,
              ": no such task");
  const std::filesystem::path folder = data / "multiple_choice";
  std::replace(task.begin(), task.end(), ':', '_');
  for (const std::string& name : {task, task + "_openai"}) {
    if (std::filesystem::exists(folder / (name + ".jsonl"))) return folder / (name + ".jsonl");
  }
  std::string known;
  std::error_code ignored;
  std::vector<std::string> names;
  for (const auto& e : std::filesystem::directory_iterator(folder, ignored)) {
    if (e.path().extension() == ".jsonl") names.push_back(e.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
  throw IoError(espalier::detail::concat(
      {(folder / (task + ".jsonl")).string(), ": no such task; this folder has ",
       known.empty() ? "none" : known, ", and beside it there are mmlu_pro and loss"}));
}

/// Whether a question was answered right, by each measure.
struct ChoiceVerdict {
  bool acc = false, acc_norm = false;
};
/// Judges a question by its choices. Among equals the first one counts, as in numpy.argmax.
[[nodiscard]] inline ChoiceVerdict judge_choices(std::span<const double> log_probs,
                                                 std::span<const std::size_t> characters,
                                                 std::size_t gold) {
  const auto best = [](const std::vector<double>& v) {
    return static_cast<std::size_t>(std::max_element(v.begin(), v.end()) - v.begin());
  };
  std::vector<double> sums(log_probs.begin(), log_probs.end()), normalized = sums;
  for (std::size_t i = 0; i < characters.size(); ++i) {
    normalized[i] /= static_cast<double>(characters[i]);
  }
  return {best(sums) == gold, best(normalized) == gold};
}

struct ChoiceOptions {
  int shots = 0;
  std::int64_t limit = -1;  // the first so many questions; -1: every one
};

/// One metric of a task's results.
struct Metric {
  std::string name;
  Estimate estimate;
};

struct TaskResult {
  std::string task;
  int shots = 0;
  std::size_t documents = 0, original_documents = 0;
  std::vector<Metric> metrics;
  std::string prompts;  // fingerprint of everything that was asked
};

class ChoiceTask {
 public:
  ChoiceTask(std::string name, ChoiceData data, ChoiceOptions options)
      : name_(std::move(name)), data_(std::move(data)), options_(options) {
    const std::size_t all = data_.questions.size();
    count_ = options_.limit < 0 ? all : std::min(all, static_cast<std::size_t>(options_.limit));
    ESP_REQUIRE(options_.shots >= 0 && static_cast<std::size_t>(options_.shots) < all, UsageError,
                name_, ": ", options_.shots, " shots, the file has ", all, " questions");
  }

  /// Encodes context and continuation of every choice of question `i`, with `prefix` in front.
  std::vector<infer::Continuation> ask(const Session& session, std::size_t i,
                                       const std::string& prefix) const {
    const ChoiceQuestion& q = data_.questions[i];
    std::vector<infer::Continuation> asked;
    for (std::size_t c = 0; c < q.size(); ++c) {
      asked.push_back(
          encode_pair(session.encode, session.start, prefix + q.context(c), q.continuation(c)));
      cut_left(asked.back(), session.max_length);
    }
    return asked;
  }

  /// Draws the worked examples of each question from the same file, as lm-evaluation-harness does:
  /// Random(1234).sample(pool, shots + 1) without the question itself.
  std::vector<std::string> prefixes() const {
    std::vector<std::string> out(count_);
    if (options_.shots == 0) return out;
    PythonRandom random(1234);
    const auto pool = static_cast<std::uint32_t>(data_.questions.size());
    for (std::size_t i = 0; i < count_; ++i) {
      int left = options_.shots;
      for (const std::uint32_t shot :
           random.sample(pool, static_cast<std::uint32_t>(options_.shots) + 1)) {
        if (shot == i || left == 0) continue;
        out[i] += data_.questions[shot].solved() + "\n\n";
        --left;
      }
    }
    return out;
  }

  TaskResult run(const Session& session) {
    const std::vector<std::string> shots = prefixes();
    std::vector<std::vector<infer::Continuation>> asked;
    std::vector<Journal::Question> keys;
    io::Fingerprint all;
    for (std::size_t i = 0; i < count_; ++i) {
      asked.push_back(ask(session, i, shots[i]));
      keys.push_back({static_cast<std::int64_t>(i), prompt_fingerprint(asked[i])});
      all.add(keys.back().prompt);
    }
    Journal journal(journal_path(session, name_), "id", session.fingerprint, std::move(keys),
                    session.resume);
    score_missing(session, name_, journal, asked, [&](std::size_t i, auto found) {
      return describe(data_.questions[i], asked[i], found);
    });
    journal.finish();
    return {name_, options_.shots, count_, data_.questions.size(), metrics(journal), all.text()};
  }

 private:
  io::Json describe(const ChoiceQuestion& q, const std::vector<infer::Continuation>& asked,
                    std::span<const infer::Likelihood> found) const {
    io::Json line = io::Json::object();
    std::vector<double> log_probs;
    io::Json tokens = io::Json::array(), greedy = io::Json::array();
    for (std::size_t c = 0; c < found.size(); ++c) {
      log_probs.push_back(found[c].log_prob);
      tokens.push_back(asked[c].continuation.size());
      greedy.push_back(found[c].greedy);
    }
    line["logprobs"] = io::Json::array(log_probs);
    line["tokens"] = tokens;
    line["greedy"] = greedy;
    if (data_.form == ChoiceForm::single) {
      line["acc"] = found[0].greedy ? 1 : 0;
      return line;
    }
    const ChoiceVerdict verdict = judge_choices(log_probs, q.characters, q.gold);
    line["gold"] = q.gold;
    line["acc"] = verdict.acc ? 1 : 0;
    if (!q.characters.empty()) line["acc_norm"] = verdict.acc_norm ? 1 : 0;
    return line;
  }

  std::vector<Metric> metrics(const Journal& journal) const {
    std::vector<Metric> out;
    for (const char* name : {"acc", "acc_norm"}) {
      if (count_ == 0 || journal.entry(0).find(name) == nullptr) continue;
      std::vector<double> hits;
      for (std::size_t i = 0; i < count_; ++i)
        hits.push_back(journal.entry(i).at(name).as_double());
      out.push_back({name, mean_of(hits)});
    }
    if (data_.form == ChoiceForm::single) {
      std::vector<double> sums;
      for (std::size_t i = 0; i < count_; ++i) {
        sums.push_back(journal.entry(i).at("logprobs").at(0).as_double());
      }
      out.push_back({"ppl", perplexity_of(sums)});
    }
    return out;
  }

  std::string name_;
  ChoiceData data_;
  ChoiceOptions options_;
  std::size_t count_ = 0;
};

}  // namespace espalier::eval
