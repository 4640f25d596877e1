// SPDX-License-Identifier: Apache-2.0
// Criteria from a calibration pass, all from the routed tokens only. T_e are the tokens of expert
// e, g their gates after top-k and renormalisation, f_e(x) the expert's output before the gate:
//   frequency |T_e|         soft_frequency Σ g         ean Σ ‖f‖ (Jaiswal et al. 2025, 2504.05586)
//   reap Σ g‖f‖ / |T_e| (Lasby et al. 2025, 2510.13999)   man Σ‖f‖ / |T_e|   msan Σ‖f‖² / |T_e|
//   max_activation max |f_i|            Means over no tokens are 0. Sums are doubles in row order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <espalier/core/dtype.hpp>
#include <espalier/core/threads.hpp>

namespace espalier::prune {

class ActivationScores {
 public:
  ActivationScores(std::int64_t layers, std::int64_t experts)
      : sums_(static_cast<std::size_t>(layers),
              std::vector<Sums>(static_cast<std::size_t>(experts))) {}

  /// Gives a layer without a mixture no scores.
  void remove_layer(std::int64_t layer) { sums_.at(static_cast<std::size_t>(layer)).clear(); }

  /// Rows of expert e are [offsets[e], offsets[e+1]); `gates` [R] and `outputs` [R, hidden] are in
  /// that order. Repeated calls for a layer add up in their order.
  template <class T>
  void add(std::int64_t layer, std::span<const std::int64_t> offsets,
           std::span<const acc_t<T>> gates, std::span<const T> outputs, std::int64_t hidden) {
    auto& experts = sums_.at(static_cast<std::size_t>(layer));
    const auto rows = static_cast<std::int64_t>(gates.size());
    ESP_REQUIRE(offsets.size() == experts.size() + 1 && offsets.back() == rows, ShapeError,
                "activation_scores: ", offsets.size(), " offsets over ", rows, " rows for ",
                experts.size(), " experts");
    ESP_REQUIRE(static_cast<std::int64_t>(outputs.size()) == rows * hidden, ShapeError,
                "activation_scores: outputs has ", outputs.size(), " values, expected ", rows,
                " x ", hidden);
    std::vector<Row> norms(gates.size());
    parallel_for(rows, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        norms[static_cast<std::size_t>(r)] = measure(outputs.data() + r * hidden, hidden);
      }
    });
    for (std::size_t e = 0; e < experts.size(); ++e) {
      for (std::int64_t r = offsets[e]; r < offsets[e + 1]; ++r) {
        const auto i = static_cast<std::size_t>(r);
        experts[e].add(static_cast<double>(gates[i]), norms[i]);
      }
    }
  }

  /// [layer][expert]. @throws UsageError for a name that is not one of the seven
  std::vector<std::vector<double>> scores(std::string_view criterion) const {
    std::vector<std::vector<double>> out;
    for (const auto& layer : sums_) {
      out.emplace_back();
      for (const Sums& s : layer) out.back().push_back(s.score(criterion));
    }
    return out;
  }

 private:
  struct Row {
    double squares = 0, largest = 0;
  };
  struct Sums {
    double tokens = 0, gates = 0, norms = 0, gated_norms = 0, squares = 0, largest = 0;

    void add(double gate, const Row& row) {
      const double norm = std::sqrt(row.squares);
      tokens += 1;
      gates += gate;
      norms += norm;
      gated_norms += gate * norm;
      squares += row.squares;
      // Unlike std::max, propagates NaN.
      if (!(row.largest <= largest)) largest = row.largest;
    }
    double score(std::string_view criterion) const {
      const double n = std::max(tokens, 1.0);
      if (criterion == "frequency") return tokens;
      if (criterion == "soft_frequency") return gates;
      if (criterion == "ean") return norms;
      if (criterion == "reap") return gated_norms / n;
      if (criterion == "man") return norms / n;
      if (criterion == "msan") return squares / n;
      if (criterion == "max_activation") return largest;
      throw UsageError(
          espalier::detail::concat({"activation_scores: unknown criterion \"", criterion, "\""}));
    }
  };

  template <class T>
  static Row measure(const T* x, std::int64_t n) {
    Row row;
    for (std::int64_t i = 0; i < n; ++i) {
      const double v = static_cast<double>(static_cast<acc_t<T>>(x[i]));
      row.squares += v * v;
      const double a = std::abs(v);
      if (!(a <= row.largest)) row.largest = a;
    }
    return row;
  }

  std::vector<std::vector<Sums>> sums_;
};

}  // namespace espalier::prune
