// SPDX-License-Identifier: Apache-2.0
// train_log.jsonl: one object per optimizer step, written as soon as the step is done. Opening
// rewrites the file from the steps known to be done, which drops an incomplete last line and steps
// after the checkpoint that a run resumes from.
#pragma once

#ifdef __CUDACC__
#error "espalier/train/train_log.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <optional>
#include <vector>

#include <espalier/io/append_log.hpp>
#include <espalier/io/json.hpp>
#include <espalier/train/trainer.hpp>

namespace espalier::train {

/// A line of the log. `seconds`: of the step; `steps_per_epoch`: 0 where there are no epochs.
[[nodiscard]] ESP_INLINE io::Json log_entry(const StepResult& r, double seconds,
                                            std::int64_t steps_per_epoch = 0) {
  io::Json entry = io::Json::object();
  entry["step"] = r.step;
  if (steps_per_epoch > 0) {
    entry["epoch"] = static_cast<double>(r.step) / static_cast<double>(steps_per_epoch);
  }
  entry["loss"] = r.loss;
  entry["aux_loss"] = r.aux_loss;
  entry["grad_norm"] = r.grad_norm;
  entry["lr"] = r.lr;
  entry["tokens"] = r.tokens;
  entry["targets"] = r.targets;
  entry["tokens_per_second"] = static_cast<double>(r.tokens) / std::max(seconds, 1e-9);
  return entry;
}

class TrainLog {
 public:
  ESP_INLINE TrainLog(const std::filesystem::path& path, const std::vector<io::Json>& done) {
    std::string text;
    for (const io::Json& entry : done) text += io::dump(entry) + '\n';
    io::write_text(path, text);
    file_.emplace(path);
    entries_ = done;
  }

  /// @throws IoError when the disk is full; the file then ends with the last complete line.
  ESP_INLINE void append(io::Json entry) {
    file_->append(io::dump(entry));
    entries_.push_back(std::move(entry));
  }

  const std::vector<io::Json>& entries() const { return entries_; }

 private:
  std::optional<io::AppendLog> file_;
  std::vector<io::Json> entries_;
};

}  // namespace espalier::train
