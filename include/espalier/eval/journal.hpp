// SPDX-License-Identifier: Apache-2.0
// The journal of an evaluation: one JSON line per question, appended as soon as the answer is
// known. A run that was killed continues after the whole lines; a torn last line is dropped. Each
// line names its model and its prompt, and a run refuses lines of others. At the end the lines are
// sorted by question, so that an interrupted run leaves the same bytes as an uninterrupted one.
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

class Journal {
 public:
  struct Question {
    std::int64_t id = 0;
    std::string prompt;  // fingerprint of all that was asked
  };

  /// @throws IoError if the file exists and `resume` is false; FormatError naming a line of another
  /// model, prompt or set of questions
  Journal(std::filesystem::path path, std::string id_key, std::string model,
          std::vector<Question> questions, bool resume)
      : path_(std::move(path)),
        id_key_(std::move(id_key)),
        model_(std::move(model)),
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

  /// Appends the answer to question `i`.
  void append(std::size_t i, const io::Json& fields) {
    io::Json line = io::Json::object();
    line[id_key_] = questions_[i].id;
    for (const io::Json::Member& m : fields.members()) line[m.key] = m.value;
    line["prompt"] = questions_[i].prompt;
    line["model"] = model_;
    log_->append(io::dump(line));
    done_ += has(i) ? 0 : 1;
    entries_[i] = std::move(line);
  }

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
    ESP_REQUIRE(line.at("model").as_string() == model_, FormatError, line.where(), ": ", id_key_,
                " ", id, " was answered by another model (", line.at("model").as_string(), ", now ",
                model_, "); choose another output folder");
    const std::string& prompt = line.at("prompt").as_string();
    ESP_REQUIRE(prompt == questions_[known->second].prompt, FormatError, line.where(), ": ",
                id_key_, " ", id, " was asked with another prompt (", prompt, ", now ",
                questions_[known->second].prompt,
                "); give the same shots, data and limits, or choose another output folder");
    done_ += has(known->second) ? 0 : 1;
    entries_[known->second] = std::move(line);
  }

  std::filesystem::path path_;
  std::string id_key_, model_;
  std::vector<Question> questions_;
  std::vector<std::optional<io::Json>> entries_;
  std::unordered_map<std::int64_t, std::size_t> index_;
  std::optional<io::AppendLog> log_;
  std::size_t done_ = 0;
};

}  // namespace espalier::eval
