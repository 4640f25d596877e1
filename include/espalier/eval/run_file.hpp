// SPDX-License-Identifier: Apache-2.0
// Writes run.json: time, tokens and machine of an evaluation, on which the results do not depend.
// The file is a list of sessions; a resumed run appends its own.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/run_file.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <string>

#include <espalier/core/peak_memory.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/io/json.hpp>
#include <espalier/ops/cpu/isa.hpp>

namespace espalier::eval {

[[nodiscard]] inline double seconds_since_1970() {
  using namespace std::chrono;
  return duration<double>(system_clock::now().time_since_epoch()).count();
}

/// "2026-11-30T16:12:00Z"
[[nodiscard]] inline std::string date_text(double seconds) {
  const auto t = static_cast<std::time_t>(seconds);
  std::tm utc = {};
  gmtime_r(&t, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

struct RunSession {
  std::string command;       // that resumes the run
  double begin_seconds = 0;  // since 1970
  std::int64_t tokens = 0;   // that went through the model
  bool finished = false;
};

/// @param keep_earlier keep the sessions in the file. A damaged file is replaced: times are not
/// worth a failed run
ESP_INLINE void write_run_file(const std::filesystem::path& folder, const RunSession& session,
                               bool keep_earlier) {
  const std::filesystem::path path = folder / "run.json";
  io::Json file = io::Json::object();
  file["sessions"] = io::Json::array();
  if (keep_earlier && std::filesystem::exists(path)) {
    try {
      const io::Json earlier = io::read_json(path);
      for (const io::Json& s : earlier.at("sessions").items()) file["sessions"].push_back(s);
    } catch (const Error&) {
      file["sessions"] = io::Json::array();
    }
  }
  const double end = seconds_since_1970(), seconds = end - session.begin_seconds;
  io::Json s = io::Json::object();
  s["command"] = session.command;
  s["finished"] = session.finished;
  s["start_date"] = date_text(session.begin_seconds);
  s["end_date"] = date_text(end);
  s["seconds"] = seconds;
  s["tokens"] = session.tokens;
  s["tokens_per_second"] = static_cast<double>(session.tokens) / std::max(seconds, 1e-9);
  s["threads"] = num_threads();
  s["instructions"] = cpu::name(cpu::isa());
  s["peak_memory_bytes"] = peak_memory_bytes();
  file["sessions"].push_back(std::move(s));
  io::write_text(path, io::dump(file, 2) + "\n");
}

}  // namespace espalier::eval
