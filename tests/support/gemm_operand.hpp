// SPDX-License-Identifier: Apache-2.0
// Operands of matrix products in memory of any type and layout, and their products in double.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <espalier/core/random.hpp>
#include <espalier/ops/cpu/gemm.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"

namespace espalier::test {

inline std::vector<cpu::Isa> allowed_isas() {
  std::vector<cpu::Isa> isas;
  for (const cpu::Isa isa : cpu::kIsas) {
    if (isa <= cpu::best_isa()) isas.push_back(isa);
  }
  return isas;
}

/// A matrix in memory of any type, with a row stride and garbage (NaN) between the rows, beside its
/// values in double.
struct Operand {
  std::int64_t rows, cols, stride;
  DType dtype;
  bool transposed;
  std::vector<double> values;  // [rows, cols]
  std::vector<std::byte> memory;

  cpu::MatrixView view() const { return {memory.data(), dtype, stride, transposed}; }
  double at(std::int64_t i, std::int64_t j) const { return values[i * cols + j]; }
};

template <class Draw>
Operand make_operand(std::int64_t rows, std::int64_t cols, DType dtype, bool transposed,
                     std::int64_t gap, Draw draw) {
  const std::int64_t height = transposed ? cols : rows, width = transposed ? rows : cols;
  Operand o{rows, cols, width + gap, dtype, transposed, {}, {}};
  o.values.resize(static_cast<std::size_t>(rows * cols));
  // Exactly as long as needed: reading behind the last element is an error that ASan sees.
  const std::int64_t length = height == 0 ? 0 : (height - 1) * o.stride + width;
  o.memory.resize(static_cast<std::size_t>(length) * size_of(dtype));
  visit_dtype<double, float, bf16, f16>("test", dtype, [&]<class M>() {
    const auto narrow = [](double x) {
      if constexpr (sizeof(M) == 2) {
        return M(static_cast<float>(x));
      } else {
        return static_cast<M>(x);
      }
    };
    std::vector<M> memory(static_cast<std::size_t>(length), narrow(std::nan("")));
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        const M x = narrow(draw(i * cols + j));
        memory[transposed ? j * o.stride + i : i * o.stride + j] = x;
        if constexpr (sizeof(M) == 2) {
          o.values[i * cols + j] = static_cast<double>(static_cast<float>(x));
        } else {
          o.values[i * cols + j] = static_cast<double>(x);
        }
      }
    }
    if (length > 0) std::memcpy(o.memory.data(), memory.data(), o.memory.size());
  });
  return o;
}

inline auto normals(std::uint64_t seed) {
  return [philox = Philox(seed)](std::int64_t i) {
    return static_cast<double>(philox.normal(static_cast<std::uint64_t>(i)));
  };
}
inline auto small_integers(std::uint64_t seed) {
  return [philox = Philox(seed)](std::int64_t i) {
    return static_cast<double>(philox.below(static_cast<std::uint64_t>(i), 9)) - 4.0;
  };
}

/// [m, n] without gaps, plus the sum of |terms| of each element: what the error is relative to.
struct ProductReference {
  std::vector<double> c, magnitude;
};
inline ProductReference product_reference(const Operand& a, const Operand& b, double alpha,
                                          double beta, const std::vector<double>& c) {
  ProductReference r;
  for (std::int64_t i = 0; i < a.rows; ++i) {
    for (std::int64_t j = 0; j < b.cols; ++j) {
      double sum = 0, magnitude = 0;
      for (std::int64_t k = 0; k < a.cols; ++k) {
        sum += a.at(i, k) * b.at(k, j);
        magnitude += std::abs(a.at(i, k) * b.at(k, j));
      }
      const double old = c[i * b.cols + j];
      r.c.push_back(alpha * sum + (beta == 0 ? 0 : beta * old));
      r.magnitude.push_back(std::abs(alpha) * magnitude + std::abs(beta * old));
    }
  }
  return r;
}

template <FloatElement T>
T rounded(double x) {
  return static_cast<T>(static_cast<acc_t<T>>(x));
}
template <FloatElement T>
double widened(T x) {
  return static_cast<acc_t<T>>(x);
}

/// Runs one product with a gap between the rows of C and checks values and gaps. `exact`: the sum
/// has no rounding errors, only C's type may round.
template <FloatElement T>
void check_product(const Operand& a, const Operand& b, double alpha, double beta, bool exact) {
  const std::int64_t m = a.rows, n = b.cols, k = a.cols, stride = n + 3;
  const T gap = rounded<T>(77);
  std::vector<double> before(static_cast<std::size_t>(m * n));
  std::vector<T> c(static_cast<std::size_t>(m * stride), gap);
  for (std::int64_t i = 0; i < m * n; ++i) {
    before[i] = small_integers(99)(i);
    c[i / n * stride + i % n] = rounded<T>(beta == 0 ? std::nan("") : before[i]);
  }
  cpu::gemm<T>(m, n, k, a.view(), b.view(), c.data(), stride, static_cast<acc_t<T>>(alpha),
               static_cast<acc_t<T>>(beta));
  const ProductReference want = product_reference(a, b, alpha, beta, before);
  const double rtol = tol(dtype_of<acc_t<T>>::value, k);
  // Rounding to a narrower C is half an epsilon.
  const double narrowing = std::same_as<T, bf16> ? epsilon_of(DType::bf16) / 2 : 0;
  std::size_t wrong = 0;
  std::string first;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < stride; ++j) {
      const double got = widened(c[i * stride + j]);
      const double expected = j >= n  ? widened(gap)
                              : exact ? widened(rounded<T>(want.c[i * n + j]))
                                      : want.c[i * n + j];
      const double limit =
          j >= n || exact ? 0 : rtol * want.magnitude[i * n + j] + narrowing * std::abs(expected);
      if (std::abs(got - expected) <= limit) continue;
      if (wrong++ == 0)
        first = detail::concat({"c[", i, ",", j, "] is ", got, ", want ", expected});
    }
  }
  INFO("m n k " << m << ' ' << n << ' ' << k << ", a " << name(a.dtype) << (a.transposed ? "T" : "")
                << ", b " << name(b.dtype) << (b.transposed ? "T" : "") << ", alpha " << alpha
                << ", beta " << beta << ": " << wrong << " wrong; " << first);
  CHECK(wrong == 0);
}

struct Size {
  std::int64_t m, n, k;
};

template <FloatElement T>
std::vector<T> product(const Operand& a, const Operand& b) {
  std::vector<T> c(static_cast<std::size_t>(a.rows * b.cols));
  cpu::gemm<T>(a.rows, b.cols, a.cols, a.view(), b.view(), c.data(), b.cols);
  return c;
}
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace espalier::test
