// SPDX-License-Identifier: Apache-2.0
// Results in the format of LightEval, for tools that read it. A task with parts is a task for each,
// "mmlu:anatomy|5", and "mmlu:_average|5", the mean over them; the whole task counts each question
// alike. LightEval's details (Parquet) are not written; lm-evaluation-harness' samples are
// (lm_eval_results.hpp).
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/lighteval_results.hpp is host-only; include it from a .cpp"
#endif

#include <map>

#include <espalier/eval/task.hpp>

namespace espalier::eval {

/// Circumstances of a run.
struct RunDescription {
  std::string model_name, dtype, device = "cpu";
  std::int64_t limit = -1;
  double start_seconds = 0, end_seconds = 0;  // since 1970
};

namespace detail {

/// Are smaller values of a metric better?
inline bool is_lower_better(const std::string& metric) {
  return metric == "ppl" || metric == "loss" || metric.ends_with("perplexity") ||
         metric == "bits_per_byte";
}

inline io::Json metric_config(const Metric& m, bool generated) {
  const bool lower = is_lower_better(m.name);
  io::Json j = io::Json::object();
  j["metric_name"] = m.name;
  j["higher_is_better"] = !lower;
  j["category"] = generated ? "GENERATIVE" : lower ? "PERPLEXITY" : "LOGPROBS";
  return j;
}

inline io::Json task_config(const TaskResult& r) {
  io::Json j = io::Json::object();
  j["name"] = r.task;
  j["hf_repo"] = r.source.hub;
  j["hf_subset"] = r.source.subset.empty() ? std::string("default") : r.source.subset;
  j["metrics"] = io::Json::array();
  for (const Metric& m : r.metrics) j["metrics"].push_back(metric_config(m, r.generated));
  j["evaluation_splits"] = io::Json::array(
      std::vector<std::string>{r.source.split.empty() ? std::string("test") : r.source.split});
  j["few_shots_split"] = io::Json();
  j["few_shots_select"] = r.shots > 0 ? io::Json("random_sampling") : io::Json();
  j["generation_size"] = io::Json();
  j["stop_sequence"] = io::Json::array();
  j["original_num_docs"] = r.original_documents;
  j["effective_num_docs"] = r.documents;
  j["num_fewshots"] = r.shots;
  j["version"] = 0;
  j["definition"] = r.id;
  return j;
}

/// Nothing is padded here.
inline void put_lengths(io::Json& to, std::size_t truncated, std::size_t documents) {
  to["truncated"] = truncated;
  to["non_truncated"] = documents - truncated;
  to["padded"] = 0;
  to["non_padded"] = documents;
}

/// NaN (too few samples) is null in JSON.
inline void put_metrics(io::Json& to, const std::vector<Metric>& metrics) {
  for (const Metric& m : metrics) {
    to[m.name] = m.estimate.value;
    to[m.name + "_stderr"] = m.estimate.standard_error;
  }
}

/// The parts of a task, and the mean over them.
inline void put_parts(io::Json& results, const TaskResult& r) {
  if (r.parts.empty()) return;
  const std::string shots = "|" + std::to_string(r.shots);
  std::map<std::string, std::vector<double>> values;
  for (const PartResult& part : r.parts) {
    put_metrics(results[r.task + ":" + part.name + shots], part.metrics);
    for (const Metric& m : part.metrics) values[m.name].push_back(m.estimate.value);
  }
  io::Json& mean = results[r.task + ":_average" + shots];
  for (const auto& [metric, of_parts] : values) mean[metric] = mean_of(of_parts).value;
}

/// The mean over the tasks that have a metric, as LightEval's "all".
inline io::Json over_all(const std::vector<TaskResult>& results) {
  std::map<std::string, std::pair<double, int>> sums;
  std::vector<std::string> order;
  for (const TaskResult& r : results) {
    io::Json values = io::Json::object();
    put_metrics(values, r.metrics);
    for (const io::Json::Member& m : values.members()) {
      if (sums.count(m.key) == 0) order.push_back(m.key);
      sums[m.key].first += m.value.as_double();
      ++sums[m.key].second;
    }
  }
  io::Json all = io::Json::object();
  for (const std::string& key : order) all[key] = sums[key].first / sums[key].second;
  return all;
}

}  // namespace detail

[[nodiscard]] inline io::Json lighteval_results(const std::vector<TaskResult>& results,
                                                const RunDescription& run) {
  io::Json j = io::Json::object();
  io::Json& general = j["config_general"];
  general["lighteval_sha"] = "";
  general["num_fewshot_seeds"] = 1;
  general["max_samples"] = run.limit < 0 ? io::Json() : io::Json(run.limit);
  general["job_id"] = "";
  general["start_time"] = run.start_seconds;
  general["end_time"] = run.end_seconds;
  general["total_evaluation_time_secondes"] = io::dump(run.end_seconds - run.start_seconds);
  general["model_config"]["model_name"] = run.model_name;
  general["model_config"]["dtype"] = run.dtype;
  general["model_config"]["device"] = run.device;
  general["model_name"] = run.model_name;
  for (const char* key : {"results", "versions", "config_tasks", "summary_tasks"}) {
    j[key] = io::Json::object();
  }
  io::Fingerprint all_prompts;
  std::size_t truncated = 0, documents = 0;
  for (const TaskResult& r : results) {
    const std::string name = r.task + "|" + std::to_string(r.shots);
    detail::put_metrics(j["results"][name], r.metrics);
    detail::put_parts(j["results"], r);
    j["versions"][name] = 0;
    j["config_tasks"][name] = detail::task_config(r);
    io::Json& summary = j["summary_tasks"][name];
    summary["hashes"]["hash_input_tokens"] = r.prompts;
    detail::put_lengths(summary, r.truncated, r.documents);
    truncated += r.truncated;
    documents += r.documents;
    all_prompts.add(r.prompts);
  }
  j["results"]["all"] = detail::over_all(results);
  io::Json& summary = j["summary_general"];
  summary["hashes"]["hash_input_tokens"] = all_prompts.text();
  detail::put_lengths(summary, truncated, documents);
  return j;
}

}  // namespace espalier::eval
