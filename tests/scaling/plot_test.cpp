// SPDX-License-Identifier: Apache-2.0
#include <espalier/plot/curves.hpp>

#include "support/catch.hpp"
#include "support/work_counter.hpp"

using namespace espalier;

TEST_CASE("scaling: the curve of a log, smoothed over a fiftieth of it") {
  test::require_linear(2000, [](std::size_t size) {
    plot::Series loss{"loss", {}, {}};
    for (std::size_t i = 0; i < size; ++i) {
      loss.x.push_back(static_cast<double>(i));
      loss.y.push_back(static_cast<double>((i * 7919) % 1000));
    }
    loss.smoothing = static_cast<double>(size) / 50;
    plot::Curves curves;
    curves.labels = {"loss", "step", "loss"};
    curves.series.push_back(loss);
    return [curves] { CHECK_FALSE(plot::encode(curves, plot::Format::svg).empty()); };
  });
}
