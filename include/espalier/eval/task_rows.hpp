// SPDX-License-Identifier: Apache-2.0
// Finds and reads the rows of a task: JSON lines, a JSON array, or CSV, as data sets are published.
//   DATA/gsm8k.jsonl, DATA/gsm8k_test.jsonl, DATA/gsm8k/test.jsonl, DATA/gsm8k/test/*.jsonl
// and the like with .json and .csv, also below DATA/multiple_choice.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/task_rows.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <espalier/io/json.hpp>

namespace espalier::eval {

/// The files of one split, sorted by name; empty where there is none.
/// @param names of the data set, tried in this order
/// @param splits tried in this order; "" stands for a file without a split in its name
[[nodiscard]] std::vector<std::filesystem::path> find_rows(const std::filesystem::path& data,
                                                           const std::vector<std::string>& names,
                                                           const std::vector<std::string>& splits);

/// Calls `body` for each row, an object. A row of CSV has the columns that the first line names, as
/// strings; where the first line is no header (Hendrycks' MMLU), they are question, A, B, C, D and
/// answer. Each row gets the column "file", unless it has one: the file's name without its
/// extension and without "_test", "_dev" or "_val", which is the subject of MMLU's.
/// @throws FormatError naming file and line; IoError
void for_each_row(const std::vector<std::filesystem::path>& files,
                  const std::function<void(const io::Json& row)>& body);

}  // namespace espalier::eval

#ifdef ESP_BODIES
#include <algorithm>

#include <espalier/io/csv.hpp>
#include <espalier/io/jsonl.hpp>

namespace espalier::eval {

namespace detail {

inline constexpr const char* kRowExtensions[] = {".jsonl", ".json", ".csv"};

inline bool holds_rows(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  return std::find(std::begin(kRowExtensions), std::end(kRowExtensions), extension) !=
         std::end(kRowExtensions);
}

/// `stem` with an extension, or the files of the folder `stem`.
inline std::vector<std::filesystem::path> rows_at(const std::filesystem::path& stem) {
  std::error_code ignored;
  for (const char* extension : kRowExtensions) {
    std::filesystem::path file = stem;
    file += extension;
    if (std::filesystem::is_regular_file(file, ignored)) return {file};
  }
  std::vector<std::filesystem::path> files;
  for (const auto& e : std::filesystem::directory_iterator(stem, ignored)) {
    if (holds_rows(e.path())) files.push_back(e.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

/// "anatomy" of anatomy_test.csv.
inline std::string subject_of(const std::filesystem::path& file) {
  std::string stem = file.stem().string();
  for (const char* split : {"_test", "_dev", "_val"}) {
    if (stem.ends_with(split)) stem.resize(stem.size() - std::string_view(split).size());
  }
  return stem;
}

inline void for_each_csv_row(const std::filesystem::path& file,
                             const std::function<void(io::Json row)>& body) {
  const std::vector<io::CsvRow> rows = io::parse_csv(io::read_text(file), file.string());
  if (rows.empty()) return;
  std::vector<std::string> names = rows[0].cells;
  const bool header = std::count(names.begin(), names.end(), "question") +
                          std::count(names.begin(), names.end(), "prompt") >
                      0;
  if (!header) {
    names = {"question", "A", "B", "C", "D", "answer"};
    ESP_REQUIRE(rows[0].cells.size() == names.size(), FormatError, file.string(),
                ": line 1: neither a header with a column \"question\" or \"prompt\", nor the six "
                "columns of MMLU");
  }
  for (std::size_t i = header ? 1 : 0; i < rows.size(); ++i) {
    io::Json row = io::Json::object();
    for (std::size_t c = 0; c < names.size(); ++c) row[names[c]] = rows[i].cells[c];
    // Read anew, so that messages about a column name the line.
    body(io::parse_json(io::dump(row),
                        espalier::detail::concat({file.string(), ": line ", rows[i].line})));
  }
}

inline void for_each_row_of(const std::filesystem::path& file,
                            const std::function<void(io::Json row)>& body) {
  if (file.extension() == ".csv") return for_each_csv_row(file, body);
  if (file.extension() == ".json") {
    const io::Json rows = io::read_json(file);
    for (const io::Json& row : rows.items()) body(row);
    return;
  }
  io::for_each_json_line(io::read_text(file), file.string(),
                         [&](io::Json row, std::size_t) { body(std::move(row)); });
}

}  // namespace detail

ESP_INLINE std::vector<std::filesystem::path> find_rows(const std::filesystem::path& data,
                                                        const std::vector<std::string>& names,
                                                        const std::vector<std::string>& splits) {
  for (const std::string& name : names) {
    for (const std::string& split : splits) {
      for (const std::filesystem::path& folder : {data, data / "multiple_choice"}) {
        if (split.empty()) {
          for (const char* extension : detail::kRowExtensions) {
            std::error_code ignored;
            std::filesystem::path file = folder / (name + extension);
            if (std::filesystem::is_regular_file(file, ignored)) return {file};
          }
          continue;
        }
        for (const std::filesystem::path& stem :
             {folder / (name + "_" + split), folder / name / split}) {
          std::vector<std::filesystem::path> files = detail::rows_at(stem);
          if (!files.empty()) return files;
        }
      }
    }
  }
  return {};
}

ESP_INLINE void for_each_row(const std::vector<std::filesystem::path>& files,
                             const std::function<void(const io::Json& row)>& body) {
  for (const std::filesystem::path& file : files) {
    const std::string subject = detail::subject_of(file);
    detail::for_each_row_of(file, [&](io::Json row) {
      ESP_REQUIRE(row.is_object(), FormatError, row.where(), ": expected an object, found ",
                  row.kind_name());
      if (row.find("file") == nullptr) row["file"] = subject;
      body(row);
    });
  }
}

}  // namespace espalier::eval
#endif
