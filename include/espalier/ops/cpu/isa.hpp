// SPDX-License-Identifier: Apache-2.0
// The instruction set that vector code runs with: the best that the processor has, unless the
// environment variable ESPALIER_ISA=avx512|avx2|plain or an IsaOverride asks for a lower one.
// Results are the same bits on every run with one instruction set, and may differ between two.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include <espalier/core/error.hpp>

namespace espalier::cpu {

enum class Isa : std::uint8_t { plain, avx2, avx512 };

[[nodiscard]] constexpr std::string_view name(Isa isa) {
  switch (isa) {
    case Isa::plain:
      return "plain";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
  }
  return "?";
}

/// What the processor and the operating system allow.
[[nodiscard]] inline Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::plain;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 ? Isa::avx512 : Isa::avx2;
#else
  return Isa::plain;
#endif
}

namespace detail {
inline Isa checked(Isa wanted, std::string_view who) {
  const Isa best = best_isa();
  ESP_REQUIRE(wanted <= best, DeviceError, who, " asks for ", name(wanted),
              ", but this processor has ", name(best), " at best; ask for that or a lower one");
  return wanted;
}

inline Isa isa_of_environment() {
  const char* text = std::getenv("ESPALIER_ISA");
  if (text == nullptr || *text == '\0') return best_isa();
  for (const Isa isa : std::array{Isa::plain, Isa::avx2, Isa::avx512}) {
    if (name(isa) == text) return checked(isa, "ESPALIER_ISA");
  }
  throw UsageError(
      espalier::detail::concat("ESPALIER_ISA is '", text, "'; expected avx512, avx2 or plain"));
}

inline constexpr int kNoOverride = -1;
inline std::atomic<int> isa_override{kNoOverride};
}  // namespace detail

/// @throws DeviceError if ESPALIER_ISA names an instruction set that the processor lacks.
[[nodiscard]] inline Isa isa() {
  const int forced = detail::isa_override.load(std::memory_order_relaxed);
  if (forced != detail::kNoOverride) return static_cast<Isa>(forced);
  static const Isa chosen = detail::isa_of_environment();
  return chosen;
}

/// Forces an instruction set in a scope, for all threads: for tests and benches.
class IsaOverride {
 public:
  /// @throws DeviceError if the processor lacks it.
  explicit IsaOverride(Isa forced)
      : outer_(detail::isa_override.exchange(
            static_cast<int>(detail::checked(forced, "IsaOverride")))) {}
  ~IsaOverride() { detail::isa_override.store(outer_); }
  IsaOverride(const IsaOverride&) = delete;
  IsaOverride& operator=(const IsaOverride&) = delete;

 private:
  int outer_;
};

}  // namespace espalier::cpu
