// SPDX-License-Identifier: Apache-2.0
// A LanguageModel without weights, which answers what a test told it and can die on the way; and
// folders for what a run leaves.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <map>

#include <espalier/infer/language_model.hpp>
#include <espalier/io/file.hpp>

namespace espalier::test {

struct Killed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class FakeModel : public infer::LanguageModel {
 public:
  std::map<std::vector<std::int32_t>, std::string> texts;
  int fail_after = -1;  // answers that are given before the end comes; -1: it never does
  int generated = 0, scored = 0;

  /// log p of a token depends on it and on how many stand before it.
  static double log_prob(std::size_t position, std::int32_t id) {
    return -0.25 * static_cast<double>((static_cast<std::size_t>(id) * 7 + position * 3) % 11) -
           0.125;
  }

  std::vector<infer::Likelihood> score(std::span<const infer::Continuation> items) override {
    std::vector<infer::Likelihood> out;
    for (const auto& item : items) {
      use_up();
      ++scored;
      infer::Likelihood l;
      for (std::size_t i = 0; i < item.continuation.size(); ++i) {
        l.log_prob += log_prob(item.context.size() + i, item.continuation[i]);
        l.greedy = l.greedy && item.continuation[i] % 2 == 0;
      }
      out.push_back(l);
    }
    return out;
  }

  /// The last prompt is done first: a task must not rely on an order.
  void generate(std::span<const std::vector<std::int32_t>> prompts, int,
                std::span<const std::string>, const OnDone& on_done) override {
    for (std::size_t i = prompts.size(); i-- > 0;) {
      use_up();
      ++generated;
      infer::Completion c;
      c.text = texts.at(prompts[i]);
      c.ids.assign(c.text.size(), 1);
      c.hit_limit = c.text.size() > 30;
      on_done(i, c);
    }
  }

 private:
  void use_up() {
    if (fail_after == 0) throw Killed("killed");
    if (fail_after > 0) --fail_after;
  }
};

/// An empty folder that goes with the test.
struct Folder {
  std::filesystem::path path;
  explicit Folder(const std::string& name)
      : path(std::filesystem::temp_directory_path() /
             ("espalier_eval_" + name + "_" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
};

/// Relative name -> content of every file below `folder`.
inline std::map<std::string, std::string> files_of(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& e : std::filesystem::recursive_directory_iterator(folder)) {
    if (e.is_regular_file()) {
      files[std::filesystem::relative(e.path(), folder).string()] = io::read_text(e.path());
    }
  }
  return files;
}

}  // namespace espalier::test
