// SPDX-License-Identifier: Apache-2.0
// Which experts stay: pruning_plan.json, {"keep": [[0, 2, 5], ...], "provenance": {...}}, per layer
// the ids of the kept experts, ascending. `keep` alone is enough. A plan may come from scores or
// from elsewhere, so it is checked in full before anything is written.
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/plan.hpp is host-only; include it from a .cpp"
#endif

#include <numeric>

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

/// Per layer the `count` experts with the highest scores; of equal ones those with the lower id.
[[nodiscard]] inline Plan plan_from_scores(const LayerScores& scores, std::int64_t count) {
  Plan plan;
  for (const std::vector<double>& layer : scores) {
    ESP_REQUIRE(count >= 1 && std::cmp_less_equal(count, layer.size()), UsageError, "cannot keep ",
                count, " experts per layer, the model has ", layer.size());
    std::vector<int> order(layer.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return layer[static_cast<std::size_t>(a)] > layer[static_cast<std::size_t>(b)];
    });
    order.resize(static_cast<std::size_t>(count));
    std::sort(order.begin(), order.end());
    plan.keep.push_back(std::move(order));
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
  if (ids.empty()) refuse("keeps no expert");
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

/// Does the plan fit the model, with enough experts to choose from in each layer? Counts may
/// differ between layers: a mask can do that, a checkpoint cannot (see check_uniform).
/// @throws FormatError naming `source`, the layer and the id
inline void check_plan_fits(const Plan& plan, const MixtralConfig& model,
                            const std::string& source) {
  ESP_REQUIRE(model.num_local_experts > 0, FormatError, source,
              ": the model is dense, it has no experts to drop");
  ESP_REQUIRE(std::cmp_equal(plan.keep.size(), model.num_hidden_layers), FormatError, source,
              ": has ", plan.keep.size(), " layers, the model has ", model.num_hidden_layers);
  for (std::size_t l = 0; l < plan.keep.size(); ++l) {
    for (const int id : plan.keep[l]) {
      ESP_REQUIRE(id >= 0 && id < model.num_local_experts, FormatError, source, ": layer ", l,
                  ": expert id ", id, " is out of range, the model has ", model.num_local_experts,
                  " experts (0 to ", model.num_local_experts - 1, ")");
    }
    ESP_REQUIRE(std::cmp_greater_equal(plan.keep[l].size(), model.num_experts_per_tok), FormatError,
                source, ": layer ", l, " keeps ", plan.keep[l].size(),
                " experts, but num_experts_per_tok is ", model.num_experts_per_tok,
                "; keep at least as many");
  }
}

/// @throws FormatError saying what loaders demand
inline void check_uniform(const Plan& plan, const std::string& source) {
  for (std::size_t l = 1; l < plan.keep.size(); ++l) {
    ESP_REQUIRE(plan.keep[l].size() == plan.keep[0].size(), FormatError, source, ": layer ", l,
                " keeps ", plan.keep[l].size(), " experts, layer 0 keeps ", plan.keep[0].size(),
                "; config.json has one num_local_experts for all layers, and transformers, vLLM "
                "and llama.cpp load nothing else: keep equally many in every layer");
  }
}

}  // namespace espalier::prune
