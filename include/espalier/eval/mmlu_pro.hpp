// SPDX-License-Identifier: Apache-2.0
// Runs MMLU-Pro on a model: encodes prompts, writes answers to a journal, then writes the files of
// the reference script:
//   {output}/{model}/CoT/{subjects}/{category}.json    records with pred and model_outputs
//   {output}/summary/{model}-CoT-{subjects}_summary.txt
//   {output}/log/{model}-CoT-{subjects}_logfile.log
// The script puts the time into the last two names and into log lines. Here only run.json holds it.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/mmlu_pro.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cstdio>

#include <espalier/core/threads.hpp>
#include <espalier/eval/mmlu_pro_prompt.hpp>
#include <espalier/eval/mmlu_pro_score.hpp>
#include <espalier/eval/task.hpp>

namespace espalier::eval {

struct MmluProOptions {
  MmluProRule rule = mmlu_pro_rule("current");
  MmluProLimits limits;
  std::int64_t limit = -1;       // questions in all, spread over the categories; -1: every one
  std::string subjects = "all";  // comma list; a category counts if it contains one of them
};

/// The limits under which the published numbers of a rule were measured.
[[nodiscard]] inline MmluProLimits limits_of(const MmluProRule& rule) {
  if (rule.name == "leaderboard-2024") return {5, 256, 2048};
  return {5, 2048, 4096};
}

class MmluProTask final : public Task {
 public:
  MmluProTask(MmluProData data, MmluProOptions options)
      : options_(std::move(options)), prompts_(data) {
    const MmluProLimits& l = options_.limits;
    ESP_REQUIRE(l.shots >= 0 && l.max_new_tokens > 0 && l.max_new_tokens < l.max_length, UsageError,
                "mmlu_pro: ", l.max_new_tokens, " new tokens and ", l.shots,
                " shots do not go together with a maximal length of ", l.max_length);
    select(std::move(data.questions));
  }

  /// Sorted by category; within a category in the order of the file.
  const std::vector<MmluProQuestion>& questions() const { return questions_; }

  const std::string& name() const override { return name_; }
  std::string id() const { return "mmlu_pro@tiger-" + options_.rule.name; }

  /// Creates the folders that `run` writes to at its end.
  void prepare(const Session& session) const override {
    for (const auto& f :
         {answer_folder(session), session.output / "summary", session.output / "log"}) {
      io::create_folders(f);
    }
  }

  /// Answers the questions that the journal lacks, and writes the files.
  TaskResult run(const Session& session) override {
    encode(session);
    for (const MmluProPrompt& p : asked_) {
      beyond_ += std::ssize(p.ids) >= session.max_length ? 1 : 0;
    }
    std::vector<Journal::Question> keys;
    for (std::size_t i = 0; i < questions_.size(); ++i) {
      io::Fingerprint print;
      print.add(asked_[i].ids).add(static_cast<std::uint64_t>(options_.limits.max_new_tokens));
      keys.push_back({questions_[i].id, print.text()});
    }
    io::Fingerprint all;
    for (const Journal::Question& q : keys) all.add(q.prompt);
    // The rule is not in the key: it judges answers, which a run with another rule may resume.
    Journal journal(journal_path(session, name_), "question_id",
                    {name_, session.fingerprint, session.computed_by}, std::move(keys),
                    session.resume);
    session.report(name_, journal);
    generate(session, journal);
    TaskResult result = finish(session, journal);
    result.prompts = all.text();
    if (beyond_ > 0) {
      result.notes.push_back(espalier::detail::concat(
          {beyond_, " of ", questions_.size(), " prompts are as long as the ", session.max_length,
           " tokens that the model takes, or longer; its answers mean little: lower the maximal "
           "length or the shots"}));
    }
    return result;
  }

 private:
  void select(std::vector<MmluProQuestion> all) {
    all_ = all.size();
    std::map<std::string, std::vector<MmluProQuestion>> by_category;
    for (MmluProQuestion& q : all) {
      if (wanted(q.category)) by_category[q.category].push_back(std::move(q));
    }
    ESP_REQUIRE(!by_category.empty(), UsageError, "subjects ", options_.subjects,
                ": no category of MMLU-Pro has such a name");
    std::map<std::string, std::size_t> take;
    std::int64_t left = options_.limit < 0 ? std::int64_t{1} << 62 : options_.limit;
    for (bool more = true; more && left > 0;) {
      more = false;
      for (const auto& [name, list] : by_category) {
        if (left == 0 || take[name] == list.size()) continue;
        ++take[name];
        --left;
        more = true;
      }
    }
    for (auto& [name, list] : by_category) {
      for (std::size_t i = 0; i < take[name]; ++i) questions_.push_back(std::move(list[i]));
    }
  }
  bool wanted(const std::string& category) const {
    if (options_.subjects == "all") return true;
    for (std::size_t begin = 0; begin <= options_.subjects.size();) {
      const std::size_t end =
          std::min(options_.subjects.find(',', begin), options_.subjects.size());
      std::string part = options_.subjects.substr(begin, end - begin);
      std::replace(part.begin(), part.end(), '_', ' ');
      if (!part.empty() && category.find(part) != category.npos) return true;
      begin = end + 1;
    }
    return false;
  }

  void encode(const Session& session) {
    asked_.resize(questions_.size());
    parallel_for(static_cast<std::int64_t>(questions_.size()), 4,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t i = begin; i < end; ++i) {
                     const auto k = static_cast<std::size_t>(i);
                     asked_[k] = prompts_.encode(questions_[k], options_.limits, session.encode);
                   }
                 });
  }

  void generate(const Session& session, Journal& journal) {
    std::vector<std::vector<std::int32_t>> prompts;
    std::vector<std::size_t> members;
    for (std::size_t i = 0; i < questions_.size(); ++i) {
      if (journal.has(i)) continue;
      prompts.push_back(asked_[i].ids);
      members.push_back(i);
    }
    if (members.empty()) return;
    const std::string stop[] = {"Question:"};
    session.model->generate(prompts, options_.limits.max_new_tokens, stop,
                            [&](std::size_t k, const infer::Completion& completion) {
                              const std::size_t i = members[k];
                              io::Json line = to_json(questions_[i]);  // replay reads it
                              line.erase("question_id");
                              line["shots"] = asked_[i].shots;
                              line["prompt_tokens"] = asked_[i].ids.size();
                              line["new_tokens"] = completion.ids.size();
                              line["hit_limit"] = completion.hit_limit;
                              line["text"] = completion.text;
                              judge_line(i, line);
                              line["contexts"] = io::Json::array(std::vector<std::string>{
                                  prompts_.text(questions_[i], asked_[i].shots)});
                              journal.append(i, line);
                              journal.sync();
                              session.report(name_, journal);
                            });
  }

  /// Judges the text of a line by the rule of this run; a resumed run may have another rule than
  /// the run before.
  AnsweredQuestion judge_line(std::size_t i, io::Json& line) const {
    AnsweredQuestion a = answered(questions_[i], line.at("text").as_string(), options_.rule);
    line["pred"] = a.found ? io::Json(std::string(1, a.found.letter)) : io::Json();
    line["level"] = a.found ? io::Json(a.found.level) : io::Json();
    return a;
  }

  TaskResult finish(const Session& session, Journal& journal) {
    std::vector<AnsweredQuestion> found;
    for (std::size_t i = 0; i < questions_.size(); ++i) {
      found.push_back(judge_line(i, journal.edit(i)));
    }
    const std::vector<Verdict> verdicts = judge(found, options_.rule);
    const MmluProScore score = score_of(found, verdicts);
    journal.finish();
    write_files(session, journal, score);
    TaskResult result;
    result.task = name_;
    result.id = id();
    result.generated = true;
    result.shots = options_.limits.shots;
    result.documents = questions_.size();
    result.original_documents = all_;
    result.source = {"TIGER-Lab/MMLU-Pro", "", "test"};
    result.prompt_form = "none";
    count_tokens(result);
    result.metrics = {{"accuracy", share_of(score.correct, score.records)},
                      {"strict_accuracy", share_of(score.strict_correct, score.records)}};
    result.summary = to_json(score, options_.rule);
    describe(journal, verdicts, result.summary);
    return result;
  }

  /// Adds counts of tokens, shots and answers cut off by the limit.
  void describe(const Journal& journal, const std::vector<Verdict>& verdicts,
                io::Json& summary) const {
    std::size_t cut = 0, cut_unanswered = 0, cut_correct = 0, too_long = 0;
    std::int64_t prompt_tokens = 0, new_tokens = 0;
    std::map<int, std::size_t> shots;
    for (std::size_t i = 0; i < questions_.size(); ++i) {
      const io::Json& line = journal.entry(i);
      if (line.at("hit_limit").as_bool()) {
        ++cut;
        cut_unanswered += line.at("level").is_null() ? 1 : 0;
        cut_correct += verdicts[i].correct ? 1 : 0;
      }
      too_long += asked_[i].fits ? 0 : 1;
      ++shots[asked_[i].shots];
      prompt_tokens += static_cast<std::int64_t>(asked_[i].ids.size());
      new_tokens += line.at("new_tokens").as_int();
    }
    summary["hit_limit"] = cut;
    summary["hit_limit_unanswered"] = cut_unanswered;
    summary["hit_limit_correct"] = cut_correct;
    summary["max_new_tokens"] = options_.limits.max_new_tokens;
    summary["max_length"] = options_.limits.max_length;
    summary["prompts_too_long"] = std::max(too_long, beyond_);
    summary["prompt_tokens"] = prompt_tokens;
    summary["new_tokens"] = new_tokens;
    summary["shots"] = io::Json::object();
    for (const auto& [count, records] : shots) summary["shots"][std::to_string(count)] = records;
  }

  void count_tokens(TaskResult& result) const {
    std::vector<infer::TokenList> prompts;
    for (const MmluProPrompt& p : asked_) {
      prompts.emplace_back(p.ids);
      result.tokens_asked += std::ssize(p.ids);
    }
    result.tokens_computed = infer::computed_tokens(prompts, infer::prefix_steps(prompts));
  }

  std::string subjects_text() const {
    std::string subjects = options_.subjects;
    std::replace(subjects.begin(), subjects.end(), ',', '-');
    std::replace(subjects.begin(), subjects.end(), ' ', '_');
    return subjects;
  }
  std::filesystem::path answer_folder(const Session& session) const {
    return session.output / file_name_of(session.model_name) / "CoT" /
           file_name_of(subjects_text());
  }

  void write_files(const Session& session, const Journal& journal,
                   const MmluProScore& score) const {
    const auto folder = answer_folder(session);
    const std::string name = file_name_of(session.model_name + "-CoT-" + subjects_text());
    prepare(session);
    std::map<std::string, io::Json> lists;
    for (std::size_t i = 0; i < questions_.size(); ++i) {
      io::Json record = to_json(questions_[i]);
      record["pred"] = journal.entry(i).at("pred");
      record["model_outputs"] = journal.entry(i).at("text");
      lists[questions_[i].category].push_back(std::move(record));
    }
    std::string text = "\n------category level sta------\n", log;
    for (const auto& [category, list] : lists) {
      io::write_text(folder / (file_name_of(category) + ".json"), io::dump_python(list));
      const MmluProScore::Category& c = score.categories.at(category);
      text += "Average accuracy " + four_digits(c.accuracy()) + " - " + category + "\n";
      log += "evaluating " + category + "\nthis batch accu is: " + io::dump(c.accuracy()) +
             ", corr: " + std::to_string(c.correct) +
             ", wrong: " + std::to_string(c.records - c.correct) + "\n\n";
    }
    const double total =
        static_cast<double>(score.correct) / (static_cast<double>(score.records) + 0.000001);
    text += "\n------average acc sta------\nAverage accuracy: " + four_digits(total) + "\n";
    io::write_text(session.output / "summary" / (name + "_summary.txt"), text);
    io::write_text(session.output / "log" / (name + "_logfile.log"), log);
  }
  static std::string four_digits(double v) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4f", v);
    return text;
  }

  std::string name_ = "mmlu_pro";
  MmluProOptions options_;
  MmluProPrompts prompts_;
  std::size_t all_ = 0;     // questions, also those that were not selected
  std::size_t beyond_ = 0;  // prompts that leave the model no room
  std::vector<MmluProQuestion> questions_;
  std::vector<MmluProPrompt> asked_;
};

}  // namespace espalier::eval
