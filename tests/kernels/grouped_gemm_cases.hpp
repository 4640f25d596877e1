// SPDX-License-Identifier: Apache-2.0
// What every implementation of the grouped matrix product is tried on: all layouts against plain
// loops in double. An implementation is a struct with the types C, A, B, the multiple kAlign that
// its sizes must be of, rows<form>, and tn.
#pragma once

#include <algorithm>
#include <cmath>

#include <espalier/kernels/grouped_gemm.hpp>

#include "cases.hpp"

namespace espalier::test {

using kernels::GemmForm;

struct Groups {
  std::string name;
  std::vector<std::int32_t> offsets;
  std::int64_t rows;  // of the arrays; those past the last offset belong to nobody

  int count() const { return static_cast<int>(offsets.size()) - 1; }
  std::int64_t used() const { return offsets.back(); }
};

inline Groups groups_of(std::string name, const std::vector<int>& sizes, std::int64_t spare = 0) {
  Groups g{std::move(name), {0}, 0};
  for (const int s : sizes) g.offsets.push_back(g.offsets.back() + s);
  g.rows = g.offsets.back() + spare;
  return g;
}

inline std::vector<Groups> all_groups() {
  std::vector<Groups> all;
  for (const RoutingCase& c : routing_cases()) {
    all.push_back({c.name, row_maps(c).offsets, c.slots()});
  }
  all.push_back(groups_of("borders off and on the tiles", {5, 0, 70, 1, 0, 128, 131}, 9));
  all.push_back(groups_of("all to the last", {0, 0, 0, 150}));
  all.push_back(groups_of("no expert has rows, yet there are some", {0, 0, 0}, 70));
  all.push_back(groups_of("one row", {0, 1, 0}));
  std::vector<int> few(70, 0);
  few[3] = few[31] = few[32] = few[69] = 2;
  all.push_back(groups_of("70 experts, of which 4 have rows", few, 1));
  return all;
}

// Device arrays of the groups' matrices, and the array of pointers to them.
template <class T>
struct Matrices {
  std::vector<Buffer<T>> of;
  DeviceVector<T*> pointers;

  explicit Matrices(std::vector<std::vector<double>> values) {
    for (auto& v : values) of.emplace_back(v);
    for (auto& b : of) pointers.push_back(b.data());
  }
  const T* const* in() const { return pointers.data(); }
};

inline std::vector<double> rounded_integers(std::int64_t n, int step) {
  std::vector<double> v;
  for (std::int64_t i = 0; i < n; ++i) v.push_back(static_cast<double>(i * step % 5 - 2));
  return v;
}

struct Problem {
  Groups groups;
  std::int64_t n, k;
  float alpha, beta;
};

// What is known of c before: with beta 0 it is NaN, and must not be read.
template <class C>
std::vector<double> c_before(std::int64_t size, float beta) {
  if (beta == 0) return std::vector<double>(static_cast<std::size_t>(size), std::nan(""));
  return normal_as<C>(size, 9);
}

template <class C>
void require_product(const Buffer<C>& c, const std::vector<double>& want, std::int64_t terms) {
  // The terms are standard normal: a sum of them is as large as the root of their number.
  const double t = kernel_tol<C>(terms);
  require_close(c, want, t, kernel_tol<float>(terms) * std::sqrt(1.0 + double(terms)));
}

// nt or nn of rows of groups against the loop.
template <class Impl, GemmForm kForm>
void check_rows(const Problem& p) {
  using C = typename Impl::C;
  using A = typename Impl::A;
  using B = typename Impl::B;
  constexpr bool kTransposed = kForm == GemmForm::nt;
  const Groups& g = p.groups;
  CAPTURE(g.name, p.n, p.k, p.alpha, p.beta, kTransposed);
  const auto a_values = normal_as<A>(g.used() * p.k, 1);
  Buffer<A> a(g.rows * p.k);  // rows that belong to nobody stay NaN
  std::copy_n(Buffer<A>(a_values).data(), a_values.size(), a.data());
  std::vector<std::vector<double>> b_values;
  for (int e = 0; e < g.count(); ++e) {
    // Experts without rows have no weights either: their pointers lead to nothing.
    const bool empty = g.offsets[e] == g.offsets[e + 1];
    b_values.push_back(normal_as<B>(empty ? 0 : p.n * p.k, 100 + static_cast<unsigned>(e)));
  }
  const Matrices<B> b(b_values);
  const auto offsets = buffer_of(g.offsets);
  const auto before = c_before<C>(g.used() * p.n, p.beta);

  std::vector<double> want;
  for (int e = 0; e < g.count(); ++e) {
    for (std::int64_t r = g.offsets[e]; r < g.offsets[e + 1]; ++r) {
      for (std::int64_t j = 0; j < p.n; ++j) {
        double sum = 0;
        for (std::int64_t l = 0; l < p.k; ++l) {
          sum += a_values[r * p.k + l] * b_values[e][kTransposed ? j * p.k + l : l * p.n + j];
        }
        want.push_back(p.alpha * sum);
        if (p.beta != 0) want.back() += p.beta * before[r * p.n + j];
      }
    }
  }
  same_in_every_schedule([&] {
    Buffer<C> c(g.rows * p.n);
    if (p.beta != 0) std::copy_n(Buffer<C>(before).data(), before.size(), c.data());
    const cudaError_t error = Impl::template rows<kForm>(
        c.data(), std::as_const(a).data(), b.in(), offsets.data(), g.count(), g.rows, p.n, p.k,
        p.alpha, p.beta, static_cast<cudaStream_t>(nullptr));
    REQUIRE(error == cudaSuccess);
    REQUIRE(c.untouched(want.size(), c.size()));
    REQUIRE(c.guarded());
    const std::vector<double> all = c.values();
    Buffer<C> used({all.begin(), all.begin() + static_cast<std::ptrdiff_t>(want.size())});
    require_product(used, want, p.k);
    return c.bytes();
  });
}

// tn: a, b [R, m], [R, n].
template <class Impl>
void check_tn(const Problem& p) {
  using C = typename Impl::C;
  using A = typename Impl::A;
  using B = typename Impl::B;
  const Groups& g = p.groups;
  const std::int64_t m = p.k;
  CAPTURE(g.name, m, p.n, p.alpha, p.beta);
  const auto a_values = normal_as<A>(g.used() * m, 1), b_values = normal_as<B>(g.used() * p.n, 2);
  Buffer<A> a(g.rows * m);
  Buffer<B> b(g.rows * p.n);
  std::copy_n(Buffer<A>(a_values).data(), a_values.size(), a.data());
  std::copy_n(Buffer<B>(b_values).data(), b_values.size(), b.data());
  const auto offsets = buffer_of(g.offsets);
  const auto before = c_before<C>(m * p.n, p.beta);

  std::vector<std::vector<double>> want;
  for (int e = 0; e < g.count(); ++e) {
    want.emplace_back();
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < p.n; ++j) {
        double sum = 0;
        for (std::int64_t r = g.offsets[e]; r < g.offsets[e + 1]; ++r) {
          sum += a_values[r * m + i] * b_values[r * p.n + j];
        }
        want[e].push_back(p.alpha * sum);
        if (p.beta != 0) want[e].back() += p.beta * before[i * p.n + j];
      }
    }
  }
  same_in_every_schedule([&] {
    Matrices<C> c(std::vector<std::vector<double>>(static_cast<std::size_t>(g.count()), before));
    const cudaError_t error =
        Impl::tn(c.pointers.data(), std::as_const(a).data(), std::as_const(b).data(),
                 offsets.data(), g.count(), m, p.n, p.alpha, p.beta, nullptr);
    REQUIRE(error == cudaSuccess);
    std::string bytes;
    for (int e = 0; e < g.count(); ++e) {
      require_product(c.of[e], want[e], g.offsets[e + 1] - g.offsets[e]);
      bytes += c.of[e].bytes();
    }
    return bytes;
  });
}

// Sizes up to a multiple of what the implementation needs.
template <class Impl>
std::int64_t fit(std::int64_t size) {
  return (size + Impl::kAlign - 1) / Impl::kAlign * Impl::kAlign;
}

}  // namespace espalier::test
