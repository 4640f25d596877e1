// SPDX-License-Identifier: Apache-2.0
// A pruning plan: the experts to keep. On disk pruning_plan.json, {"keep": [[0, 2, 5], ...],
// "provenance": {...}}: per layer the ids of the kept experts, ascending; [] for a layer without a
// mixture. The provenance may be absent. Layers of multi-token prediction may follow, all or none.
// A plan may come from scores or from elsewhere, so it is checked in full before a file is written.
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/plan.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <numeric>

#include <espalier/hub/checkpoint.hpp>
#include <espalier/prune/scores.hpp>

namespace espalier::prune {

inline constexpr const char* kPlanFile = "pruning_plan.json";

struct Plan {
  std::vector<std::vector<int>> keep;  // [layer], ascending
  io::Json provenance = io::Json::object();

  bool keeps(std::size_t layer, int expert) const {
    return std::binary_search(keep[layer].begin(), keep[layer].end(), expert);
  }
  /// Number of a kept expert in the pruned model.
  int new_id(std::size_t layer, int expert) const {
    const auto it = std::lower_bound(keep[layer].begin(), keep[layer].end(), expert);
    return static_cast<int>(it - keep[layer].begin());
  }
};

/// Keeps the `count` experts of each layer with the highest scores; of equal scores the lower ids.
/// With `groups` > 1, equally many of each group: no other choice can be exported.
/// @throws UsageError where a layer has fewer experts, or the groups cannot be equal
[[nodiscard]] inline Plan plan_from_scores(const LayerScores& scores, std::int64_t count,
                                           std::int64_t groups = 1) {
  ESP_REQUIRE(count % groups == 0, UsageError, "cannot keep ", count,
              " experts per layer: the router chooses from ", groups,
              " groups, which must stay equal; keep a multiple of ", groups);
  Plan plan;
  for (const std::vector<double>& layer : scores) {
    if (layer.empty()) {  // no mixture here
      plan.keep.emplace_back();
      continue;
    }
    ESP_REQUIRE(count >= 1 && std::cmp_less_equal(count, layer.size()), UsageError, "cannot keep ",
                count, " experts per layer, the model has ", layer.size());
    std::vector<int> kept, order(layer.size() / static_cast<std::size_t>(groups));
    for (std::int64_t g = 0; g < groups; ++g) {
      std::iota(order.begin(), order.end(), static_cast<int>(g) * static_cast<int>(order.size()));
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        return layer[static_cast<std::size_t>(a)] > layer[static_cast<std::size_t>(b)];
      });
      kept.insert(kept.end(), order.begin(), order.begin() + count / groups);
    }
    std::sort(kept.begin(), kept.end());
    plan.keep.push_back(std::move(kept));
  }
  return plan;
}

namespace detail {
inline std::vector<int> parse_kept_ids(const io::Json& layer, std::size_t l,
                                       const std::string& source) {
  const auto refuse = [&](const auto&... why) {
    throw FormatError(espalier::detail::concat({source, ": layer ", l, ": ", why...}));
  };
  if (!layer.is_array()) refuse("expected an array of expert ids, found ", layer.kind_name());
  std::vector<int> ids;
  for (const io::Json& item : layer.items()) {
    if (item.kind() != io::Json::Kind::integer) {
      refuse("expert id ", io::dump(item), " is not an integer");
    }
    const std::int64_t id = item.as_int();
    if (id < 0 || id > 0xffff) refuse("expert id ", id, " is out of range");
    const int expert = static_cast<int>(id);
    if (!ids.empty() && expert <= ids.back()) {
      const bool twice = std::binary_search(ids.begin(), ids.end(), expert);
      if (twice) refuse("expert id ", id, " stands twice");
      refuse("expert id ", id, " stands after ", ids.back(), ", expected ascending ids");
    }
    ids.push_back(expert);
  }
  return ids;
}
}  // namespace detail

/// @throws FormatError naming `source`, and the unknown key or the layer and the id
[[nodiscard]] inline Plan parse_plan(const io::Json& json, const std::string& source) {
  ESP_REQUIRE(json.is_object(), FormatError, source, ": expected an object with \"keep\", found ",
              json.kind_name());
  for (const io::Json::Member& m : json.members()) {
    ESP_REQUIRE(m.key == "keep" || m.key == "provenance", FormatError, source, ": unknown key \"",
                m.key, "\"; a plan has \"keep\" and may have \"provenance\"");
  }
  const io::Json& keep = json.at("keep");
  ESP_REQUIRE(keep.is_array(), FormatError, source,
              ": \"keep\": expected an array with the kept ids of each layer, found ",
              keep.kind_name());
  Plan plan;
  for (const io::Json& layer : keep.items()) {
    plan.keep.push_back(detail::parse_kept_ids(layer, plan.keep.size(), source));
  }
  if (const io::Json* provenance = json.find_value("provenance")) plan.provenance = *provenance;
  return plan;
}

/// @throws IoError, FormatError
[[nodiscard]] inline Plan read_plan(const std::filesystem::path& path) {
  return parse_plan(io::read_json(path), path.string());
}

[[nodiscard]] inline std::string plan_json(const Plan& plan) {
  std::string text = "{\n  \"keep\": [";
  for (std::size_t l = 0; l < plan.keep.size(); ++l) {
    text += (l > 0 ? ",\n    " : "\n    ") + io::dump_python(io::Json::array(plan.keep[l]));
  }
  return text + "\n  ],\n  \"provenance\": " + io::dump_python(plan.provenance) + "\n}\n";
}

/// Checks that the plan fits the model and keeps enough experts for the router in each layer.
/// Counts may differ between layers: a mask can do that, a checkpoint cannot (check_exportable).
/// @throws FormatError naming `source`, the layer and the id
void check_plan_fits(const Plan& plan, const hub::Mixture& model, const std::string& source);

/// Checks what loaders demand of a checkpoint: equally many experts in every layer, and of every
/// group where experts are chosen from groups.
/// @throws FormatError naming `source` and the layer
void check_exportable(const Plan& plan, const hub::Mixture& model, const std::string& source);

/// Experts per layer after an exportable plan.
[[nodiscard]] inline std::int64_t kept_count(const Plan& plan) {
  for (const std::vector<int>& layer : plan.keep) {
    if (!layer.empty()) return static_cast<std::int64_t>(layer.size());
  }
  return 0;
}

}  // namespace espalier::prune

#ifdef ESP_BODIES
namespace espalier::prune {

ESP_INLINE void check_plan_fits(const Plan& plan, const hub::Mixture& model,
                                const std::string& source) {
  ESP_REQUIRE(model.experts > 0, FormatError, source,
              ": the model is dense, it has no experts to drop");
  const auto layers = static_cast<std::size_t>(model.layers);
  const std::size_t more = model.prediction.size();
  const std::string or_more =
      more == 0 ? std::string()
                : espalier::detail::concat({" and ", more, " for multi-token prediction; expected ",
                                            layers, " or ", layers + more});
  ESP_REQUIRE(plan.keep.size() == layers || plan.keep.size() == layers + more, FormatError, source,
              ": has ", plan.keep.size(), " layers, the model has ", model.layers, or_more);
  for (std::size_t l = 0; l < plan.keep.size(); ++l) {
    if (l < layers && !model.has(l)) {
      ESP_REQUIRE(plan.keep[l].empty(), FormatError, source, ": layer ", l, " keeps ",
                  plan.keep[l].size(), " experts, but it is dense; expected []");
      continue;
    }
    ESP_REQUIRE(!plan.keep[l].empty(), FormatError, source, ": layer ", l, ": keeps no expert");
    for (const int id : plan.keep[l]) {
      ESP_REQUIRE(id >= 0 && id < model.experts, FormatError, source, ": layer ", l, ": expert id ",
                  id, " is out of range, the model has ", model.experts, " experts (0 to ",
                  model.experts - 1, ")");
    }
    ESP_REQUIRE(std::cmp_greater_equal(plan.keep[l].size(), model.top_k), FormatError, source,
                ": layer ", l, " keeps ", plan.keep[l].size(),
                " experts, but num_experts_per_tok is ", model.top_k, "; keep at least as many");
  }
}

ESP_INLINE void check_exportable(const Plan& plan, const hub::Mixture& model,
                                 const std::string& source) {
  const auto count = static_cast<std::size_t>(kept_count(plan));
  std::size_t first = 0;
  while (first < plan.keep.size() && plan.keep[first].empty()) ++first;
  for (std::size_t l = first; l < plan.keep.size(); ++l) {
    const std::vector<int>& kept = plan.keep[l];
    if (kept.empty()) continue;
    ESP_REQUIRE(kept.size() == count, FormatError, source, ": layer ", l, " keeps ", kept.size(),
                " experts, layer ", first, " keeps ", count,
                "; config.json has one number of experts for all layers, and transformers, vLLM "
                "and llama.cpp load nothing else: keep equally many in every layer");
    if (model.groups <= 1) continue;
    // With unequal groups, loaders would put an expert into another group.
    std::vector<std::int64_t> of_group(static_cast<std::size_t>(model.groups));
    for (const int id : kept)
      ++of_group[static_cast<std::size_t>(id / (model.experts / model.groups))];
    for (std::size_t g = 0; g < of_group.size(); ++g) {
      ESP_REQUIRE(of_group[g] == of_group[0], FormatError, source, ": layer ", l, " keeps ",
                  of_group[g], " experts of group ", g, " and ", of_group[0],
                  " of group 0; the router chooses from ", model.groups,
                  " equal groups: keep equally many of each");
    }
    ESP_REQUIRE(!model.groups_by_best_two || of_group[0] >= 2, FormatError, source, ": layer ", l,
                " keeps one expert of each group; the router scores a group by its best two: keep "
                "at least two of each");
    ESP_REQUIRE(model.top_groups * of_group[0] >= model.top_k, FormatError, source, ": layer ", l,
                ": the ", model.top_groups, " groups that a token chooses from keep ",
                model.top_groups * of_group[0], " experts, but ", model.top_k,
                " are chosen per token");
  }
}

}  // namespace espalier::prune
#endif
