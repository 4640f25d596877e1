// SPDX-License-Identifier: Apache-2.0
// Results and samples in the format of lm-evaluation-harness, for its readers and for those who
// know its files. Samples are a view of a journal: a line per question, and per filter of a
// generated answer.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/lm_eval_results.hpp is host-only; include it from a .cpp"
#endif

#include <string>
#include <vector>

#include <espalier/eval/lighteval_results.hpp>

namespace espalier::eval {

[[nodiscard]] io::Json lm_eval_results(const std::vector<TaskResult>& results,
                                       const RunDescription& run);

/// The text of samples_TASK_DATE.jsonl. @param lines of the task's journal
[[nodiscard]] std::string lm_eval_samples(const TaskResult& result,
                                          const std::vector<io::Json>& lines);

}  // namespace espalier::eval

#ifdef ESP_BODIES
namespace espalier::eval {

namespace detail {

/// "acc,none"; a generated metric's filter is in its name.
inline std::string lm_eval_key(const std::string& metric, const char* suffix = "") {
  const std::size_t comma = std::min(metric.find(','), metric.size());
  const std::string filter = comma < metric.size() ? metric.substr(comma + 1) : "none";
  return metric.substr(0, comma) + suffix + "," + filter;
}

inline io::Json lm_eval_metrics(const std::string& alias, const std::vector<Metric>& metrics,
                                std::size_t documents) {
  io::Json j = io::Json::object();
  j["alias"] = alias;
  for (const Metric& m : metrics) {
    j[lm_eval_key(m.name)] = m.estimate.value;
    j[lm_eval_key(m.name, "_stderr")] = m.estimate.standard_error;
  }
  j["sample_len"] = documents;
  return j;
}

inline io::Json lm_eval_config(const TaskResult& r) {
  io::Json j = io::Json::object();
  j["task"] = r.task;
  j["dataset_path"] = r.source.hub;
  j["dataset_name"] = r.source.subset;
  j["test_split"] = r.source.split;
  j["output_type"] = r.generated ? "generate_until" : "multiple_choice";
  j["num_fewshot"] = r.shots;
  j["metadata"]["version"] = r.id;
  return j;
}

/// A task, or one of its parts, in every section that names tasks.
inline void put_lm_eval_task(io::Json& to, const TaskResult& r, const std::string& name,
                             const PartResult& part) {
  to["results"][name] = lm_eval_metrics(part.name, part.metrics, part.documents);
  to["group_subtasks"][name] = io::Json::array();
  to["configs"][name] = lm_eval_config(r);
  to["versions"][name] = r.id;
  to["n-shot"][name] = r.shots;
  for (const Metric& m : part.metrics) {
    const std::string metric = m.name.substr(0, m.name.find(','));
    to["higher_is_better"][name][metric] = !is_lower_better(m.name);
  }
  io::Json& samples = to["n-samples"][name];
  samples["original"] = part.name == r.task ? r.original_documents : part.documents;
  samples["effective"] = part.documents;
}

inline std::string argument_number(double value) {
  return io::dump(io::Json(value));
}

/// Fills in what was asked of a choice, and the two answers that lm-evaluation-harness keeps.
inline void put_choices(io::Json& sample, const io::Json& line) {
  const auto contexts = line.at("contexts").items();
  const auto continuations = line.at("continuations").items();
  const auto logprobs = line.at("logprobs").items();
  for (std::size_t c = 0; c < logprobs.size(); ++c) {
    io::Json& arguments = sample["arguments"]["gen_args_" + std::to_string(c)];
    arguments["arg_0"] = contexts[contexts.size() > 1 ? c : 0];
    arguments["arg_1"] = continuations[continuations.size() > 1 ? c : 0];
    io::Json answer = io::Json::array();
    answer.push_back(argument_number(logprobs[c].as_double()));
    answer.push_back(line.at("greedy").at(c).as_bool() ? "True" : "False");
    io::Json repeats = io::Json::array();
    repeats.push_back(answer);
    sample["resps"].push_back(std::move(repeats));
    sample["filtered_resps"].push_back(std::move(answer));
  }
}

inline io::Json lm_eval_sample(const io::Json& line, const std::string& filter) {
  const auto value = [&](const char* key) {
    const io::Json* found = line.find(key);
    return found != nullptr ? *found : io::Json();
  };
  io::Json s = io::Json::object();
  s["doc_id"] = line.find("id") != nullptr ? line.at("id") : line.at("question_id");
  s["doc"] = io::Json::object();
  for (const char* key : {"part", "target", "question", "options", "answer", "category"}) {
    if (line.find(key) != nullptr) s["doc"][key] = line.at(key);
  }
  s["target"] = line.find("gold") != nullptr ? line.at("gold") : value("target");
  s["arguments"] = io::Json::object();
  s["resps"] = io::Json::array();
  s["filtered_resps"] = io::Json::array();
  s["filter"] = filter;
  s["metrics"] = io::Json::array();
  s["prompt_hash"] = value("prompt");
  return s;
}

inline void put_metric(io::Json& sample, const std::string& metric, const io::Json& value) {
  sample["metrics"].push_back(metric);
  sample[metric] = value;
}

}  // namespace detail

ESP_INLINE io::Json lm_eval_results(const std::vector<TaskResult>& results,
                                    const RunDescription& run) {
  io::Json j = io::Json::object();
  for (const char* key : {"results", "group_subtasks", "configs", "versions", "n-shot",
                          "higher_is_better", "n-samples"}) {
    j[key] = io::Json::object();
  }
  for (const TaskResult& r : results) {
    detail::put_lm_eval_task(j, r, r.task, {r.task, r.documents, r.metrics});
    for (const PartResult& part : r.parts) {
      const std::string name = r.task + "_" + part.name;
      detail::put_lm_eval_task(j, r, name, part);
      j["group_subtasks"][r.task].push_back(name);
    }
    for (const PartResult& group : r.groups) {
      j["groups"][r.task + "_" + group.name] =
          detail::lm_eval_metrics(group.name, group.metrics, group.documents);
    }
  }
  io::Json& config = j["config"];
  config["model"] = "espalier";
  config["model_args"]["pretrained"] = run.model_name;
  config["model_dtype"] = run.dtype;
  config["device"] = run.device;
  config["limit"] = run.limit < 0 ? io::Json() : io::Json(run.limit);
  config["bootstrap_iters"] = 0;
  j["git_hash"] = io::Json();
  j["date"] = run.start_seconds;
  j["model_source"] = "espalier";
  j["model_name"] = run.model_name;
  j["model_name_sanitized"] = file_name_of(run.model_name);
  j["start_time"] = run.start_seconds;
  j["end_time"] = run.end_seconds;
  j["total_evaluation_time_seconds"] = io::dump(io::Json(run.end_seconds - run.start_seconds));
  return j;
}

ESP_INLINE std::string lm_eval_samples(const TaskResult& result,
                                       const std::vector<io::Json>& lines) {
  std::string text;
  const auto put = [&](const io::Json& sample) { text += io::dump(sample) + "\n"; };
  for (const io::Json& line : lines) {
    if (line.find("logprobs") != nullptr) {
      io::Json sample = detail::lm_eval_sample(line, "none");
      detail::put_choices(sample, line);
      for (const Metric& m : result.metrics) {
        if (line.find(m.name) != nullptr) detail::put_metric(sample, m.name, line.at(m.name));
      }
      put(sample);
      continue;
    }
    const io::Json* answer = line.find("text");
    const io::Json* predictions = line.find("predictions");
    if (answer == nullptr || predictions == nullptr) continue;  // a text has no sample
    for (const io::Json::Member& p : predictions->members()) {
      const std::size_t comma = std::min(p.key.find(','), p.key.size());
      io::Json sample =
          detail::lm_eval_sample(line, comma < p.key.size() ? p.key.substr(comma + 1) : "none");
      sample["arguments"]["gen_args_0"]["arg_0"] = line.at("contexts").at(0);
      io::Json repeats = io::Json::array();
      repeats.push_back(*answer);
      sample["resps"].push_back(std::move(repeats));
      sample["filtered_resps"].push_back(p.value);
      detail::put_metric(sample, p.key.substr(0, comma), line.at(p.key));
      put(sample);
    }
  }
  return text;
}

}  // namespace espalier::eval
#endif
