// SPDX-License-Identifier: Apache-2.0
// Scores of the tiny Mixtral against those that transformers and PEFT give in double precision
// (tests/golden/make_pruning_golden.py).
#include <espalier/prune/calibrate.hpp>
#include <espalier/prune/criteria.hpp>
#include <espalier/prune/scores.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_mixtral.hpp"

using namespace espalier;
using namespace espalier::prune;
using espalier::test::message_of;

namespace {

void require_close(const std::string& name, const LayerScores& got, const LayerScores& want,
                   double rtol) {
  REQUIRE(got.size() == want.size());
  for (std::size_t l = 0; l < got.size(); ++l) {
    const auto m = test::compare(got[l], want[l], 1e-9, rtol);
    INFO(name << " layer " << l << ": " << m);
    CHECK(m.count == 0);
  }
}

data::CalibrationSet golden_sequences() {
  data::CalibrationSet set;
  const auto golden = test::golden_file("forward.safetensors");
  for (int s = 0; s < test::kGoldenSequences; ++s) {
    set.sequences.push_back(test::golden_ids(golden, s));
    set.tokens += static_cast<std::int64_t>(set.sequences.back().size());
  }
  return set;
}

}  // namespace

TEST_CASE("criteria: every score of the tuned tiny Mixtral equals that of transformers and PEFT") {
  const Scores golden =
      read_scores(std::string(ESPALIER_TESTS_DIR) + "/golden/pruning_scores.json");
  std::int64_t seen = 0;
  const auto activations = calibrate(test::tiny_mixtral_with_adapter<float>(), golden_sequences(),
                                     [&](std::int64_t done) { seen = done; });
  CHECK(seen == golden_sequences().tokens);
  const hub::Checkpoint base(test::tiny_mixtral_path("model"));
  const io::Adapter adapter = io::read_adapter(test::tiny_mixtral_path("adapter"));
  const WeightNorms norms = weight_norms({base, nullptr, &adapter}, {});
  std::size_t checked = 0;
  for (const Criterion& c : kCriteria) {
    if (c.kind == CriterionKind::random) continue;
    const bool from_data = c.kind == CriterionKind::activations;
    // Activations are f32; a drift is a small difference of norms of f32 factors.
    require_close(c.name, from_data ? activations.scores(c.name) : weight_scores(c.name, norms),
                  golden.at(c.name, "golden"), from_data ? 2e-5 : 1e-6);
    ++checked;
  }
  CHECK(checked == golden.criteria.size());
}

TEST_CASE("calibrate: the same bits for any number of threads") {
  const data::CalibrationSet set = golden_sequences();
  const auto model = test::tiny_mixtral<float>();
  set_num_threads(1);
  const auto one = calibrate(model, set, {});
  set_num_threads(3);
  const auto three = calibrate(model, set, {});
  set_num_threads(2);
  for (const char* name : {"soft_frequency", "ean", "reap", "msan", "max_activation"}) {
    CHECK(one.scores(name) == three.scores(name));
  }
  CHECK(message_of<ShapeError>([&] {
          (void)calibrate(model, {{{1, 128}}, 2}, {});
        }) == "embedding: id 128 at position 1, the table has 128 rows");
}
