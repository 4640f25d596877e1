// SPDX-License-Identifier: Apache-2.0
// What an evaluation has found out, one JSON line per question, on the disk as soon as it is known.
// A run that was killed goes on from the whole lines; a torn last line is dropped. Every line says
// which model and which prompt it belongs to, and one of another model or prompt is refused. When
// all are there the lines are put into the order of the questions, so that an interrupted run
// leaves the same bytes as an uninterrupted one.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/journal.hpp is host-only; include it from a .cpp"
#endif

#include <sys/file.h>

#include <optional>
#include <unordered_map>

#include <espalier/io/jsonl.hpp>

namespace espalier::eval {

class Journal {
 public:
  struct Question {
    std::int64_t id = 0;
    std::string prompt;  // fingerprint of all that was asked
  };

  /// @throws IoError if the file is there and `resume` is false; FormatError naming the line that
  /// belongs to another model, prompt or set of questions
  Journal(std::filesystem::path path, std::string id_key, std::string model,
          std::vector<Question> questions, bool resume)
      : path_(std::move(path)),
        id_key_(std::move(id_key)),
        model_(std::move(model)),
        questions_(std::move(questions)),
        entries_(questions_.size()) {
    for (std::size_t i = 0; i < questions_.size(); ++i) index_[questions_[i].id] = i;
    const bool there = std::filesystem::exists(path_);
    ESP_REQUIRE(!there || resume, IoError, path_.string(),
                ": exists already; give --resume to go on with it, or choose another output "
                "folder");
    file_ = io::detail::FileDescriptor(path_, O_RDWR | O_APPEND | O_CREAT, "open");
    ESP_REQUIRE(::flock(file_.get(), LOCK_EX | LOCK_NB) == 0, IoError, path_.string(),
                ": another run is writing it; wait for it or choose another output folder");
    if (there) read();
  }

  std::size_t size() const { return questions_.size(); }
  std::size_t done() const { return done_; }
  bool has(std::size_t i) const { return entries_[i].has_value(); }
  /// The line of question `i`, which must be there.
  const io::Json& entry(std::size_t i) const { return entries_[i].value(); }

  /// Adds what is known of question `i`.
  void append(std::size_t i, const io::Json& fields) {
    io::Json line = io::Json::object();
    line[id_key_] = questions_[i].id;
    for (const io::Json::Member& m : fields.members()) line[m.key] = m.value;
    line["prompt"] = questions_[i].prompt;
    line["model"] = model_;
    write(io::dump(line) + '\n');
    done_ += has(i) ? 0 : 1;
    entries_[i] = std::move(line);
  }

  /// Changes a line; the file follows with finish().
  io::Json& edit(std::size_t i) { return entries_[i].value(); }

  /// All questions are answered: the file is written anew in their order.
  void finish() {
    std::string text;
    for (const auto& e : entries_) text += io::dump(e.value()) + '\n';
    io::write_text(path_, text);
  }

 private:
  void read() {
    const std::string text = io::read_text(path_);
    const std::size_t whole = text.rfind('\n') == text.npos ? 0 : text.rfind('\n') + 1;
    io::for_each_json_line(std::string_view(text).substr(0, whole), path_.string(),
                           [&](io::Json line, std::size_t) { take(std::move(line)); });
    if (whole == text.size()) return;
    if (::ftruncate(file_.get(), static_cast<off_t>(whole)) != 0) {
      io::detail::throw_errno(path_, "write");
    }
  }
  void take(io::Json line) {
    const std::int64_t id = line.at(id_key_).as_int();
    const auto known = index_.find(id);
    ESP_REQUIRE(known != index_.end(), FormatError, line.where(), ": ", id_key_, " ", id,
                " is not among the questions of this run; was it started with another --limit or "
                "--data?");
    ESP_REQUIRE(line.at("model").as_string() == model_, FormatError, line.where(), ": ", id_key_,
                " ", id, " was answered by another model (", line.at("model").as_string(), ", now ",
                model_, "); choose another output folder");
    const std::string& prompt = line.at("prompt").as_string();
    ESP_REQUIRE(prompt == questions_[known->second].prompt, FormatError, line.where(), ": ",
                id_key_, " ", id, " was asked with another prompt (", prompt, ", now ",
                questions_[known->second].prompt,
                "); give the same --shots, --data and limits, or choose another output folder");
    done_ += has(known->second) ? 0 : 1;
    entries_[known->second] = std::move(line);
  }
  void write(const std::string& line) {
    const off_t size = ::lseek(file_.get(), 0, SEEK_END);
    for (std::size_t done = 0; done < line.size();) {
      const ssize_t n = ::write(file_.get(), line.data() + done, line.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        const int code = n < 0 ? errno : ENOSPC;
        (void)!::ftruncate(file_.get(), size);
        io::detail::throw_errno(path_, "write", code);
      }
      done += static_cast<std::size_t>(n);
    }
  }

  std::filesystem::path path_;
  std::string id_key_, model_;
  std::vector<Question> questions_;
  std::vector<std::optional<io::Json>> entries_;
  std::unordered_map<std::int64_t, std::size_t> index_;
  io::detail::FileDescriptor file_;
  std::size_t done_ = 0;
};

}  // namespace espalier::eval
