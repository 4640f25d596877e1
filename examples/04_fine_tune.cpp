// SPDX-License-Identifier: Apache-2.0
// Fine-tunes a checkpoint with LoRA in a loop of its own, which saves when the loss has fallen by a
// tenth since it saved last. DATA is JSONL with messages, prompt and response, or text.
//   04_fine_tune MODEL DATA OUTPUT
#include <fmt/format.h>

#include <espalier/train/fine_tune.hpp>

using namespace espalier;

int main(int argc, char** argv) {
  try {
    ESP_REQUIRE(argc == 4, UsageError, "expected MODEL DATA OUTPUT");
    train::FineTune run({.model = argv[1],
                         .data = argv[2],
                         .output = argv[3],
                         .lora = {.r = 4, .alpha = 8, .targets = {"q", "v", "gate"}},
                         .steps = 12,
                         .batch_size = 2,
                         .lr = 2e-2,
                         .save_every = 0});
    run.begin();
    double saved = 0;
    while (!run.done()) {
      const double loss = run.step().at("loss").as_double();
      fmt::print("step {:2}  loss {:.3f}\n", run.state().step, loss);
      if (saved > 0 && loss > 0.9 * saved) continue;
      if (saved > 0) fmt::print("saved {}\n", run.save().filename().string());
      saved = loss;
    }
    run.finish();
  } catch (const Error& e) {
    fmt::print(stderr, "04_fine_tune: {}\n", e.what());
    return 1;
  }
}
