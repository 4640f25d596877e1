// SPDX-License-Identifier: Apache-2.0
// Scores of experts: per criterion a number for each layer and expert, higher = keep. On disk
// scores.json, {"criteria": {name: [layer][expert]}, "provenance": {...}}, of which the criteria
// alone are enough; and scores.csv, a line per expert, for spreadsheets.
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/scores.hpp is host-only; include it from a .cpp"
#endif

#include <cmath>

#include <espalier/hub/checkpoint.hpp>
#include <espalier/io/json.hpp>

namespace espalier::prune {

using LayerScores = std::vector<std::vector<double>>;  // [layer][expert]

struct Scores {
  std::vector<std::pair<std::string, LayerScores>> criteria;  // in the order of the file
  io::Json provenance = io::Json::object();

  const LayerScores* find(std::string_view criterion) const {
    for (const auto& [name, scores] : criteria) {
      if (name == criterion) return &scores;
    }
    return nullptr;
  }
  /// @throws UsageError that lists the known criteria
  const LayerScores& at(std::string_view criterion, const std::string& source) const {
    const LayerScores* found = find(criterion);
    if (found != nullptr) return *found;
    std::string known;
    for (const auto& [name, scores] : criteria) known += (known.empty() ? "" : ", ") + name;
    throw UsageError(espalier::detail::concat(
        {source, ": no criterion \"", criterion, "\"; there are: ", known}));
  }
};

/// Checks that every expert has a finite score, all layers the same number of experts, and all
/// criteria the same layers.
/// @throws FormatError naming `source`, the criterion, and the layer
inline void check_scores(const Scores& scores, const std::string& source) {
  ESP_REQUIRE(!scores.criteria.empty(), FormatError, source, ": \"criteria\" is empty");
  const auto& [reference, shape] = scores.criteria.front();
  for (const auto& [name, layers] : scores.criteria) {
    ESP_REQUIRE(!layers.empty(), FormatError, source, ": criterion \"", name, "\" has no layers");
    std::size_t first = 0;  // layers without a mixture have no scores
    while (first < layers.size() && layers[first].empty()) ++first;
    ESP_REQUIRE(first < layers.size(), FormatError, source, ": criterion \"", name,
                "\": no layer has experts");
    ESP_REQUIRE(layers.size() == shape.size(), FormatError, source, ": criterion \"", name,
                "\" has ", layers.size(), " layers, \"", reference, "\" has ", shape.size());
    for (std::size_t l = 0; l < layers.size(); ++l) {
      ESP_REQUIRE(layers[l].empty() || layers[l].size() == layers[first].size(), FormatError,
                  source, ": criterion \"", name, "\": layer ", l, " has ", layers[l].size(),
                  " experts, layer ", first, " has ", layers[first].size());
      ESP_REQUIRE(layers[l].size() == shape[l].size(), FormatError, source, ": criterion \"", name,
                  "\": layer ", l, " has ", layers[l].size(), " experts, of \"", reference,
                  "\" it has ", shape[l].size());
      for (std::size_t e = 0; e < layers[l].size(); ++e) {
        ESP_REQUIRE(std::isfinite(layers[l][e]), FormatError, source, ": criterion \"", name,
                    "\": layer ", l, ", expert ", e, ": the score is ", layers[l][e],
                    ", expected a finite number");
      }
    }
  }
}

/// @throws FormatError where the scores are those of a model of another size
inline void check_scores_fit(const std::string& criterion, const LayerScores& scores,
                             const hub::Mixture& model, const std::string& source) {
  ESP_REQUIRE(std::cmp_equal(scores.size(), model.layers), FormatError, source, ": criterion \"",
              criterion, "\" has ", scores.size(), " layers, the model has ", model.layers);
  for (std::size_t l = 0; l < scores.size(); ++l) {
    const std::int64_t experts = model.has(l) ? model.experts : 0;
    ESP_REQUIRE(std::cmp_equal(scores[l].size(), experts), FormatError, source, ": criterion \"",
                criterion, "\": layer ", l, " has ", scores[l].size(), " experts, the model has ",
                experts);
  }
}

[[nodiscard]] inline Scores parse_scores(const io::Json& json, const std::string& source) {
  Scores scores;
  for (const io::Json::Member& criterion : json.at("criteria").members()) {
    LayerScores layers;
    ESP_REQUIRE(criterion.value.is_array(), FormatError, source, ": criterion \"", criterion.key,
                "\": expected an array of layers, found ", criterion.value.kind_name());
    for (const io::Json& layer : criterion.value.items()) {
      const std::size_t l = layers.size();
      ESP_REQUIRE(layer.is_array(), FormatError, source, ": criterion \"", criterion.key,
                  "\": layer ", l, ": expected an array of scores, found ", layer.kind_name());
      layers.emplace_back();
      for (const io::Json& score : layer.items()) {
        ESP_REQUIRE(score.is_number(), FormatError, source, ": criterion \"", criterion.key,
                    "\": layer ", l, ", expert ", layers[l].size(), ": expected a number, found ",
                    score.kind_name());
        layers[l].push_back(score.as_double());
      }
    }
    scores.criteria.emplace_back(criterion.key, std::move(layers));
  }
  if (const io::Json* provenance = json.find_value("provenance")) scores.provenance = *provenance;
  check_scores(scores, source);
  return scores;
}

/// @throws IoError, FormatError naming the file, the criterion, the layer
[[nodiscard]] inline Scores read_scores(const std::filesystem::path& path) {
  return parse_scores(io::read_json(path), path.string());
}

[[nodiscard]] inline std::string scores_json(const Scores& scores) {
  // A line per layer; io::dump would write one per number, or one in all.
  std::string text = "{\n  \"criteria\": {";
  for (std::size_t c = 0; c < scores.criteria.size(); ++c) {
    const auto& [name, layers] = scores.criteria[c];
    text += (c > 0 ? ",\n    " : "\n    ") + io::dump(io::Json(name)) + ": [";
    for (std::size_t l = 0; l < layers.size(); ++l) {
      text += (l > 0 ? ",\n      " : "\n      ") + io::dump(io::Json::array(layers[l]));
    }
    text += "\n    ]";
  }
  return text + "\n  },\n  \"provenance\": " + io::dump(scores.provenance) + "\n}\n";
}

/// layer,expert,criterion,criterion,...
[[nodiscard]] inline std::string scores_csv(const Scores& scores) {
  std::string text = "layer,expert";
  for (const auto& [name, layers] : scores.criteria) text += "," + name;
  text += "\n";
  if (scores.criteria.empty()) return text;
  const LayerScores& first = scores.criteria[0].second;
  for (std::size_t l = 0; l < first.size(); ++l) {
    for (std::size_t e = 0; e < first[l].size(); ++e) {
      text += std::to_string(l) + "," + std::to_string(e);
      for (const auto& [name, layers] : scores.criteria) {
        text += ',';  // not "," + dump: g++ 12 warns of it at -O3 (-Wrestrict)
        text += io::dump(layers[l][e]);
      }
      text += "\n";
    }
  }
  return text;
}

/// Writes scores.json and scores.csv.
/// @throws FormatError as check_scores, IoError
inline void write_scores(const std::filesystem::path& folder, const Scores& scores) {
  check_scores(scores, (folder / "scores.json").string());
  io::write_text(folder / "scores.csv", scores_csv(scores));
  io::write_text(folder / "scores.json", scores_json(scores));
}

}  // namespace espalier::prune
