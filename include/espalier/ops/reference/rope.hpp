// SPDX-License-Identifier: Apache-2.0
// rope by plain loops, for tests: pair i of the first `dims` values of every head is rotated by the
// angle position · frequencies[i]; the values behind `dims` stay.
//   x, y: [N, A, P]   positions: [N]   frequencies: [dims/2]
// Su et al. 2021, arXiv:2104.09864. Frequencies and angles are rounded to fp32 as in the models
// that were trained with them; cosine and sine of that angle are exact here.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace espalier::reference {

struct RopeSizes {
  std::int64_t heads = 1, head_dim = 1;
  bool interleaved = false;     // pairs (2i, 2i + 1) instead of (i, i + dims/2)
  double attention_factor = 1;  // multiplies cosines and sines
};

/// The rotation (`direction` = 1), or its transpose (-1), which gives the gradient.
template <class S>
std::vector<S> rope(const std::vector<S>& x, const std::vector<std::int32_t>& positions,
                    const RopeSizes& z, const std::vector<float>& frequencies,
                    double direction = 1) {
  std::vector<S> y = x;
  const auto half = static_cast<std::int64_t>(frequencies.size());
  for (std::size_t n = 0; n < positions.size(); ++n) {
    for (std::int64_t a = 0; a < z.heads; ++a) {
      for (std::int64_t i = 0; i < half; ++i) {
        const float angle = frequencies[i] * static_cast<float>(positions[n]);
        const S c = z.attention_factor * std::cos(static_cast<double>(angle));
        const S s = z.attention_factor * direction * std::sin(static_cast<double>(angle));
        const std::size_t head = (n * z.heads + a) * z.head_dim;
        const std::size_t first = head + (z.interleaved ? 2 * i : i);
        const std::size_t second = head + (z.interleaved ? 2 * i + 1 : half + i);
        y[first] = x[first] * c - x[second] * s;
        y[second] = x[second] * c + x[first] * s;
      }
    }
  }
  return y;
}

/// theta^(-2i/dims), each step rounded to fp32.
inline std::vector<float> rope_frequencies(std::int64_t dims, double theta) {
  std::vector<float> f;
  for (std::int64_t i = 0; i < dims / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dims);
    f.push_back(1.0f / std::pow(static_cast<float>(theta), exponent));
  }
  return f;
}

/// Whole heads by unscaled frequencies.
template <class S>
std::vector<S> rope(const std::vector<S>& x, const std::vector<std::int32_t>& positions,
                    std::int64_t heads, std::int64_t head_dim, double theta, double direction = 1) {
  return rope(x, positions, RopeSizes{heads, head_dim}, rope_frequencies(head_dim, theta),
              direction);
}

/// theta^(-2i/dims) without rounding, scaled as YaRN does (arXiv:2309.00071, section 3.2).
inline std::vector<double> yarn_frequencies(std::int64_t dims, double theta, double factor,
                                            double original_positions, double beta_fast,
                                            double beta_slow, bool truncate) {
  const double two_pi = 2 * std::acos(-1.0);
  const auto pair_of = [&](double rotations) {  // whose frequency makes so many rotations
    return double(dims) / 2 * std::log(original_positions / (two_pi * rotations)) / std::log(theta);
  };
  double low = pair_of(beta_fast), high = pair_of(beta_slow);
  if (truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, double(dims - 1));
  std::vector<double> f;
  for (std::int64_t i = 0; i < dims / 2; ++i) {
    const double whole = std::pow(theta, -2.0 * double(i) / double(dims));
    const double ramp = std::min(std::max((double(i) - low) / (high - low), 0.0), 1.0);
    f.push_back(ramp * whole / factor + (1 - ramp) * whole);
  }
  return f;
}

/// The same, scaled as in Llama 3.1.
inline std::vector<double> llama3_frequencies(std::int64_t dims, double theta, double factor,
                                              double original_positions, double low, double high) {
  const double two_pi = 2 * std::acos(-1.0);
  std::vector<double> f;
  for (std::int64_t i = 0; i < dims / 2; ++i) {
    const double whole = std::pow(theta, -2.0 * double(i) / double(dims));
    const double rotations = original_positions * whole / two_pi;
    const double kept = std::min(std::max((rotations - low) / (high - low), 0.0), 1.0);
    f.push_back((1 - kept) * whole / factor + kept * whole);
  }
  return f;
}

}  // namespace espalier::reference
