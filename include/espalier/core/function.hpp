// SPDX-License-Identifier: Apache-2.0
// A type-erased callable; copies share its captures. It replaces std::function, because
// <functional> brings hash maps and searchers to every user of the umbrella.
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

namespace espalier {

template <class Signature>
class Function;

template <class R, class... Args>
class Function<R(Args...)> {
 public:
  Function() = default;
  Function(std::nullptr_t) {}
  template <class F>
  requires(!std::same_as<F, Function> && std::is_invocable_r_v<R, F&, Args...>) Function(F f)
      : target_(new Target<F>(std::move(f))) {}

  explicit operator bool() const { return target_ != nullptr; }
  R operator()(Args... args) const { return target_->call(std::forward<Args>(args)...); }

 private:
  struct Callable {
    virtual ~Callable() = default;
    virtual R call(Args... args) = 0;
  };
  template <class F>
  struct Target final : Callable {
    explicit Target(F f) : f_(std::move(f)) {}
    R call(Args... args) override { return f_(std::forward<Args>(args)...); }
    F f_;
  };

  std::shared_ptr<Callable> target_;
};

}  // namespace espalier
