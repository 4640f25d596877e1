// SPDX-License-Identifier: Apache-2.0
// The instruction set that vector code runs with: the fastest that the processor has, unless the
// environment variable ESPALIER_ISA=amx|avx512_bf16|avx512|avx2|plain or an IsaOverride asks for
// another. Each level has all instructions of the lower ones. Results are bitwise reproducible on
// one instruction set and may differ between two.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>

namespace espalier::cpu {

/// avx512_bf16: avx512 and vdpbf16ps. amx: that and products of bf16 tiles. The two differ from
/// avx512 only in products of matrices that are both bf16.
enum class Isa : std::uint8_t { plain, avx2, avx512, avx512_bf16, amx };
inline constexpr std::array kIsas{Isa::plain, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx};

[[nodiscard]] constexpr std::string_view name(Isa isa) {
  switch (isa) {
    case Isa::plain:
      return "plain";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512_bf16:
      return "avx512_bf16";
    case Isa::amx:
      return "amx";
  }
  return "?";
}

namespace detail {
#if defined(__x86_64__)
struct CpuidLeaf7 {
  unsigned a = 0, b = 0, c = 0, d = 0;
  explicit CpuidLeaf7(unsigned sub_leaf) { __get_cpuid_count(7, sub_leaf, &a, &b, &c, &d); }
};

/// Asks the system for the tile registers, which a process has only when it wants them.
inline bool tiles_granted() {
  constexpr unsigned kTiles = 1u << 24, kBf16Products = 1u << 22;
  if (const CpuidLeaf7 leaf(0); !(leaf.d & kTiles) || !(leaf.d & kBf16Products)) return false;
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // of arch_prctl, since Linux 5.16
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

inline Isa detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::plain;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (!avx512) return Isa::avx2;
  constexpr unsigned kBf16 = 1u << 5;
  if (!(CpuidLeaf7(1).a & kBf16)) return Isa::avx512;
  return tiles_granted() ? Isa::amx : Isa::avx512_bf16;
#else
  return Isa::plain;
#endif
}
}  // namespace detail

/// What the processor and the operating system allow.
[[nodiscard]] inline Isa best_isa() {
  static const Isa best = detail::detect();
  return best;
}

/// What runs fastest: the best, but for vdpbf16ps on Intel's cores. There it starts every other
/// cycle at most, and f32 multiply-adds on widened operands are quicker (1.6 times, measured on
/// Sapphire Rapids); on AMD's it does twice the work of an f32 multiply-add.
[[nodiscard]] inline Isa fastest_isa() {
#if defined(__x86_64__)
  if (best_isa() == Isa::avx512_bf16 && __builtin_cpu_is("intel")) return Isa::avx512;
#endif
  return best_isa();
}

namespace detail {
inline Isa checked(Isa wanted, std::string_view who) {
  const Isa best = best_isa();
  ESP_REQUIRE(wanted <= best, DeviceError, who, " asks for ", name(wanted),
              ", but this processor has ", name(best), " at best; ask for that or a lower one");
  return wanted;
}

ESP_INLINE Isa isa_of_environment() {
  const char* text = std::getenv("ESPALIER_ISA");
  if (text == nullptr || *text == '\0') return fastest_isa();
  for (const Isa isa : kIsas) {
    if (name(isa) == text) return checked(isa, "ESPALIER_ISA");
  }
  throw UsageError(espalier::detail::concat(
      {"ESPALIER_ISA is '", text, "'; expected amx, avx512_bf16, avx512, avx2 or plain"}));
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
