// SPDX-License-Identifier: Apache-2.0
// All model families, by `model_type`: one line per header.
#pragma once

#include <algorithm>

#include <espalier/models/families/deepseek_v2.hpp>
#include <espalier/models/families/deepseek_v3.hpp>
#include <espalier/models/families/glm4_moe.hpp>
#include <espalier/models/families/gpt_oss.hpp>
#include <espalier/models/families/granitemoe.hpp>
#include <espalier/models/families/known.hpp>
#include <espalier/models/families/llama.hpp>
#include <espalier/models/families/mistral.hpp>
#include <espalier/models/families/mixtral.hpp>
#include <espalier/models/families/olmoe.hpp>
#include <espalier/models/families/qwen2.hpp>
#include <espalier/models/families/qwen2_moe.hpp>
#include <espalier/models/families/qwen3.hpp>
#include <espalier/models/families/qwen3_moe.hpp>

namespace espalier {

/// nullptr for a model_type that is not known
[[nodiscard]] const Family* find_family(std::string_view model_type);

/// "llama, mistral, ...", sorted: those with a forward pass
[[nodiscard]] std::string computed_families();
/// All that are supported at least in part.
[[nodiscard]] std::string known_families();

}  // namespace espalier

#ifdef ESP_BODIES
namespace espalier {

ESP_INLINE const Family* find_family(std::string_view model_type) {
  for (const Family* family : detail::registered_families()) {
    if (family->model_type == model_type) return family;
  }
  return nullptr;
}

namespace detail {
template <class Wanted>
std::string list_families(Wanted&& wanted) {
  std::vector<std::string> names;
  for (const Family* family : registered_families()) {
    if (wanted(*family)) names.push_back(family->model_type);
  }
  std::sort(names.begin(), names.end());
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}
}  // namespace detail

ESP_INLINE std::string computed_families() {
  return detail::list_families([](const Family& f) { return f.read != nullptr; });
}
ESP_INLINE std::string known_families() {
  return detail::list_families([](const Family& f) { return f.refusal.empty(); });
}

}  // namespace espalier
#endif
