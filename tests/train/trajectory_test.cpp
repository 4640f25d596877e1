// SPDX-License-Identifier: Apache-2.0
// Twenty optimizer steps of a tiny Mixtral with LoRA on every kind of module, against torch and
// PEFT (tests/golden/tiny_mixtral, see README.md there).
#include <espalier/hub/checkpoint.hpp>
#include <espalier/io/safetensors.hpp>
#include <espalier/models/decoder.hpp>
#include <espalier/train/trainer.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;

namespace {

const std::filesystem::path kGolden =
    std::filesystem::path(ESPALIER_TESTS_DIR) / "golden" / "tiny_mixtral";

data::Batch batch_of(const io::Json& golden) {
  std::vector<data::Example> examples;
  const io::Json &ids = golden.at("ids"), &labels = golden.at("labels");
  for (std::size_t s = 0; s < ids.size(); ++s) {
    data::Example e;
    for (std::size_t i = 0; i < ids.at(s).size(); ++i) {
      e.ids.push_back(static_cast<std::int32_t>(ids.at(s).at(i).as_int()));
      e.is_target.push_back(i > 0 && labels.at(s).at(i).as_int() >= 0 ? 1 : 0);
    }
    examples.push_back(std::move(e));
  }
  return data::make_batch(examples, data::one_example_per_row(examples.size()));
}

struct GoldenModel {
  hub::Checkpoint base{kGolden / "model"};
  Decoder<float> model{base.config(),
                       [this](const std::string& name) { return base.tensor(name); }};
  GoldenModel() {
    model.add_lora({4, 8, 0, false, {"q", "k", "v", "o", "gate", "w1", "w2", "w3"}}, 0);
    const io::SafetensorsFile adapter(kGolden / "adapter" / "adapter_model.safetensors");
    load_parameters<float>(model.parameters(), [&](const std::string& name) {
      return adapter.tensor("base_model.model." + name);
    });
  }
};

}  // namespace

TEST_CASE("trainer: loss, norm and rate of twenty steps equal those of torch with PEFT",
          "[train][trajectory]") {
  const io::Json golden = io::read_json(kGolden / "trajectory.json");
  const io::Json& o = golden.at("options");
  GoldenModel g;
  train::Trainer trainer(
      g.model, {{optim::ScheduleKind::cosine, o.at("lr").as_double(), o.at("warmup").as_int(),
                 o.at("steps").as_int()},
                {o.at("betas").at(0).as_double(), o.at("betas").at(1).as_double(),
                 o.at("eps").as_double(), o.at("weight_decay").as_double()},
                o.at("clip").as_double(),
                o.at("aux_coefficient").as_double(),
                0});
  std::vector<double> loss, aux, norm, rate;
  std::vector<double> want_loss, want_aux, want_norm, want_rate;
  for (std::size_t s = 0; s < golden.at("steps").size(); ++s) {
    std::vector<data::Batch> micro_batches;
    for (const io::Json& b : golden.at("steps").at(s).items()) micro_batches.push_back(batch_of(b));
    const train::StepResult r = trainer.step(micro_batches);
    CHECK(r.step == static_cast<std::int64_t>(s) + 1);
    loss.push_back(r.loss);
    aux.push_back(r.aux_loss);
    norm.push_back(r.grad_norm);
    rate.push_back(r.lr);
    const io::Json& want = golden.at("log").at(s);
    want_loss.push_back(want.at("loss").as_double());
    want_aux.push_back(want.at("aux_loss").as_double());
    want_norm.push_back(want.at("grad_norm").as_double());
    want_rate.push_back(want.at("lr").as_double());
  }
  REQUIRE(loss.size() == 20);
  const auto of_loss = test::compare(loss, want_loss, 0, 1e-4);
  const auto of_aux = test::compare(aux, want_aux, 0, 1e-4);
  const auto of_norm = test::compare(norm, want_norm, 0, 1e-4);
  const auto of_rate = test::compare(rate, want_rate, 0, 1e-12);
  INFO("loss " << of_loss << "; aux " << of_aux << "; norm " << of_norm << "; lr " << of_rate);
  CHECK(of_loss.count == 0);
  CHECK(of_aux.count == 0);
  CHECK(of_norm.count == 0);
  CHECK(of_rate.count == 0);

  // Adam's first steps divide small numbers by small numbers: what differs in the sixth digit there
  // moves a weight by a visible share of the rate. torch in f32 and in f64 differ likewise.
  const double noise = golden.at("f32_against_f64").at("adapter").as_double();
  const io::SafetensorsFile trained(kGolden / "adapter_trained.safetensors");
  for (const NamedParameter& p : g.model.parameters()) {
    const auto want = test::to_vector(trained.tensor("base_model.model." + p.name));
    const auto m = test::compare(test::to_vector(p.var.any()), want, 4 * noise, 0);
    INFO(p.name << ": " << m);
    CHECK(m.count == 0);
  }
  CHECK(trained.tensors().size() == g.model.parameters().size());
}
