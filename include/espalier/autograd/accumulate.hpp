// SPDX-License-Identifier: Apache-2.0
// Sums of gradients, elementwise: f32 and f64 in their own type, bf16 in f32 with one rounding per
// sum. Elementwise, so the bits do not depend on the number of threads.
#pragma once

#include <cstdint>

#include <espalier/core/inline.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/core/trace.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier::detail {

/// to = a + b; `to` may be one of them.
template <class T>
void add_elements(const T* a, const T* b, T* to, std::int64_t n) {
  // A block at a time through registers: the compiler sees that no store meets a later load.
  constexpr std::int64_t kBlock = 16;
  parallel_for(n, 1 << 15, [=](std::int64_t begin, std::int64_t end) {
    std::int64_t i = begin;
    for (; i + kBlock <= end; i += kBlock) {
      acc_t<T> sum[kBlock];
      for (int l = 0; l < kBlock; ++l) {
        sum[l] = static_cast<acc_t<T>>(a[i + l]) + static_cast<acc_t<T>>(b[i + l]);
      }
      for (int l = 0; l < kBlock; ++l) to[i + l] = static_cast<T>(sum[l]);
    }
    for (; i < end; ++i) {
      to[i] = static_cast<T>(static_cast<acc_t<T>>(a[i]) + static_cast<acc_t<T>>(b[i]));
    }
  });
}

/// sum += term, where an empty `sum` is zero. Does not write memory that has other handles.
ESP_ON_DEMAND ESP_INLINE void accumulate(AnyTensor& sum, AnyTensor term) {
  if (!sum) {
    sum = std::move(term);
    return;
  }
  ESP_REQUIRE(sum.shape() == term.shape() && sum.dtype() == term.dtype(), ShapeError,
              "backward: gradients of one value are ", name(sum.dtype()), sum.shape(), " and ",
              name(term.dtype()), term.shape());
  const Memory& memory = sum.memory();
  ESP_REQUIRE(&memory == &term.memory(), DeviceError, "backward: gradients of one value are on ",
              memory.device, " and ", term.memory().device);
  const trace::Scope scope("add gradients");
  trace::estimate_bytes(3.0 * static_cast<double>(sum.size_bytes()));
  AnyTensor to = sum.use_count() == 1    ? sum
                 : term.use_count() == 1 ? term
                                         : AnyTensor(sum.shape(), sum.dtype(), memory);
  if (memory.on_host) {
    visit_dtype<float, bf16, double>("backward", sum.dtype(), [&]<class T>() {
      add_elements(reinterpret_cast<const T*>(sum.bytes()),
                   reinterpret_cast<const T*>(term.bytes()), reinterpret_cast<T*>(to.bytes()),
                   sum.numel());
    });
  } else {
    memory.add(sum.dtype(), to.bytes(), sum.bytes(), term.bytes(), sum.numel());
  }
  sum = std::move(to);
}

}  // namespace espalier::detail
