// SPDX-License-Identifier: Apache-2.0
// What tasks with prompts (prompts.hpp) have in common: the key of their journal, the prompt in its
// lines, and results by part.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/prompted_task.hpp is host-only; include it from a .cpp"
#endif

#include <map>
#include <numeric>

#include <espalier/eval/prompts.hpp>
#include <espalier/eval/task.hpp>

namespace espalier::eval {

/// Metrics of all questions; where the task has parts, also of each part and each group of parts.
/// @param metrics_of the metrics of some questions, by their positions
template <class MetricsOf>
void add_metrics(TaskResult& result, const Prompts& prompts, MetricsOf&& metrics_of) {
  std::vector<std::size_t> every(prompts.size());
  std::iota(every.begin(), every.end(), std::size_t{0});
  result.metrics = metrics_of(every);
  const TaskDefinition& definition = prompts.data().definition;
  if (!definition.has_parts) return;
  std::map<std::string, std::vector<std::size_t>> by_part;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    by_part[prompts.question(i).part].push_back(i);
  }
  for (const auto& [name, members] : by_part) {
    result.parts.push_back({name, members.size(), metrics_of(members)});
  }
  for (const PartGroup& group : definition.groups) {
    std::vector<std::size_t> members;
    for (const std::string& part : group.parts) {
      const auto found = by_part.find(part);
      if (found == by_part.end()) continue;
      members.insert(members.end(), found->second.begin(), found->second.end());
    }
    if (members.empty()) continue;
    result.groups.push_back({group.name, members.size(), metrics_of(members)});
  }
}

/// What the results of all tasks with prompts have in common.
[[nodiscard]] inline TaskResult result_of(const std::string& name, const Prompts& prompts) {
  TaskResult r;
  r.task = name;
  r.shots = prompts.shots();
  r.documents = prompts.size();
  r.original_documents = prompts.data().questions.size();
  r.id = prompts.data().definition.id();
  r.source = prompts.data().definition.source;
  r.prompt_form = prompts.form();
  for (const auto& [why, count] : prompts.data().left_out) {
    r.notes.push_back(espalier::detail::concat({count, " rows are left out: ", why}));
  }
  return r;
}

/// The key of a task's journal: another definition under the same name is refused.
[[nodiscard]] inline JournalKey journal_key(const Session& session, const TaskDefinition& d) {
  return {d.id() + " " + d.hash, session.fingerprint, session.computed_by};
}

/// Adds to a line of the journal how question `i` was asked.
inline void describe_prompt(const Prompts& prompts, std::size_t i, bool cut, io::Json& line) {
  const Question& q = prompts.question(i);
  if (!q.part.empty()) line["part"] = q.part;
  line["shots"] = prompts.shots();
  line["cut"] = cut;
  line["contexts"] = io::Json::array();
  for (std::size_t c = 0; c < q.contexts.size(); ++c) {
    line["contexts"].push_back(prompts.context(i, c));
  }
}

}  // namespace espalier::eval
