// SPDX-License-Identifier: Apache-2.0
// A data set as rows of batches: one example per row, or several packed into one.
#pragma once

#ifdef __CUDACC__
#error "espalier/data/training_set.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include <espalier/data/batches.hpp>
#include <espalier/data/dataset.hpp>
#include <espalier/data/packing.hpp>

namespace espalier::data {

class TrainingSet {
 public:
  ESP_INLINE TrainingSet(Dataset dataset, bool packing)
      : dataset_(std::move(dataset)),
        rows_(packing ? pack_examples(dataset_.examples, dataset_.max_length)
                      : one_example_per_row(dataset_.examples.size())) {}

  const Dataset& dataset() const { return dataset_; }
  std::int64_t rows() const { return std::ssize(rows_); }

  /// @param numbers rows, as a Sampler draws them
  [[nodiscard]] ESP_INLINE Batch batch(const std::vector<std::int64_t>& numbers) const {
    std::vector<Row> chosen;
    for (const std::int64_t i : numbers) chosen.push_back(rows_[static_cast<std::size_t>(i)]);
    return make_batch(dataset_.examples, chosen);
  }

  /// The largest number of tokens in one micro-batch of `batch_size` rows.
  [[nodiscard]] ESP_INLINE std::int64_t largest_batch(std::int64_t batch_size) const {
    std::vector<std::int64_t> lengths;
    for (const Row& row : rows_) {
      std::int64_t length = 0;
      for (const std::int64_t i : row) {
        length += std::ssize(dataset_.examples[static_cast<std::size_t>(i)].ids);
      }
      lengths.push_back(length);
    }
    std::sort(lengths.rbegin(), lengths.rend());
    lengths.resize(static_cast<std::size_t>(std::min(batch_size, std::ssize(lengths))));
    return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  }

 private:
  Dataset dataset_;
  std::vector<Row> rows_;
};

/// All examples in order, `batch_size` per batch; for held-out loss.
[[nodiscard]] ESP_INLINE std::vector<Batch> batches_in_order(const Dataset& dataset,
                                                             std::int64_t batch_size) {
  const std::vector<Row> rows = one_example_per_row(dataset.examples.size());
  std::vector<Batch> batches;
  for (std::ptrdiff_t first = 0; first < std::ssize(rows); first += batch_size) {
    const std::ptrdiff_t last = std::min<std::ptrdiff_t>(std::ssize(rows), first + batch_size);
    batches.push_back(make_batch(dataset.examples, {rows.begin() + first, rows.begin() + last}));
  }
  return batches;
}

}  // namespace espalier::data
