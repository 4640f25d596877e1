// SPDX-License-Identifier: Apache-2.0
// A model family: the reading of its config.json, the names of its tensors, the keys of its number
// of experts. It is found by `model_type` (models/families/registry.hpp). A family is one header in
// models/families/, which ends in a FamilyRegistration.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <espalier/models/decoder_config.hpp>
#include <espalier/models/families/config_io.hpp>

namespace espalier {

struct Family {
  std::string model_type = {};
  std::string architecture = {};  // "MixtralForCausalLM"
  TensorNames names = {};
  /// Keys that may hold the number of experts in config.json; the first present one counts. Empty:
  /// a dense family.
  std::vector<std::string> expert_keys = {};
  std::vector<std::string> top_k_keys = {"num_experts_per_tok"};
  /// Keys of the number of groups that experts are chosen from and of the number kept.
  std::string groups_key = {}, top_groups_key = {};
  /// Key of the number of multi-token prediction layers after the last layer.
  std::string mtp_key = {};
  /// Prefixes of tensors that belong to multi-token prediction ("mtp.").
  std::vector<std::string> mtp_prefixes = {};
  /// The axis of the experts in a selection bias.
  int selection_bias_axis = 0;
  /// The model_type of the mixture that a dense model of this family is upcycled to.
  std::string upcycles_to = {};

  /// config.json to numbers; null: known by name, but there is no forward pass for it.
  /// @throws FormatError naming the key that is missing, wrong, or not supported
  DecoderConfig (*read)(const ConfigReader& config) = nullptr;
  /// What `read` would read again; `dtype` is torch's name of the stored type.
  void (*write)(const DecoderConfig& config, std::string_view dtype, ConfigWriter& to) = nullptr;
  /// Why the family is refused altogether; empty: it is not.
  std::string refusal = {};
};

namespace detail {
inline std::vector<const Family*>& registered_families() {
  static auto* families = new std::vector<const Family*>;  // never destroyed
  return *families;
}
}  // namespace detail

struct FamilyRegistration {
  explicit FamilyRegistration(const Family& family) {
    detail::registered_families().push_back(&family);
  }
};

}  // namespace espalier
