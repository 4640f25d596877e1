// SPDX-License-Identifier: Apache-2.0
// trainer_state.json, in the layout of transformers' Trainer (log_history, global_step, ...), with
// one more key, "espalier": the arguments of the run and its position in the data. A run resumes
// only with the arguments that it began with.
#pragma once

#ifdef __CUDACC__
#error "espalier/train/run_state.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <string>
#include <vector>

#include <espalier/io/json.hpp>

namespace espalier::train {

struct RunState {
  std::int64_t step = 0;
  std::int64_t max_steps = 0;
  std::int64_t steps_per_epoch = 1;
  std::int64_t batch_size = 1;
  std::int64_t save_every = 0;
  io::Json arguments = io::Json::object();  // must not change
  std::vector<io::Json> log;                // the lines of train_log.jsonl
};

namespace detail {
inline io::Json with_key_renamed(const io::Json& object, std::string_view from,
                                 std::string_view to) {
  io::Json out = io::Json::object();
  for (const io::Json::Member& m : object.members()) {
    out[m.key == from ? to : std::string_view(m.key)] = m.value;
  }
  return out;
}
}  // namespace detail

[[nodiscard]] inline io::Json to_json(const RunState& s) {
  const auto epochs = [&](std::int64_t steps) {
    return static_cast<double>(steps) / static_cast<double>(s.steps_per_epoch);
  };
  io::Json history = io::Json::array();
  std::int64_t tokens = 0;
  for (const io::Json& entry : s.log) {
    history.push_back(detail::with_key_renamed(entry, "lr", "learning_rate"));
    tokens += entry.at("tokens").as_int();
  }
  io::Json j = io::Json::object();
  for (const char* key : {"best_global_step", "best_metric", "best_model_checkpoint"}) {
    j[key] = nullptr;
  }
  j["epoch"] = epochs(s.step);
  j["global_step"] = s.step;
  j["is_hyper_param_search"] = false;
  j["is_local_process_zero"] = true;
  j["is_world_process_zero"] = true;
  j["log_history"] = history;
  j["logging_steps"] = 1;
  j["max_steps"] = s.max_steps;
  j["num_input_tokens_seen"] = tokens;
  j["num_train_epochs"] = (s.max_steps + s.steps_per_epoch - 1) / s.steps_per_epoch;
  j["save_steps"] = s.save_every;
  j["stateful_callbacks"] = io::Json::object();
  j["train_batch_size"] = s.batch_size;
  j["trial_name"] = nullptr;
  j["trial_params"] = nullptr;
  j["espalier"]["arguments"] = s.arguments;
  j["espalier"]["data_position"]["epoch"] = s.step / s.steps_per_epoch;
  j["espalier"]["data_position"]["step_in_epoch"] = s.step % s.steps_per_epoch;
  j["espalier"]["random"] = "counter-based: a function of the seed, the step and the element";
  return j;
}

/// @throws FormatError naming the file when it is no state that fine-tuning wrote.
[[nodiscard]] inline RunState read_run_state(const std::filesystem::path& path) {
  const io::Json j = io::read_json(path);
  RunState s;
  s.step = j.at("global_step").as_int();
  s.max_steps = j.at("max_steps").as_int();
  s.arguments = j.at("espalier").at("arguments");
  for (const io::Json& entry : j.at("log_history").items()) {
    for (const char* key : {"step", "tokens"}) (void)entry.at(key).as_int();
    (void)entry.at("loss").as_double();
    s.log.push_back(detail::with_key_renamed(entry, "learning_rate", "lr"));
  }
  ESP_REQUIRE(s.step >= 1 && static_cast<std::int64_t>(s.log.size()) == s.step, FormatError,
              path.string(), ": global_step is ", s.step, ", but log_history has ", s.log.size(),
              " entries");
  return s;
}

/// @throws UsageError naming every argument that differs, with both values.
inline void require_same_arguments(const io::Json& then, const io::Json& now,
                                   const std::filesystem::path& checkpoint) {
  std::string changes;
  const auto note = [&](const std::string& key, const io::Json* a, const io::Json* b) {
    changes += (changes.empty() ? "" : ", ") + key + " was " + (a ? io::dump(*a) : "not there") +
               ", is " + (b ? io::dump(*b) : "not there");
  };
  for (const io::Json::Member& m : then.members()) {
    const io::Json* other = now.find(m.key);
    if (!other || !(*other == m.value)) note(m.key, &m.value, other);
  }
  for (const io::Json::Member& m : now.members()) {
    if (!then.find(m.key)) note(m.key, nullptr, &m.value);
  }
  ESP_REQUIRE(changes.empty(), UsageError, "cannot resume from ", checkpoint.string(), ": ",
              changes, "; use the same arguments, or another output folder");
}

}  // namespace espalier::train
