// SPDX-License-Identifier: Apache-2.0
// Comparison of sequences of numbers. A NaN on either side is a mismatch, and the tolerance is a
// function of the element type and of how many terms were summed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <ostream>

#include <espalier/core/dtype.hpp>

namespace espalier::test {

/// Rounding unit of `dtype`.
inline double epsilon_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 0x1p-52;
    case DType::f32:
      return 0x1p-23;
    case DType::f16:
      return 0x1p-10;
    case DType::bf16:
      return 0x1p-7;
    default:
      return 0;
  }
}

/// Relative error to expect of a sum of `reduction_length` rounded terms: errors grow as a random
/// walk.
inline double tol(DType dtype, std::int64_t reduction_length) {
  const auto terms = static_cast<double>(std::max<std::int64_t>(reduction_length, 1));
  return 4 * epsilon_of(dtype) * std::sqrt(terms);
}

/// The same for an op that computes in acc_t<T> and rounds its result to T once.
template <FloatElement T>
double tol(std::int64_t reduction_length) {
  return std::max(tol(dtype_of<T>::value, 1), tol(dtype_of<acc_t<T>>::value, reduction_length));
}

struct Mismatch {
  std::size_t index = 0;  // of the worst
  std::size_t count = 0;
  double worst = 0;  // error in tolerances
  double got = 0;
  double want = 0;
};

inline std::ostream& operator<<(std::ostream& os, const Mismatch& m) {
  return os << m.count << " wrong; worst at " << m.index << ": got " << m.got << ", want " << m.want
            << ", " << m.worst << "x tol";
}

/// Compares element by element with `atol + rtol * |want|`. Different lengths are a mismatch too.
template <class A, class B>
Mismatch compare(const A& got, const B& want, double atol, double rtol) {
  Mismatch m;
  if (std::size(got) != std::size(want)) {
    const auto longer = std::max(std::size(got), std::size(want));
    return {std::min(std::size(got), std::size(want)), longer,
            std::numeric_limits<double>::infinity(), static_cast<double>(std::size(got)),
            static_cast<double>(std::size(want))};
  }
  for (std::size_t i = 0; i < std::size(want); ++i) {
    const auto g = static_cast<double>(got[i]), w = static_cast<double>(want[i]);
    const double err = std::abs(g - w), limit = atol + rtol * std::abs(w);
    if (err <= limit) continue;  // NaN falls through
    ++m.count;
    if (m.count == 1 || !(err / limit <= m.worst)) m = {i, m.count, err / limit, g, w};
  }
  return m;
}

}  // namespace espalier::test
