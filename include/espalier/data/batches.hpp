// SPDX-License-Identifier: Apache-2.0
// Makes the micro-batches of each optimizer step from tokenized examples. A batch is a pure
// function of (examples, seed, step), so a resumed run gets the batches of an uninterrupted one. An
// epoch visits every row once. As in transformers, no micro-batch or optimizer step crosses the end
// of an epoch, so the last of each may be smaller.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <espalier/core/algorithm.hpp>
#include <espalier/core/random.hpp>
#include <espalier/nn/context.hpp>
#include <espalier/nn/parameter.hpp>

namespace espalier::data {

/// One sequence. `is_target[i]`: token i is trained on; never token 0, which nothing predicts.
struct Example {
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> is_target;

  std::int64_t targets() const {
    std::int64_t count = 0;
    for (const std::uint8_t target : is_target) count += target;
    return count;
  }
};

/// Sequences packed without padding, and the target token of each row (-1: none).
struct Batch {
  PackedTokens tokens;
  Tensor<std::int32_t> targets;  // [N]
  std::int64_t target_count = 0;
};

/// A row is the list of its examples: one without packing, several with (packing.hpp).
using Row = std::vector<std::int64_t>;

ESP_ON_DEMAND [[nodiscard]] inline std::vector<Row> one_example_per_row(std::size_t examples) {
  std::vector<Row> rows(examples);
  for (std::size_t i = 0; i < examples; ++i) rows[i] = {static_cast<std::int64_t>(i)};
  return rows;
}

ESP_ON_DEMAND [[nodiscard]] inline Batch make_batch(const std::vector<Example>& examples,
                                                    const std::vector<Row>& rows) {
  Batch batch;
  batch.tokens.segments = {0};
  std::vector<std::int32_t> targets;
  for (const Row& row : rows) {
    for (const std::int64_t index : row) {
      const Example& e = examples.at(static_cast<std::size_t>(index));
      for (std::size_t i = 1; i <= e.ids.size(); ++i) {
        batch.tokens.ids.push_back(e.ids[i - 1]);
        const bool wanted = i < e.ids.size() && e.is_target[i] != 0;
        targets.push_back(wanted ? e.ids[i] : -1);
        batch.target_count += wanted ? 1 : 0;
      }
      batch.tokens.segments.push_back(batch.tokens.tokens());
    }
  }
  batch.targets = Tensor<std::int32_t>(Shape{batch.tokens.tokens()}, targets);
  return batch;
}

struct SamplerConfig {
  std::int64_t batch_size = 1;
  std::int64_t grad_accum = 1;
  bool shuffle = true;
  std::uint64_t seed = 0;
};

/// Chooses the rows of each optimizer step.
class Sampler {
 public:
  Sampler(std::int64_t rows, SamplerConfig config) : rows_(rows), config_(config) {
    ESP_REQUIRE(rows >= 1 && rows < (std::int64_t{1} << 32), Error, "sampler: ", rows,
                " rows, expected 1 to 2^32 - 1");
    ESP_REQUIRE(config.batch_size >= 1 && config.grad_accum >= 1, Error, "sampler: batch size ",
                config.batch_size, " and accumulation ", config.grad_accum,
                ", expected at least 1");
  }

  std::int64_t steps_per_epoch() const {
    return divide_up(divide_up(rows_, config_.batch_size), config_.grad_accum);
  }

  /// The row numbers of each micro-batch of optimizer step `step` (from 0).
  ESP_ON_DEMAND std::vector<std::vector<std::int64_t>> micro_batches(std::int64_t step) {
    const std::vector<std::int64_t>& order = order_of(step / steps_per_epoch());
    const std::int64_t per_step =
        std::min(config_.batch_size, rows_) * std::min(config_.grad_accum, rows_);
    const std::int64_t first = step % steps_per_epoch() * per_step;
    const std::int64_t last = std::min(rows_, first + per_step);
    std::vector<std::vector<std::int64_t>> out;
    for (std::int64_t b = first; b < last; b += config_.batch_size) {
      out.emplace_back(order.begin() + b, order.begin() + std::min(last, b + config_.batch_size));
    }
    return out;
  }

 private:
  static std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a - 1) / b + 1; }

  /// Fisher-Yates shuffle with a separate random stream per epoch.
  ESP_ON_DEMAND const std::vector<std::int64_t>& order_of(std::int64_t epoch) {
    if (epoch == epoch_) return order_;
    order_.resize(static_cast<std::size_t>(rows_));
    algo::count_up(order_);
    if (config_.shuffle) {
      const Philox random(config_.seed, stream_of("shuffle") + static_cast<std::uint64_t>(epoch));
      for (std::size_t i = order_.size() - 1; i > 0; --i) {
        std::swap(order_[i], order_[random.below(i, static_cast<std::uint32_t>(i + 1))]);
      }
    }
    epoch_ = epoch;
    return order_;
  }

  std::int64_t rows_;
  SamplerConfig config_;
  std::int64_t epoch_ = -1;
  std::vector<std::int64_t> order_;
};

}  // namespace espalier::data
