// SPDX-License-Identifier: Apache-2.0
// Learning rate over optimizer steps, as transformers'
// get_{constant,linear,cosine}_schedule_with_warmup:
//   step < W    lr · step / W                          so with warmup the first update has rate 0
//   constant    lr
//   linear      lr · (T - step) / (T - W)
//   cosine      lr · (1 + cos(pi · (step - W) / (T - W))) / 2
// `step` counts from 0, W is the number of warmup steps, T the number of all steps.
#pragma once

#include <cstdint>
#include <string_view>

#include <espalier/core/error.hpp>
#include <espalier/core/math.hpp>

namespace espalier::optim {

enum class ScheduleKind { constant, linear, cosine };

[[nodiscard]] inline ScheduleKind schedule_named(std::string_view name) {
  if (name == "constant") return ScheduleKind::constant;
  if (name == "linear") return ScheduleKind::linear;
  ESP_REQUIRE(name == "cosine", UsageError, "schedule: unknown name '", name,
              "', expected constant, linear or cosine");
  return ScheduleKind::cosine;
}

struct Schedule {
  ScheduleKind kind = ScheduleKind::linear;
  double lr = 5e-5;
  std::int64_t warmup = 0;
  std::int64_t total = 1;

  /// The rate of the update with index `step`.
  [[nodiscard]] double at(std::int64_t step) const {
    if (step < warmup) return lr * (static_cast<double>(step) / static_cast<double>(warmup));
    const auto rest = static_cast<double>(std::max<std::int64_t>(1, total - warmup));
    switch (kind) {
      case ScheduleKind::constant:
        return lr;
      case ScheduleKind::linear:
        return lr * std::max(0.0, static_cast<double>(total - step) / rest);
      case ScheduleKind::cosine: {
        constexpr double kPi = 3.14159265358979323846;
        const double progress = static_cast<double>(step - warmup) / rest;
        return lr * std::max(0.0, 0.5 * (1.0 + math::cos(kPi * progress)));
      }
    }
    return lr;
  }
};

}  // namespace espalier::optim
