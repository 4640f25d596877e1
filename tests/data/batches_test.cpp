// SPDX-License-Identifier: Apache-2.0
#include <numeric>
#include <set>

#include <espalier/data/batches.hpp>
#include <espalier/data/packing.hpp>

#include "support/catch.hpp"

using namespace espalier;
using namespace espalier::data;

namespace {

Example example(std::int64_t length, std::int32_t first_id, std::int64_t first_target = 1) {
  Example e;
  for (std::int64_t i = 0; i < length; ++i) {
    e.ids.push_back(first_id + static_cast<std::int32_t>(i));
    e.is_target.push_back(i >= first_target ? 1 : 0);
  }
  return e;
}

std::vector<std::int32_t> list(const Tensor<std::int32_t>& t) {
  return {t.data(), t.data() + t.numel()};
}

}  // namespace

TEST_CASE("batches: each row predicts the next token of its own sequence", "[data][batches]") {
  const std::vector<Example> examples = {example(4, 10), example(3, 20, 2)};
  const Batch b = make_batch(examples, {{0}, {1}});
  CHECK(b.tokens.ids == std::vector<std::int32_t>{10, 11, 12, 13, 20, 21, 22});
  CHECK(b.tokens.segments == std::vector<std::int64_t>{0, 4, 7});
  CHECK(list(b.targets) == std::vector<std::int32_t>{11, 12, 13, -1, -1, 22, -1});
  CHECK(b.target_count == 4);
}

TEST_CASE("batches: a packed row keeps its sequences apart", "[data][batches]") {
  const std::vector<Example> examples = {example(4, 10), example(3, 20)};
  const Batch packed = make_batch(examples, {{0, 1}}), apart = make_batch(examples, {{0}, {1}});
  CHECK(packed.tokens.segments == apart.tokens.segments);
  CHECK(list(packed.targets) == list(apart.targets));
}

TEST_CASE("batches: packing loses nothing, fits, and wastes less than one row in two",
          "[data][batches]") {
  std::vector<Example> examples;
  const Philox random(4);
  std::int64_t tokens = 0;
  for (std::uint64_t i = 0; i < 200; ++i) {
    examples.push_back(example(1 + random.below(i, 64), 0));
    tokens += static_cast<std::int64_t>(examples.back().ids.size());
  }
  const std::vector<Row> rows = pack_examples(examples, 64);
  std::set<std::int64_t> seen;
  for (const Row& row : rows) {
    std::int64_t length = 0;
    for (const std::int64_t i : row) {
      CHECK(seen.insert(i).second);
      length += static_cast<std::int64_t>(examples[static_cast<std::size_t>(i)].ids.size());
    }
    CHECK(length <= 64);
  }
  CHECK(seen.size() == examples.size());
  CHECK(static_cast<std::int64_t>(rows.size()) * 64 < tokens * 11 / 10);
  CHECK_THROWS_WITH(pack_examples({example(65, 0)}, 64), Catch::Contains("65 tokens"));
}

TEST_CASE("batches: best fit picks the fullest row that has room", "[data][batches]") {
  // Longest first: 6 | 5 | 3 goes to the row of 6 (room 4 left of 10 is tighter than 5) | 4 to that
  // of 5.
  const std::vector<Example> examples = {example(3, 0), example(6, 0), example(5, 0),
                                         example(4, 0)};
  CHECK(pack_examples(examples, 10) == std::vector<Row>{{0, 2}, {1, 3}});
}

TEST_CASE("sampler: an epoch visits every row once and batches end with it", "[data][batches]") {
  const bool shuffle = GENERATE(false, true);
  Sampler sampler(23, {4, 2, shuffle, 7});
  REQUIRE(sampler.steps_per_epoch() == 3);  // 6 micro-batches, the last of 3 rows
  for (std::int64_t epoch = 0; epoch < 2; ++epoch) {
    std::vector<std::int64_t> seen;
    std::vector<std::size_t> sizes;
    for (std::int64_t s = 0; s < 3; ++s) {
      for (const auto& batch : sampler.micro_batches(epoch * 3 + s)) {
        sizes.push_back(batch.size());
        seen.insert(seen.end(), batch.begin(), batch.end());
      }
    }
    CHECK(sizes == std::vector<std::size_t>{4, 4, 4, 4, 4, 3});
    std::vector<std::int64_t> all(23);
    std::iota(all.begin(), all.end(), std::int64_t{0});
    CHECK((seen == all) == !shuffle);
    std::sort(seen.begin(), seen.end());
    CHECK(seen == all);
  }
}

TEST_CASE("sampler: a step is a function of seed and step alone", "[data][batches]") {
  Sampler forward(50, {3, 2, true, 1}), jumping(50, {3, 2, true, 1}), other(50, {3, 2, true, 2});
  std::vector<std::vector<std::vector<std::int64_t>>> steps;
  for (std::int64_t s = 0; s < 20; ++s) steps.push_back(forward.micro_batches(s));
  for (const std::int64_t s : {19, 3, 11, 0}) {
    CHECK(jumping.micro_batches(s) == steps[static_cast<std::size_t>(s)]);
  }
  CHECK(other.micro_batches(0) != steps[0]);
  CHECK(steps[0] != steps[static_cast<std::size_t>(forward.steps_per_epoch())]);
}

TEST_CASE("sampler: batches larger than the data make one short step", "[data][batches]") {
  Sampler sampler(3, {8, 4, false, 0});
  CHECK(sampler.steps_per_epoch() == 1);
  CHECK(sampler.micro_batches(5) == std::vector<std::vector<std::int64_t>>{{0, 1, 2}});
  CHECK_THROWS_WITH(Sampler(0, {1, 1, false, 0}), Catch::Contains("0 rows"));
}
