// SPDX-License-Identifier: Apache-2.0
// What the losses over router logits are tried on.
#pragma once

#include <vector>

#include <espalier/autograd/var.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

namespace espalier::test {

/// Two layers of n rows and a loss over both, against the reference over all 2 n rows.
template <class T, class Loss, class Reference>
void check_router_loss(std::int64_t n, std::int64_t e, Loss loss, Reference reference) {
  using A = acc_t<T>;
  CAPTURE(n, e);
  const auto x = normal_of<T>(2 * n * e, 6, 1.5);
  const std::vector<double> first(x.begin(), x.begin() + n * e), second(x.begin() + n * e, x.end());
  const auto a = parameter(make_tensor<T>({n, e}, first));
  const auto b = parameter(make_tensor<T>({n, e}, second));
  const Var<A> value = loss(std::vector<Var<T>>{a, b});
  const Mismatch v =
      compare(to_vector(value.value()), std::vector<double>{reference(x)}, 0, tol<A>(e));
  backward(value, make_tensor<A>({1}, {3.0}));
  REQUIRE(a.grad().dtype() == dtype_of<T>::value);
  auto grad = to_vector(a.grad());
  const auto rest = to_vector(b.grad());
  grad.insert(grad.end(), rest.begin(), rest.end());
  auto want = complex_step_grad(reference, x);
  for (double& g : want) g *= 3;
  // Differences of terms: errors are in units of the terms, which are at most about 1 / rows.
  const Mismatch d = compare(grad, want, 4 * tol<A>(e) / static_cast<double>(n), tol<T>(e));
  INFO("loss: " << v << "; dlogits: " << d);
  REQUIRE(v.count == 0);
  REQUIRE(d.count == 0);
}

/// Logits and their gradients after loss({a, b}) of two layers: the same bits for any threads.
template <class T, class Loss>
std::vector<AnyTensor> router_loss_of_many(Loss loss) {
  const auto a = parameter(make_tensor<T>({3000, 9}, normal(3000 * 9, 1)));
  const auto b = parameter(make_tensor<T>({700, 9}, normal(700 * 9, 2)));
  const auto value = loss(std::vector<Var<T>>{a, b});
  backward(value);
  return {value.value(), a.grad(), b.grad()};
}

}  // namespace espalier::test
