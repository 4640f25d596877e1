// SPDX-License-Identifier: Apache-2.0
// Answers likelihood requests of another program: reads lines {"context": ..., "continuation":
// ...}, writes lines {"logprob": sum, "greedy": ..., "tokens": of the continuation} in the same
// order. Tokens are split as in lm-evaluation-harness (encode_pair.hpp).
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/requests.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/eval/session.hpp>

namespace espalier::eval {

/// Writes requests.jsonl, which appears when complete. An interrupted run leaves the journal
/// requests.partial.jsonl; a run with `session.resume` continues from it.
/// @returns the number of requests
/// @throws IoError if the folder holds answers and the run does not resume; FormatError
inline std::size_t answer_requests(const Session& session, const std::filesystem::path& file,
                                   std::int64_t limit = -1) {
  const auto result = session.output / "requests.jsonl";
  const auto partial = session.output / "requests.partial.jsonl";
  for (const auto& path : {result, partial}) require_fresh(path, session.resume);
  std::vector<std::vector<infer::Continuation>> asked;
  std::vector<Journal::Question> keys;
  const std::string text = io::read_text(file);
  io::for_each_json_line(text, file.string(), [&](const io::Json& row, std::size_t) {
    if (limit >= 0 && asked.size() >= static_cast<std::size_t>(limit)) return;
    try {
      asked.push_back({encode_pair(session.encode, session.start, row.at("context").as_string(),
                                   row.at("continuation").as_string())});
      cut_left(asked.back()[0], session.max_length);
    } catch (const FormatError& e) {
      const std::string where = row.where(), what = e.what();
      if (what.starts_with(where)) throw;
      throw FormatError(where + ": " + what);
    }
    keys.push_back({static_cast<std::int64_t>(keys.size()), prompt_fingerprint(asked.back())});
  });
  Journal journal(partial, "id", {"requests", session.fingerprint, session.computed_by},
                  std::move(keys), session.resume);
  score_missing(session, "requests", journal, asked, [&](std::size_t i, auto found) {
    io::Json line = io::Json::object();
    line["logprob"] = found[0].log_prob;
    line["greedy"] = found[0].greedy;
    line["tokens"] = asked[i][0].continuation.size();
    return line;
  });
  std::string lines;
  for (std::size_t i = 0; i < journal.size(); ++i) {
    io::Json line = journal.entry(i);
    for (const char* key : {"id", "prompt", "task", "model", "computed_by"}) line.erase(key);
    lines += io::dump(line) + '\n';
  }
  io::write_text(result, lines);
  std::filesystem::remove(partial);
  return journal.size();
}

}  // namespace espalier::eval
