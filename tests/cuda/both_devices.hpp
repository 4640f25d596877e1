// SPDX-License-Identifier: Apache-2.0
// Runs a function of variables on the CPU and on the device Cuda, forward and backward, and
// compares.
#pragma once

#include <initializer_list>
#include <utility>
#include <vector>

#include <espalier/autograd/var.hpp>
#include <espalier/cuda/device.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/make_tensor.hpp"

namespace espalier::test {

/// Value and gradients of one run.
struct DeviceRun {
  std::vector<double> value;
  std::vector<std::vector<double>> grads;
};

template <class T, class D, class F, std::size_t... I>
DeviceRun run_on(const std::vector<Shape>& shapes, F&& f, std::index_sequence<I...>) {
  const std::vector<Var<T, D>> inputs = {
      parameter(to<D>(make_tensor<T>(shapes[I], normal_of<T>(shapes[I].numel(), I + 1))))...};
  const auto y = f(inputs[I]...);
  using Y = typename decltype(y.value())::value_type;
  const auto dy = to<D>(make_tensor<Y>(y.shape(), normal_of<Y>(y.shape().numel(), 77)));
  backward(y, dy);
  DeviceRun run{to_vector(y.any().on_host()), {}};
  for (const auto& input : inputs) run.grads.push_back(to_vector(input.grad().on_host()));
  return run;
}

/// Sums of up to `length` terms, in units of the largest.
inline void require_close_runs(const std::vector<double>& got, const std::vector<double>& want,
                               DType type, std::int64_t length = 16) {
  double largest = 0;
  for (const double v : want) {
    if (std::isfinite(v)) largest = std::max(largest, std::abs(v));
  }
  const double t = tol(type, length);
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (std::isinf(want[i]) && got[i] == want[i]) continue;  // minus infinity of a mask
    INFO(i << ": got " << got[i] << ", want " << want[i]);
    REQUIRE(std::abs(got[i] - want[i]) <= t * largest);
  }
}

/// f of parameters of these shapes gives the same, to rounding, on both devices.
template <class T, class F>
void on_both_devices(std::initializer_list<Shape> shapes, F&& f) {
  const std::vector<Shape> list(shapes);
  const auto run = [&]<class D>(D) {
    switch (list.size()) {
      case 1:
        if constexpr (std::is_invocable_v<F, Var<T, D>>) {
          return run_on<T, D>(list, f, std::make_index_sequence<1>());
        }
        break;
      case 2:
        if constexpr (std::is_invocable_v<F, Var<T, D>, Var<T, D>>) {
          return run_on<T, D>(list, f, std::make_index_sequence<2>());
        }
        break;
      case 3:
        if constexpr (std::is_invocable_v<F, Var<T, D>, Var<T, D>, Var<T, D>>) {
          return run_on<T, D>(list, f, std::make_index_sequence<3>());
        }
        break;
      default:
        break;
    }
    throw Error("on_both_devices: the function takes another number of variables");
  };
  const DeviceRun want = run(Cpu{}), got = run(Cuda{});
  REQUIRE(got.value.size() == want.value.size());
  require_close_runs(got.value, want.value, dtype_of<T>::value);
  REQUIRE(got.grads.size() == want.grads.size());
  for (std::size_t i = 0; i < want.grads.size(); ++i) {
    CAPTURE(i);
    require_close_runs(got.grads[i], want.grads[i], dtype_of<T>::value);
  }
}

}  // namespace espalier::test
