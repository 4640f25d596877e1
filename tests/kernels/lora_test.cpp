// SPDX-License-Identifier: Apache-2.0
// The low-rank update of one linear layer per expert and its gradients, on both implementations,
// against plain loops in double.
#include <algorithm>
#include <cmath>
#include <espalier/kernels/lora.cuh>
#include <functional>

#include "grouped_gemm_cases.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

using Bf16 = __nv_bfloat16;
using F16 = __half;

struct LoraProblem {
  Groups groups;
  std::int64_t width;
  int rank;
  float scale = 2;
  std::int64_t offset = 0;  // in elements, of the matrices: 1 takes them off 16 bytes

  std::int64_t rows() const { return groups.rows; }
};

// Rows of groups; those that belong to nobody stay NaN.
template <class T>
Buffer<T> rows_of(const std::vector<double>& values, std::int64_t size, std::int64_t offset) {
  Buffer<T> b(size, offset);
  std::copy_n(Buffer<T>(values).data(), values.size(), b.data());
  return b;
}

template <class T>
double rounded(double v) {
  return kernels::to_float(kernels::from_float<T>(static_cast<float>(v)));
}

// What the products take: a matrix [R, width], rows of rank r beside it, and a factor per group.
template <class T>
struct LoraInputs {
  LoraProblem p;
  std::vector<double> matrix, small;
  std::vector<std::vector<double>> factor;  // [width, r] or [r, width], in f32
  Buffer<T> matrix_buffer, small_buffer;
  Matrices<float> factors;
  Buffer<std::int32_t> offsets;

  explicit LoraInputs(const LoraProblem& problem, double of_matrix = 1)
      : p(problem),
        matrix(normal_as<T>(p.groups.used() * p.width, 1, of_matrix)),
        small(normal_as<T>(p.groups.used() * p.rank, 2)),
        factor(make_factors(p)),
        matrix_buffer(rows_of<T>(matrix, p.rows() * p.width, p.offset)),
        small_buffer(rows_of<T>(small, p.rows() * p.rank, 0)),
        factors(factor),
        offsets(buffer_of(p.groups.offsets)) {}

  static std::vector<std::vector<double>> make_factors(const LoraProblem& p) {
    std::vector<std::vector<double>> all;
    for (int g = 0; g < p.groups.count(); ++g) {
      // Groups without rows have no factor either: their pointers lead to nothing.
      const bool empty = p.groups.offsets[g] == p.groups.offsets[g + 1];
      all.push_back(normal_as<float>(empty ? 0 : p.width * p.rank, 100 + static_cast<unsigned>(g)));
    }
    return all;
  }

  // The factor as products see it, at (column, j).
  double at(int g, std::int64_t column, std::int64_t j, bool rank_inner) const {
    return rounded<T>(factor[g][rank_inner ? column * p.rank + j : j * p.width + column]);
  }

  // f(group, row) for all rows of groups.
  void each_row(const std::function<void(int, std::int64_t)>& f) const {
    for (int g = 0; g < p.groups.count(); ++g) {
      for (std::int64_t r = p.groups.offsets[g]; r < p.groups.offsets[g + 1]; ++r) f(g, r);
    }
  }

  std::vector<double> rows_times_factor(double scale, bool rank_inner) const {
    std::vector<double> out;
    each_row([&](int g, std::int64_t r) {
      for (int j = 0; j < p.rank; ++j) {
        double sum = 0;
        for (std::int64_t c = 0; c < p.width; ++c) {
          sum += matrix[r * p.width + c] * at(g, c, j, rank_inner);
        }
        out.push_back(scale * sum);
      }
    });
    return out;
  }

  std::vector<std::vector<double>> gradients(double scale, bool rank_inner) const {
    std::vector<std::vector<double>> out(factor.size(), std::vector<double>(p.width * p.rank));
    each_row([&](int g, std::int64_t r) {
      for (std::int64_t c = 0; c < p.width; ++c) {
        for (int j = 0; j < p.rank; ++j) {
          out[g][rank_inner ? c * p.rank + j : j * p.width + c] +=
              scale * matrix[r * p.width + c] * small[r * p.rank + j];
        }
      }
    });
    return out;
  }

  std::vector<double> updated(double scale, bool rank_inner, bool add) const {
    std::vector<double> out;
    each_row([&](int g, std::int64_t r) {
      for (std::int64_t c = 0; c < p.width; ++c) {
        double sum = 0;
        for (int j = 0; j < p.rank; ++j) sum += small[r * p.rank + j] * at(g, c, j, rank_inner);
        out.push_back(scale * sum + (add ? matrix[r * p.width + c] : 0));
      }
    });
    return out;
  }
};

Buffer<float> floats(std::size_t bytes) {
  return Buffer<float>(static_cast<std::int64_t>(bytes / sizeof(float)));
}

// Sums of `terms` products of standard normal values, times up to 2; nothing beyond the last group.
template <class T>
void require_rows(const Buffer<T>& got, const std::vector<double>& want, std::int64_t terms) {
  REQUIRE(got.untouched(want.size(), got.size()));
  REQUIRE(got.guarded());
  const std::vector<double> all = got.values();
  const Buffer<T> used({all.begin(), all.begin() + static_cast<std::ptrdiff_t>(want.size())});
  require_close(used, want, kernel_tol<T>(terms),
                2 * kernel_tol<float>(terms) * std::sqrt(1.0 + double(terms)));
}

void require_gradients(const Matrices<float>& got, const std::vector<std::vector<double>>& want,
                       std::int64_t terms, std::string& bytes) {
  for (std::size_t g = 0; g < want.size(); ++g) {
    CAPTURE(g);
    require_rows(got.of[g], want[g], terms);
    bytes += got.of[g].bytes();
  }
}

Matrices<float> fresh_gradients(const LoraProblem& p) {
  return Matrices<float>(std::vector<std::vector<double>>(
      static_cast<std::size_t>(p.groups.count()),
      std::vector<double>(static_cast<std::size_t>(p.width * p.rank), std::nan(""))));
}

template <class T>
std::string run_down(const LoraInputs<T>& in, const std::vector<double>& want) {
  const LoraProblem& p = in.p;
  Buffer<T> s(p.rows() * p.rank);
  auto workspace = floats(kernels::lora_down_workspace_bytes(p.rows(), p.width, p.rank));
  REQUIRE(kernels::lora_down(s.data(), in.matrix_buffer.data(), in.factors.in(), in.offsets.data(),
                             p.groups.count(), p.rows(), p.width, p.rank, workspace.data(),
                             nullptr) == cudaSuccess);
  require_rows(s, want, p.width);
  REQUIRE(workspace.guarded());
  return s.bytes();
}

template <class T>
std::string run_up(const LoraInputs<T>& in, const std::vector<double>& want, bool add) {
  const LoraProblem& p = in.p;
  // Not added to, y is NaN before and must not be read.
  auto y = rows_of<T>(add ? in.matrix : std::vector<double>(), p.rows() * p.width, p.offset);
  REQUIRE(kernels::lora_up(y.data(), in.small_buffer.data(), in.factors.in(), in.offsets.data(),
                           p.groups.count(), p.rows(), p.width, p.rank, p.scale, add,
                           nullptr) == cudaSuccess);
  require_rows(y, want, p.rank);
  return y.bytes();
}

template <class T>
std::string run_backward_up(const LoraInputs<T>& in, const std::vector<double>& want_ds,
                            const std::vector<std::vector<double>>& want_db) {
  const LoraProblem& p = in.p;
  Buffer<T> ds(p.rows() * p.rank);
  auto db = fresh_gradients(p);
  auto workspace = floats(kernels::lora_backward_up_workspace_bytes(p.rows(), p.width, p.rank));
  REQUIRE(kernels::lora_backward_up(ds.data(), db.pointers.data(), in.matrix_buffer.data(),
                                    in.small_buffer.data(), in.factors.in(), in.offsets.data(),
                                    p.groups.count(), p.rows(), p.width, p.rank, p.scale,
                                    workspace.data(), nullptr) == cudaSuccess);
  require_rows(ds, want_ds, p.width);
  REQUIRE(workspace.guarded());
  std::string bytes = ds.bytes();
  require_gradients(db, want_db, p.rows(), bytes);
  return bytes;
}

template <class T>
std::string run_backward_down(const LoraInputs<T>& in,
                              const std::vector<std::vector<double>>& want) {
  const LoraProblem& p = in.p;
  auto da = fresh_gradients(p);
  auto workspace = floats(kernels::lora_backward_down_workspace_bytes(p.rows(), p.width, p.rank));
  REQUIRE(kernels::lora_backward_down(da.pointers.data(), in.small_buffer.data(),
                                      in.matrix_buffer.data(), in.offsets.data(), p.groups.count(),
                                      p.rows(), p.width, p.rank, workspace.data(),
                                      nullptr) == cudaSuccess);
  REQUIRE(workspace.guarded());
  std::string bytes;
  require_gradients(da, want, p.rows(), bytes);
  return bytes;
}

template <class T>
std::string run_backward_input(const LoraInputs<T>& in, const std::vector<double>& want, bool add) {
  const LoraProblem& p = in.p;
  auto dx = rows_of<T>(add ? in.matrix : std::vector<double>(), p.rows() * p.width, p.offset);
  REQUIRE(kernels::lora_backward_input(dx.data(), in.small_buffer.data(), in.factors.in(),
                                       in.offsets.data(), p.groups.count(), p.rows(), p.width,
                                       p.rank, add, nullptr) == cudaSuccess);
  require_rows(dx, want, p.rank);
  return dx.bytes();
}

template <class T>
void check_lora(const LoraProblem& p) {
  CAPTURE(p.groups.name, p.width, p.rank, p.scale, p.offset);
  const LoraInputs<T> in(p);
  const auto s = in.rows_times_factor(1, false), ds = in.rows_times_factor(p.scale, true);
  const auto da = in.gradients(1, false), db = in.gradients(p.scale, true);
  const auto y = in.updated(p.scale, true, true), fresh_y = in.updated(p.scale, true, false);
  const auto dx = in.updated(1, false, true), fresh_dx = in.updated(1, false, false);
  same_in_every_schedule([&] {
    return run_down(in, s) + run_up(in, y, true) + run_up(in, fresh_y, false) +
           run_backward_up(in, ds, db) + run_backward_down(in, da) +
           run_backward_input(in, dx, true) + run_backward_input(in, fresh_dx, false);
  });
}

}  // namespace

TEMPLATE_TEST_CASE("lora: updates and gradients of every expert", "[kernels][lora]", float, Bf16) {
  for (const Groups& g : all_groups()) {
    if (g.count() > 100) continue;  // a block for each takes its time here; 70 are among the cases
    check_lora<TestType>({g, 24, 8});
  }
}

TEMPLATE_TEST_CASE("lora: ranks and widths off and on the tiles", "[kernels][lora]", float, Bf16) {
  const Groups g = groups_of("", {66, 0, 3}, 2);
  for (const auto& [width, rank] : {std::pair{1, 1},
                                    {7, 3},
                                    {0, 2},
                                    {5, 0},
                                    {65, 17},
                                    {8, 8},
                                    {136, 16},
                                    {520, 24},
                                    {264, 64},
                                    {40, 72}}) {
    check_lora<TestType>({g, width, rank, -2});
  }
}

TEMPLATE_TEST_CASE("lora: matrices on and off 16 bytes", "[kernels][lora]", Bf16, F16) {
  check_lora<TestType>({groups_of("", {5, 0, 40}, 1), 136, 16, 0.5f, 0});
  check_lora<TestType>({groups_of("", {5, 0, 40}, 1), 136, 16, 0.5f, 1});
}

TEMPLATE_TEST_CASE("lora: experts of several chunks of rows", "[kernels][lora]", float, Bf16) {
  STATIC_REQUIRE(kernels::lora_chunk_rows(24) == 128);
  check_lora<TestType>({groups_of("", {300, 0, 129, 128, 1}, 3), 24, 8});
  check_lora<TestType>({groups_of("", {257}), 24, 16});
}

TEMPLATE_TEST_CASE("lora: a row's and a group's bits do not depend on the others",
                   "[kernels][lora]", float, Bf16) {
  using T = TestType;
  constexpr std::int64_t kWidth = 520;
  constexpr int kRank = 8;
  // The rows of the middle group are the same; around them are others, of which one is NaN.
  const auto middle = normal_as<T>(140 * kWidth, 5), small = normal_as<T>(140 * kRank, 6);
  const auto factor = normal_as<float>(kWidth * kRank, 7);
  const auto run = [&](int before, int behind) {
    const Groups g = groups_of("", {before, 140, behind});
    auto matrix = normal_as<T>(g.rows * kWidth, 8);
    auto beside = normal_as<T>(g.rows * kRank, 9);
    if (before > 0) matrix[0] = beside[0] = std::nan("");
    std::copy(middle.begin(), middle.end(), matrix.begin() + before * kWidth);
    std::copy(small.begin(), small.end(), beside.begin() + before * kRank);
    const Buffer<T> dy(matrix), s(beside);
    const Matrices<float> b({factor, factor, factor});
    auto db = fresh_gradients({g, kWidth, kRank});
    Buffer<T> ds(g.rows * kRank);
    const auto offsets = buffer_of(g.offsets);
    auto workspace = floats(kernels::lora_backward_up_workspace_bytes(g.rows, kWidth, kRank));
    REQUIRE(kernels::lora_backward_up(ds.data(), db.pointers.data(), dy.data(), s.data(), b.in(),
                                      offsets.data(), 3, g.rows, kWidth, kRank, 1.0f,
                                      workspace.data(), nullptr) == cudaSuccess);
    const auto values = ds.values();
    for (std::int64_t i = 0; i < g.rows * kRank; ++i) {
      CAPTURE(i);
      REQUIRE(std::isnan(values[i]) == (before > 0 && i < kRank));
    }
    return ds.bytes().substr(before * kRank * sizeof(T), 140 * kRank * sizeof(T)) +
           db.of[1].bytes();
  };
  const std::string alone = run(0, 0);
  for (const auto& [before, behind] : {std::pair{1, 0}, {131, 7}}) {
    const bool same = run(before, behind) == alone;
    REQUIRE(same);
  }
}

TEMPLATE_TEST_CASE("lora: the same bits in 20 runs", "[kernels][lora]", Bf16) {
  const LoraInputs<TestType> in({groups_of("", {70, 0, 3}, 1), 136, 16});
  const auto ds = in.rows_times_factor(2, true);
  const auto db = in.gradients(2, true);
  const std::string first = run_backward_up(in, ds, db);
  for (int i = 0; i < 20; ++i) {
    const bool same = run_backward_up(in, ds, db) == first;
    REQUIRE(same);
  }
}

TEMPLATE_TEST_CASE("lora: more than 2^31 elements", "[kernels][lora]", float, Bf16) {
  // Only the last blocks run: the last rows of x, of s and of y lie beyond 2^31.
  using T = TestType;
  constexpr std::int64_t kRows = (std::int64_t{1} << 20) * 16 + 3, kWidth = 136;
  constexpr int kRank = 8;
  SparseMemory x(kRows * kWidth * sizeof(T)), s(kRows * kRank * sizeof(T));
  SparseMemory workspace(kernels::lora_down_workspace_bytes(kRows, kWidth, kRank));
  const auto factor = rounded_integers(kWidth * kRank, 3);
  const Matrices<float> a({factor});
  const auto offsets = buffer_of<std::int32_t>({0, static_cast<std::int32_t>(kRows)});
  const auto values = rounded_integers(3 * kWidth, 7);
  T* last = x.as<T>() + (kRows - 3) * kWidth;
  for (std::int64_t i = 0; i < 3 * kWidth; ++i) {
    last[i] = kernels::from_float<T>(static_cast<float>(values[i]));
  }
  const simulator::OnlyLastBlock only;
  REQUIRE(kernels::lora_down(s.as<T>(), x.as<const T>(), a.in(), offsets.data(), 1, kRows, kWidth,
                             kRank, workspace.as<void>(), nullptr) == cudaSuccess);
  for (std::int64_t r = 0; r < 3; ++r) {
    for (int j = 0; j < kRank; ++j) {
      double sum = 0;
      for (std::int64_t c = 0; c < kWidth; ++c)
        sum += values[r * kWidth + c] * factor[j * kWidth + c];
      REQUIRE(kernels::to_float(s.as<T>()[(kRows - 3 + r) * kRank + j]) == rounded<T>(sum));
    }
  }
  const auto before = kernels::to_float(last[3 * kWidth - 1]);
  REQUIRE(kernels::lora_backward_input(x.as<T>(), s.as<const T>(), a.in(), offsets.data(), 1, kRows,
                                       kWidth, kRank, true, nullptr) == cudaSuccess);
  double sum = before;
  for (int j = 0; j < kRank; ++j) {
    sum +=
        kernels::to_float(s.as<T>()[kRows * kRank - kRank + j]) * factor[j * kWidth + kWidth - 1];
  }
  REQUIRE(kernels::to_float(last[3 * kWidth - 1]) == rounded<T>(sum));
}

#ifndef ESP_ON_GPU  // nobody names the kernels there
TEST_CASE("lora: the implementation is chosen by types, sizes and alignment", "[kernels][lora]") {
  const auto on_tensor_cores = [](std::int64_t width, int rank, std::int64_t offset, auto zero) {
    using T = decltype(zero);
    const LoraProblem p{groups_of("", {3}), width, rank, 1, offset};
    const LoraInputs<T> in(p);
    simulator::g_log.kernels.clear();
    run_down(in, in.rows_times_factor(1, false));
    REQUIRE(simulator::g_log.kernels.size() == 2);              // and the sums
    const bool down = simulator::g_log.kernels[0] == "kernel";  // launch_lora_mma
    simulator::g_log.kernels.clear();
    run_up(in, in.updated(1, true, true), true);
    REQUIRE(simulator::g_log.kernels.size() == 1);
    REQUIRE(down == (simulator::g_log.kernels[0] == "kernel"));
    return down;
  };
  REQUIRE(on_tensor_cores(24, 16, 0, Bf16()));
  REQUIRE(on_tensor_cores(24, 64, 0, F16()));
  REQUIRE_FALSE(on_tensor_cores(24, 16, 0, 0.0f));
  REQUIRE_FALSE(on_tensor_cores(23, 16, 0, Bf16()));
  REQUIRE_FALSE(on_tensor_cores(24, 12, 0, Bf16()));
  REQUIRE_FALSE(on_tensor_cores(24, 72, 0, Bf16()));
  REQUIRE_FALSE(on_tensor_cores(24, 16, 1, Bf16()));
}
#endif

TEST_CASE("lora: floors of a Mixtral layer", "[kernels][lora]") {
  // T = 4096, two experts of eight for each, r = 16, bf16; 3.0 TB/s.
  constexpr std::int64_t kRows = 8192, kHidden = 4096, kFfn = 14336;
  const auto backward = [](std::int64_t k, std::int64_t n) {
    return kernels::lora_backward_up_bytes(kRows, n, 8, 16, 2) +
           kernels::lora_backward_down_bytes(kRows, k, 8, 16, 2);
  };
  const double us = (2 * backward(kHidden, kFfn) + backward(kFfn, kHidden)) / 3.0e6;
  REQUIRE(us == Approx(302).epsilon(0.06));  // with factors and their gradients in f32
}
