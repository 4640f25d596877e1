// SPDX-License-Identifier: Apache-2.0
// What programs that write a checkpoint say: a bar while they write, and a line or a JSON object at
// the end.
#pragma once

#include <optional>
#include <string>

#include <espalier/hub/synthetic.hpp>

#include "cli/print.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace espalier {

/// Shows the bytes written so far; ends the program where the user asked for it.
class WritingProgress {
 public:
  void operator()(std::size_t done, std::size_t total) {
    if (!bar_) bar_.emplace("writing", megabytes(total), "MB");
    bar_->update(megabytes(done));
    if (done == total) {
      bar_->finish();
    } else if (interrupted()) {
      throw Interrupted("interrupted; nothing was written");
    }
  }

 private:
  static std::int64_t megabytes(std::size_t bytes) {
    return static_cast<std::int64_t>(bytes / 1000000);
  }
  std::optional<Progress> bar_;
};

/// @param more keys of the JSON object, between its output and its sizes; `words` is their text
inline void print_written(const std::string& output, const hub::WrittenSizes& sizes, bool json,
                          const io::Json& more = io::Json::object(),
                          const std::string& words = {}) {
  if (!json) {
    print("{}: {}{} tensors in {} shard{}, {}\n", output, words, sizes.tensors, sizes.shards,
          sizes.shards == 1 ? "" : "s", format_bytes(static_cast<double>(sizes.bytes)));
    return;
  }
  io::Json result = io::Json::object();
  result["output"] = output;
  for (const io::Json::Member& m : more.members()) result[m.key] = m.value;
  result["tensors"] = sizes.tensors;
  result["shards"] = sizes.shards;
  result["bytes"] = sizes.bytes;
  print("{}\n", io::dump(result));
}

}  // namespace espalier
