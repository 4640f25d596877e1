// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding: in every head, pair i of the first `dims` values is rotated by the
// angle position · f_i, and the values behind them stay.    x, y: [N, A, P]   positions: [N]
// Su et al. 2021, arXiv:2104.09864, eq. 34: f_i = theta^(-2i/dims). A pair is (x_i, x_{i +
// dims/2}), the half-rotation layout of Hugging Face checkpoints, or, interleaved, (x_2i, x_2i+1).
// Scaled frequencies for longer contexts: linear, YaRN (Peng et al. 2023, arXiv:2309.00071) and
// Llama 3's. Frequencies and angles are rounded to fp32 for every T, as in the models that were
// trained so; each result is rounded to T once. Saves the table of cosines and sines, [N, dims],
// which all layers of one RopeConfig share; the gradient is the inverse rotation.
#pragma once

#include <array>
#include <vector>

#include <espalier/autograd/var.hpp>
#include <espalier/core/algorithm.hpp>
#include <espalier/core/math.hpp>
#include <espalier/core/mutex.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/simd.hpp>

namespace espalier {

struct RopeConfig {
  enum class Scaling : std::uint8_t { none, linear, yarn, llama3 };

  double theta = 1e4;
  std::int64_t dims = 0;     // rotated leading values of a head; 0: all of them
  bool interleaved = false;  // pairs (2i, 2i + 1) instead of (i, i + dims/2)
  Scaling scaling = Scaling::none;
  double factor = 1;                     // linear, yarn, llama3
  std::int64_t original_positions = 0;   // yarn, llama3: longest context before scaling
  double beta_fast = 32, beta_slow = 1;  // yarn: rotations within that context
  bool truncate = true;                  // yarn: rounds its range of pairs to whole ones
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  double attention_factor = 1;                       // multiplies cosines and sines

  friend bool operator==(const RopeConfig&, const RopeConfig&) = default;
};

namespace detail {

/// In place: pairs below `low` keep their frequency, those above `high` get the one divided by
/// `factor`, with a linear ramp between. Pair numbers at which a frequency makes beta_fast and
/// beta_slow rotations within the original context: arXiv:2309.00071, section 3.2.
inline void scale_yarn(const RopeConfig& c, std::int64_t dims, std::vector<float>& frequencies) {
  constexpr double kTwoPi = 6.283185307179586477;
  const auto pair_of = [&](double rotations) {
    return static_cast<double>(dims) *
           math::log(static_cast<double>(c.original_positions) / (rotations * kTwoPi)) /
           (2 * math::log(c.theta));
  };
  double low = std::max(pair_of(c.beta_fast), 0.0);
  double high = std::min(pair_of(c.beta_slow), static_cast<double>(dims - 1));
  if (c.truncate) {
    low = static_cast<double>(static_cast<std::int64_t>(low));
    const auto whole = static_cast<double>(static_cast<std::int64_t>(high));  // towards 0
    high = whole < high ? whole + 1 : whole;
  }
  if (low == high) high += 0.001;
  const auto first = static_cast<float>(low), width = static_cast<float>(high - low);
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const float ramp = algo::clamp((static_cast<float>(i) - first) / width, 0.0f, 1.0f);
    const float kept = 1.0f - ramp;
    const float divided = 1.0f / (static_cast<float>(c.factor) *
                                  math::pow(static_cast<float>(c.theta),
                                            static_cast<float>(2 * i) / static_cast<float>(dims)));
    frequencies[i] = divided * (1.0f - kept) + frequencies[i] * kept;
  }
}

/// In place: wavelengths above original / low_freq_factor are multiplied by `factor`, those below
/// original / high_freq_factor kept, with a ramp in the frequency between.
inline void scale_llama3(const RopeConfig& c, std::vector<float>& frequencies) {
  constexpr float kTwoPi = 6.283185307179586477f;
  const auto original = static_cast<float>(c.original_positions);
  const auto low = static_cast<float>(c.low_freq_factor);
  const auto high = static_cast<float>(c.high_freq_factor);
  const auto factor = static_cast<float>(c.factor);
  for (float& f : frequencies) {
    const float wavelength = kTwoPi / f;
    if (wavelength > original / low) {
      f /= factor;
    } else if (wavelength >= original / high) {
      const float kept = (original / wavelength - low) / (high - low);
      f = (1.0f - kept) * f / factor + kept * f;
    }
  }
}

/// f_i of the dims/2 pairs, in fp32 as the models were trained.
inline std::vector<float> rope_frequencies(const RopeConfig& c, std::int64_t dims) {
  std::vector<float> frequencies(static_cast<std::size_t>(dims / 2));
  for (std::int64_t i = 0; i < dims / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dims);
    frequencies[i] = 1.0f / math::pow(static_cast<float>(c.theta), exponent);
  }
  switch (c.scaling) {
    case RopeConfig::Scaling::none:
      break;
    case RopeConfig::Scaling::linear:
      for (float& f : frequencies) f /= static_cast<float>(c.factor);
      break;
    case RopeConfig::Scaling::yarn:
      scale_yarn(c, dims, frequencies);
      break;
    case RopeConfig::Scaling::llama3:
      scale_llama3(c, frequencies);
      break;
  }
  return frequencies;
}

/// Row n: dims/2 cosines of the angles of positions[n], then dims/2 sines.
template <std::floating_point A>
Tensor<A> rope_table(const Tensor<std::int32_t>& positions, const RopeConfig& config,
                     std::int64_t dims) {
  const std::int64_t half = dims / 2, rows = positions.numel();
  const std::vector<float> frequencies = rope_frequencies(config, dims);
  const auto factor = static_cast<A>(config.attention_factor);
  const Tensor<A> table(Shape{rows, dims});
  parallel_for(rows, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const auto position = static_cast<float>(positions.data()[n]);
      A* row = table.data() + n * dims;
      for (std::int64_t i = 0; i < half; ++i) {
        const float angle = frequencies[i] * position;
        row[i] = math::cos(static_cast<A>(angle)) * factor;
        row[half + i] = math::sin(static_cast<A>(angle)) * factor;
      }
    }
  });
  return table;
}

/// The tables of the last few configs, one each, for the next layer with the same config and the
/// same positions: the cosines take several times as long as the rotation itself.
template <std::floating_point A>
class RopeTables {
 public:
  Tensor<A> get(const Tensor<std::int32_t>& positions, RopeConfig config, std::int64_t dims) {
    config.dims = dims;
    config.interleaved = false;  // another order of the pairs, the same table
    const Lock lock(mutex_);
    std::size_t at = 0;
    while (at < entries_.size() && !(entries_[at].table && entries_[at].config == config)) ++at;
    if (at == entries_.size()) --at;  // replaces the least recently used
    for (; at > 0; --at) std::swap(entries_[at], entries_[at - 1]);
    Entry& first = entries_.front();
    const auto now = positions.span();
    if (!first.table || first.config != config ||
        !std::equal(now.begin(), now.end(), first.positions.begin(), first.positions.end())) {
      first.table = rope_table<A>(positions, config, dims);
      first.positions.assign(now.begin(), now.end());
      first.config = config;
    }
    return first.table;
  }
  static RopeTables& instance() {
    static RopeTables* tables = new RopeTables;  // never destroyed, as the pool of tensors
    return *tables;
  }

 private:
  struct Entry {
    RopeConfig config;
    std::vector<std::int32_t> positions;
    Tensor<A> table;
  };

  Mutex mutex_;
  std::array<Entry, 4> entries_;  // most recently used first
};

}  // namespace detail

struct Rope {
  static constexpr const char* kName = "rope";

  Tensor<std::int32_t> positions;
  RopeConfig config;

  /// Rotated values of a head of x [N, A, P].
  std::int64_t dims(const Shape& x) const { return config.dims > 0 ? config.dims : x[2]; }

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& x) const {
    ESP_CPU_ONLY(D, rope, Rope, rope.hpp);
    check(x.shape());
    const auto table =
        detail::RopeTables<acc_t<T>>::instance().get(positions, config, dims(x.shape()));
    saved.tensors = {table};
    return rotated(x, table, acc_t<T>{1});
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    using A = acc_t<T>;
    return {rotated(dy, saved.get<A, D>(0), A{-1})};
  }

  /// @throws ShapeError when x, dims or positions do not fit; Error when a number of the config is
  /// out of range.
  void check(const Shape& x) const {
    ESP_REQUIRE(x.rank() == 3 && (config.dims > 0 || x[2] % 2 == 0), ShapeError, kName, ": x is ",
                x, ", expected [tokens, heads, even head dim]");
    ESP_REQUIRE(config.dims >= 0 && config.dims % 2 == 0 && config.dims <= x[2], ShapeError, kName,
                ": dims is ", config.dims, ", x is ", x,
                "; expected an even number, at most the head dim");
    ESP_REQUIRE(positions.shape() == Shape{x[0]}, ShapeError, kName, ": positions is ",
                positions.shape(), ", x is ", x, "; expected [", x[0], "]");
    ESP_REQUIRE(config.theta > 0, Error, kName, ": theta is ", config.theta,
                ", expected a positive number");
    using Scaling = RopeConfig::Scaling;
    if (config.scaling == Scaling::none) return;
    ESP_REQUIRE(config.factor > 0, Error, kName, ": factor is ", config.factor,
                ", expected a positive number");
    if (config.scaling == Scaling::linear) return;
    ESP_REQUIRE(config.original_positions > 0, Error, kName, ": original_positions is ",
                config.original_positions, ", expected the longest context before scaling");
    if (config.scaling == Scaling::yarn) {
      ESP_REQUIRE(config.beta_fast > 0 && config.beta_slow > 0, Error, kName, ": beta_fast is ",
                  config.beta_fast, ", beta_slow is ", config.beta_slow,
                  "; expected positive numbers");
    } else {
      ESP_REQUIRE(config.low_freq_factor > 0 && config.low_freq_factor < config.high_freq_factor,
                  Error, kName, ": low_freq_factor is ", config.low_freq_factor,
                  ", high_freq_factor is ", config.high_freq_factor,
                  "; expected 0 < low_freq_factor < high_freq_factor");
    }
  }

 private:
  /// `direction` 1 applies the rotation, -1 its inverse.
  template <FloatElement T, std::floating_point A>
  Tensor<T> rotated(const Tensor<T>& x, const Tensor<A>& table, A direction) const {
    const std::int64_t dim = x.shape(2), row = x.shape(1) * dim, rotated_dims = table.shape(1);
    const bool pairs_adjoin = config.interleaved;
    Tensor<T> y(x.shape());
    const T* from = x.data();
    const A* cos_sin = table.data();
    T* to = y.data();
    parallel_for(x.shape(0), rows_per_task(row), [=](std::int64_t begin, std::int64_t end) {
      simd::dispatch([=]<int W>() {
        for (std::int64_t n = begin; n < end; ++n) {
          const A* of_row = cos_sin + n * rotated_dims;
          for (std::int64_t a = n * row; a < (n + 1) * row; a += dim) {
            if (pairs_adjoin) {
              rotate_interleaved<T, W>(from + a, of_row, direction, rotated_dims / 2, to + a);
            } else {
              rotate<T, W>(from + a, of_row, direction, rotated_dims / 2, to + a);
            }
            std::copy(from + a + rotated_dims, from + a + dim, to + a + rotated_dims);
          }
        }
      });
    });
    return y;
  }

  /// Pairs (i, i + half).
  template <FloatElement T, int W>
  static ESP_SIMD_INLINE void rotate(const T* x, const acc_t<T>* cosine, acc_t<T> direction,
                                     std::int64_t half, T* y) {
    using V = simd::Native<T, W>;
    simd::for_each_vector<V>(0, half, [=](std::int64_t i, auto lanes) ESP_SIMD_LAMBDA {
      const V c = V::load(cosine + i, lanes), s = V(direction) * V::load(cosine + half + i, lanes);
      const V low = V::load_ahead(x + i, lanes), high = V::load_ahead(x + half + i, lanes);
      (low * c - high * s).store(y + i, lanes);
      (high * c + low * s).store(y + half + i, lanes);
    });
  }

  /// Pairs (2i, 2i + 1): split into the even and the odd values of two vectors, and joined again.
  template <FloatElement T, int W>
  static ESP_SIMD_INLINE void rotate_interleaved(const T* x, const acc_t<T>* cosine,
                                                 acc_t<T> direction, std::int64_t half, T* y) {
    using V = simd::Native<T, W>;
    constexpr int kLanes = V::kLanes;
    std::int64_t i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      const V c = V::load(cosine + i), s = V(direction) * V::load(cosine + half + i);
      const V left = V::load(x + 2 * i), right = V::load(x + 2 * i + kLanes);
      const V even = simd::shuffle<EverySecond<0>>(left, right);
      const V odd = simd::shuffle<EverySecond<1>>(left, right);
      const V new_even = even * c - odd * s, new_odd = odd * c + even * s;
      simd::shuffle<Alternating<0, kLanes>>(new_even, new_odd).store(y + 2 * i);
      simd::shuffle<Alternating<kLanes / 2, kLanes>>(new_even, new_odd).store(y + 2 * i + kLanes);
    }
    for (; i < half; ++i) {
      const acc_t<T> c = cosine[i], s = direction * cosine[half + i];
      const auto even = static_cast<acc_t<T>>(x[2 * i]), odd = static_cast<acc_t<T>>(x[2 * i + 1]);
      y[2 * i] = static_cast<T>(even * c - odd * s);
      y[2 * i + 1] = static_cast<T>(odd * c + even * s);
    }
  }
  template <int First>
  struct EverySecond {
    static constexpr int at(int i) { return 2 * i + First; }
  };
  /// Lanes of the first vector from `First` on, each followed by the same of the second.
  template <int First, int Lanes>
  struct Alternating {
    static constexpr int at(int i) { return First + i / 2 + i % 2 * Lanes; }
  };
};

/// Rotates x [N, A, P] by `positions` [N]; every row may have a position of its own.
/// @throws ShapeError when x is not [N, A, P], its rotated dims are not even or there is not one
/// position per row; Error when a number of the config is out of range.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> rope(const Var<T, D>& x, const Tensor<std::int32_t>& positions,
                             const RopeConfig& config) {
  return apply(Rope{positions, config}, x);
}
/// The whole head by unscaled frequencies.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> rope(const Var<T, D>& x, const Tensor<std::int32_t>& positions,
                             double theta) {
  return rope(x, positions, RopeConfig{theta});
}

}  // namespace espalier
