// SPDX-License-Identifier: Apache-2.0
// Scores of experts as heatmaps: a plot per criterion, layers down, experts across.
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/score_heatmaps.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>

#include <espalier/plot/heatmap.hpp>
#include <espalier/prune/criteria.hpp>
#include <espalier/prune/plan.hpp>

namespace espalier::prune {

/// The heatmap of one criterion's scores. Layers without a mixture are grey. With `mark_keep` > 0
/// the experts are struck through that keeping so many of each layer would drop; `groups` as
/// plan_from_scores takes it.
[[nodiscard]] plot::Heatmap score_heatmap(const std::string& criterion, const LayerScores& layers,
                                          std::int64_t mark_keep = 0, std::int64_t groups = 1);

/// CRITERION.png and CRITERION.svg of every criterion, in a folder that is there. Returns which of
/// them failed, and why: a picture is not worth failed work.
[[nodiscard]] std::vector<std::string> write_heatmaps(const std::filesystem::path& folder,
                                                      const Scores& scores,
                                                      std::int64_t mark_keep = 0,
                                                      std::int64_t groups = 1);

}  // namespace espalier::prune

#ifdef ESP_BODIES
namespace espalier::prune {

ESP_INLINE plot::Heatmap score_heatmap(const std::string& criterion, const LayerScores& layers,
                                       std::int64_t mark_keep, std::int64_t groups) {
  plot::Heatmap map;
  map.title = criterion;
  if (const Criterion* known = find_criterion(criterion)) map.value_label = known->meaning;
  map.values = layers;
  std::size_t widest = 0;
  for (const std::vector<double>& layer : layers) widest = std::max(widest, layer.size());
  for (std::vector<double>& row : map.values) row.resize(widest, std::nan(""));
  if (mark_keep == 0) return map;
  const Plan plan = plan_from_scores(layers, mark_keep, groups);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    map.dropped.emplace_back();
    for (std::size_t e = 0; e < layers[l].size(); ++e) {
      map.dropped.back().push_back(!plan.keeps(l, static_cast<int>(e)));
    }
    map.dropped.back().resize(widest, false);
  }
  return map;
}

ESP_INLINE std::vector<std::string> write_heatmaps(const std::filesystem::path& folder,
                                                   const Scores& scores, std::int64_t mark_keep,
                                                   std::int64_t groups) {
  std::vector<std::string> failed;
  for (const auto& [name, layers] : scores.criteria) {
    const plot::Heatmap map = score_heatmap(name, layers, mark_keep, groups);
    for (const char* extension : {".png", ".svg"}) {
      std::string reason = plot::save_or_reason(map, folder / (name + extension));
      if (!reason.empty()) failed.push_back(std::move(reason));
    }
  }
  return failed;
}

}  // namespace espalier::prune
#endif
