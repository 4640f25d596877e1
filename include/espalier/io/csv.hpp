// SPDX-License-Identifier: Apache-2.0
// Comma-separated values as spreadsheets write them (RFC 4180): cells in quotes may hold commas,
// line feeds and doubled quotes. A byte order mark, and \r before \n, are skipped.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/csv.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>

namespace espalier::io {

struct CsvRow {
  std::vector<std::string> cells;
  std::size_t line = 1;  // where it begins, from 1
};

/// Every row, in order; empty lines are no rows.
/// @param source named in messages
/// @throws FormatError naming the line, for a quote that does not end, text behind a closing quote,
/// or a row of another length than the first
[[nodiscard]] std::vector<CsvRow> parse_csv(std::string_view text, const std::string& source);

}  // namespace espalier::io

#ifdef ESP_BODIES
namespace espalier::io {

namespace detail {

class CsvReader {
 public:
  CsvReader(std::string_view text, const std::string& source) : text_(text), source_(source) {
    if (text_.starts_with("\xef\xbb\xbf")) text_.remove_prefix(3);
  }

  std::vector<CsvRow> read() {
    std::vector<CsvRow> rows;
    while (at_ < text_.size()) {
      CsvRow row;
      row.line = line_;
      do {
        row.cells.push_back(at_ < text_.size() && text_[at_] == '"' ? quoted() : plain());
      } while (take(','));
      if (at_ < text_.size()) ++at_, ++line_;
      if (row.cells.size() == 1 && row.cells[0].empty()) continue;
      ESP_REQUIRE(rows.empty() || row.cells.size() == rows[0].cells.size(), FormatError, source_,
                  ": line ", row.line, ": ", row.cells.size(), " cells, the first row has ",
                  rows[0].cells.size());
      rows.push_back(std::move(row));
    }
    return rows;
  }

 private:
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  /// Is this the end of a row? Skips a carriage return.
  bool at_end() {
    if (text_.substr(at_, 2) == "\r\n") ++at_;
    return at_ >= text_.size() || text_[at_] == '\n';
  }
  std::string plain() {
    std::string cell;
    while (!at_end() && text_[at_] != ',') cell += text_[at_++];
    return cell;
  }
  std::string quoted() {
    const std::size_t begin = line_;
    std::string cell;
    for (++at_;; ++at_) {
      ESP_REQUIRE(at_ < text_.size(), FormatError, source_, ": line ", begin,
                  ": a quote that does not end");
      if (text_[at_] == '"' && !(at_ + 1 < text_.size() && text_[at_ + 1] == '"')) break;
      if (text_[at_] == '"') ++at_;
      if (text_[at_] == '\n') ++line_;
      cell += text_[at_];
    }
    ++at_;
    ESP_REQUIRE(at_end() || text_[at_] == ',', FormatError, source_, ": line ", line_,
                ": text behind a closing quote");
    return cell;
  }

  std::string_view text_;
  const std::string& source_;
  std::size_t at_ = 0, line_ = 1;
};

}  // namespace detail

ESP_INLINE std::vector<CsvRow> parse_csv(std::string_view text, const std::string& source) {
  return detail::CsvReader(text, source).read();
}

}  // namespace espalier::io
#endif
