// SPDX-License-Identifier: Apache-2.0
// The journal of an evaluation: one JSON line per question, appended as soon as the answer is
// known, and on the disk before the next questions are computed. A run that was killed continues
// after the whole lines; a torn last line is dropped. Each line names its model, its prompt, its
// task and what computed it, and a run refuses lines of others. At the end the lines are sorted by
// question, so that an interrupted run leaves the same bytes as an uninterrupted one.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/journal.hpp is host-only; include it from a .cpp"
#endif

#include <optional>
#include <unordered_map>

#include <espalier/io/append_log.hpp>
#include <espalier/io/jsonl.hpp>

namespace espalier::eval {

/// Refuses a file of an earlier run unless this run resumes it.
/// @throws IoError
inline void require_fresh(const std::filesystem::path& journal, bool resume) {
  ESP_REQUIRE(resume || !std::filesystem::exists(journal), IoError, journal.string(),
              ": exists already; resume to go on with it, or choose another output folder");
}

/// What all lines of a journal have in common, and a resumed run must have as well.
struct JournalKey {
  std::string task = {};         // definition and its fingerprint
  std::string model = {};        // fingerprint of its weights
  std::string computed_by = {};  // what else the bits depend on, in words (Session::computed_by)
};

class Journal {
 public:
  struct Question {
    std::int64_t id = 0;
    std::string prompt;  // fingerprint of all that was asked
  };

  /// @throws IoError if the file exists and `resume` is false; FormatError naming a line of another
  /// key, prompt or set of questions
  Journal(std::filesystem::path path, std::string id_key, JournalKey key,
          std::vector<Question> questions, bool resume)
      : path_(std::move(path)),
        id_key_(std::move(id_key)),
        key_(std::move(key)),
        questions_(std::move(questions)),
        entries_(questions_.size()) {
    for (std::size_t i = 0; i < questions_.size(); ++i) index_[questions_[i].id] = i;
    require_fresh(path_, resume);
    log_.emplace(path_);
    io::for_each_json_line(log_->lines(), path_.string(),
                           [&](io::Json line, std::size_t) { take(std::move(line)); });
  }

  std::size_t size() const { return questions_.size(); }
  std::size_t done() const { return done_; }
  bool has(std::size_t i) const { return entries_[i].has_value(); }
  /// The line of question `i`, which must have been answered.
  const io::Json& entry(std::size_t i) const { return entries_[i].value(); }

  /// Appends the answer to question `i`. After `sync` it survives a power cut.
  void append(std::size_t i, const io::Json& fields) {
    io::Json line = io::Json::object();
    line[id_key_] = questions_[i].id;
    for (const io::Json::Member& m : fields.members()) line[m.key] = m.value;
    line["prompt"] = questions_[i].prompt;
    line["task"] = key_.task;
    line["model"] = key_.model;
    line["computed_by"] = key_.computed_by;
    log_->append(io::dump(line));
    done_ += has(i) ? 0 : 1;
    entries_[i] = std::move(line);
  }

  void sync() { log_->sync(); }

  /// A line to change; finish() writes the change to the file.
  io::Json& edit(std::size_t i) { return entries_[i].value(); }

  /// Rewrites the file in the order of the questions, all of which must have been answered.
  void finish() {
    std::string text;
    for (const auto& e : entries_) text += io::dump(e.value()) + '\n';
    io::write_text(path_, text);
  }

 private:
  void take(io::Json line) {
    const std::int64_t id = line.at(id_key_).as_int();
    const auto known = index_.find(id);
    ESP_REQUIRE(
        known != index_.end(), FormatError, line.where(), ": ", id_key_, " ", id,
        " is not among the questions of this run; was it started with other questions, or with "
        "another limit of them?");
    require_same(line, id, "model", key_.model, "by another model");
    require_same(line, id, "task", key_.task, "for another definition of the task");
    require_same(line, id, "computed_by", key_.computed_by, "on other terms");
    const std::string& prompt = line.at("prompt").as_string();
    ESP_REQUIRE(prompt == questions_[known->second].prompt, FormatError, line.where(), ": ",
                id_key_, " ", id, " was asked with another prompt (", prompt, ", now ",
                questions_[known->second].prompt,
                "); give the same shots, data and limits, or choose another output folder");
    done_ += has(known->second) ? 0 : 1;
    entries_[known->second] = std::move(line);
  }

  /// Lines of before a key was written lack it, and are refused like those of another.
  void require_same(const io::Json& line, std::int64_t id, const char* key,
                    const std::string& expected, const char* how) const {
    const io::Json* found = line.find(key);
    const std::string value = found != nullptr ? found->as_string() : std::string("not named");
    ESP_REQUIRE(value == expected, FormatError, line.where(), ": ", id_key_, " ", id,
                " was answered ", how, " (", value, ", now ", expected,
                "); choose another output folder");
  }

  std::filesystem::path path_;
  std::string id_key_;
  JournalKey key_;
  std::vector<Question> questions_;
  std::vector<std::optional<io::Json>> entries_;
  std::unordered_map<std::int64_t, std::size_t> index_;
  std::optional<io::AppendLog> log_;
  std::size_t done_ = 0;
};

}  // namespace espalier::eval
