// SPDX-License-Identifier: Apache-2.0
// Writes what tasks found, for other tools. The date in the names is the run's beginning, so that
// no run replaces another's results:
//   {output}/results/{model}/results_{date}.json          LightEval
//   {output}/lm_eval/{model}/results_{date}.json          lm-evaluation-harness
//   {output}/lm_eval/{model}/samples_{task}_{date}.jsonl
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/result_files.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/eval/lm_eval_results.hpp>

namespace espalier::eval {

/// A task's part of summary.json.
[[nodiscard]] io::Json summary_of(const TaskResult& result);

/// "2026-11-30T16-12-00.123456", as both tools write it.
[[nodiscard]] std::string date_in_name(double seconds_since_1970);

/// @throws IoError
void create_result_folders(const std::string& model_name, const std::filesystem::path& output);

/// Journals of the tasks must be complete. @throws IoError
void write_results(const std::vector<TaskResult>& results, const RunDescription& run,
                   const Session& session);

}  // namespace espalier::eval

#ifdef ESP_BODIES
#include <cmath>
#include <cstdio>

#include <espalier/eval/run_file.hpp>

namespace espalier::eval {

namespace detail {

inline std::filesystem::path result_folder(const char* tool, const std::string& model_name,
                                           const std::filesystem::path& output) {
  return output / tool / file_name_of(model_name);
}

inline io::Json parts_json(const std::vector<PartResult>& parts) {
  io::Json j = io::Json::object();
  for (const PartResult& part : parts) {
    j[part.name]["documents"] = part.documents;
    put_metrics(j[part.name], part.metrics);
  }
  return j;
}

}  // namespace detail

ESP_INLINE io::Json summary_of(const TaskResult& r) {
  io::Json s = r.summary.is_null() ? io::Json::object() : r.summary;
  if (r.summary.is_null()) {
    s["shots"] = r.shots;
    s["documents"] = r.documents;
    detail::put_metrics(s, r.metrics);
  }
  if (!r.id.empty()) s["id"] = r.id;
  s["prompt_form"] = r.prompt_form;
  s["prompts"] = r.prompts;
  s["truncated"] = r.truncated;
  s["tokens_asked"] = r.tokens_asked;
  s["tokens_computed"] = r.tokens_computed;
  if (!r.parts.empty()) s["parts"] = detail::parts_json(r.parts);
  if (!r.groups.empty()) s["groups"] = detail::parts_json(r.groups);
  return s;
}

ESP_INLINE std::string date_in_name(double seconds_since_1970) {
  std::string date = date_text(seconds_since_1970);  // 2026-11-30T16:12:00Z
  date.pop_back();
  std::replace(date.begin(), date.end(), ':', '-');
  char fraction[16];
  const double rest = seconds_since_1970 - std::floor(seconds_since_1970);
  std::snprintf(fraction, sizeof fraction, ".%06d", static_cast<int>(rest * 1e6));
  return date + fraction;
}

ESP_INLINE void create_result_folders(const std::string& model_name,
                                      const std::filesystem::path& output) {
  for (const char* tool : {"results", "lm_eval"}) {
    io::create_folders(detail::result_folder(tool, model_name, output));
  }
}

ESP_INLINE void write_results(const std::vector<TaskResult>& results, const RunDescription& run,
                              const Session& session) {
  const std::string date = date_in_name(run.start_seconds);
  const auto folder = [&](const char* tool) {
    return detail::result_folder(tool, session.model_name, session.output);
  };
  create_result_folders(session.model_name, session.output);
  io::write_text(folder("results") / ("results_" + date + ".json"),
                 io::dump_python(lighteval_results(results, run), 2) + "\n");
  io::write_text(folder("lm_eval") / ("results_" + date + ".json"),
                 io::dump_python(lm_eval_results(results, run), 2) + "\n");
  for (const TaskResult& r : results) {
    const std::string samples = lm_eval_samples(r, io::read_jsonl(journal_path(session, r.task)));
    if (samples.empty()) continue;
    io::write_text(folder("lm_eval") / ("samples_" + file_name_of(r.task) + "_" + date + ".jsonl"),
                   samples);
  }
}

}  // namespace espalier::eval
#endif
