// SPDX-License-Identifier: Apache-2.0
// What a model wrote, after the right answer on the first line, by every metric of answers.
#include <espalier/eval/metrics/named_metrics.hpp>
#include <espalier/eval/wikitext.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  const std::string gold(text.substr(0, end)), answer(text.substr(std::min(end + 1, text.size())));
  for (const eval::metrics::AnswerMetric& metric : eval::metrics::answer_metrics()) {
    fuzz::accepts([&] {
      for (const auto& [name, score] : metric.scores({{gold}, {answer}, 4, gold})) {
        fuzz::require(!name.empty());
      }
    });
  }
  fuzz::accepts([&] { (void)eval::detokenize_wikitext(answer); });
}
