// SPDX-License-Identifier: Apache-2.0
// The curve of a training log.
#pragma once

#ifdef __CUDACC__
#error "espalier/train/loss_curve.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <string>
#include <vector>

#include <espalier/io/json.hpp>
#include <espalier/plot/curves.hpp>

namespace espalier::train {

/// loss.png and loss.svg in `folder`, from the entries of train_log.jsonl; held-out loss too where
/// it was measured. Returns why that failed, or nothing: a picture is not worth a failed run.
[[nodiscard]] ESP_INLINE std::string draw_loss_curve(const std::vector<io::Json>& log,
                                                     const std::filesystem::path& folder,
                                                     const std::string& title) {
  plot::Series loss{"loss", {}, {}}, held_out{"held-out loss", {}, {}};
  for (const io::Json& entry : log) {
    const double step = entry.at("step").as_double();
    loss.x.push_back(step);
    loss.y.push_back(entry.at("loss").as_double());
    if (const io::Json* value = entry.find("eval_loss")) {
      held_out.x.push_back(step);
      held_out.y.push_back(value->as_double());
    }
  }
  loss.smoothing = static_cast<double>(log.size()) / 50;
  held_out.markers = true;
  plot::Curves curves;
  curves.labels = {title, "optimizer step", "mean loss per target"};
  curves.series.push_back(loss);
  if (!held_out.x.empty()) curves.series.push_back(held_out);
  std::string reason = plot::save_or_reason(curves, folder / "loss.png");
  return reason.empty() ? plot::save_or_reason(curves, folder / "loss.svg") : reason;
}

}  // namespace espalier::train
