// SPDX-License-Identifier: Apache-2.0
// Random weights depend on seed, tensor and position alone, and are normal.
#include <espalier/io/normal_weights.hpp>

#include <espalier/io/safetensors.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;

namespace {
std::vector<float> weights(std::uint64_t seed, std::uint64_t stream, std::int64_t n) {
  test::TemporaryFolder folder;
  const io::TensorSpec spec = io::make_spec("w", DType::f32, {n});
  io::CheckpointWriter out(folder.path(), std::vector<io::TensorSpec>{spec}, 1000);
  io::append_normal(out, spec, seed, stream, 0.5f);
  out.commit();
  const io::SafetensorsFile file(folder / "model.safetensors");
  const Tensor<float> t(file.tensor("w"));
  return {t.data(), t.data() + n};
}
}  // namespace

TEST_CASE("Random weights have the moments of a normal distribution") {
  const std::int64_t n = 200001;
  double mean = 0, square = 0, fourth = 0;
  for (const float w : weights(1, 2, n)) {
    mean += w / static_cast<double>(n);
    square += w * static_cast<double>(w) / static_cast<double>(n);
    fourth += std::pow(static_cast<double>(w), 4) / static_cast<double>(n);
  }
  // Five standard errors of each estimate.
  CHECK(std::abs(mean) < 5 * 0.5 / std::sqrt(n));
  CHECK(std::abs(square / 0.25 - 1) < 5 * std::sqrt(2.0 / n));
  CHECK(std::abs(fourth / 0.1875 - 1) < 5 * std::sqrt(96.0 / 9 / n));
}

TEST_CASE("Neither the number of threads nor the tensor's length changes a weight") {
  const int before = num_threads();
  set_num_threads(1);
  const std::vector<float> one = weights(7, 3, (1 << 20) + 4099);
  set_num_threads(3);
  const std::vector<float> three = weights(7, 3, (1 << 20) + 4099);
  std::vector<float> shorter = weights(7, 3, 4099);
  set_num_threads(before);
  CHECK(one == three);
  CHECK(shorter == std::vector<float>(one.begin(), one.begin() + 4099));
  CHECK(weights(8, 3, 100) != weights(7, 3, 100));
  CHECK(weights(7, 4, 100) != weights(7, 3, 100));
}
