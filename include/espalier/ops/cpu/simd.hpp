// SPDX-License-Identifier: Apache-2.0
// One generic vector source, compiled once per instruction set and chosen at run time:
//   simd::dispatch([&]<int W>() { using V = simd::Native<T, W>; ... V::load(x + i) ... });
// W counts floats: 16 (avx512 and above), 8 (avx2 + fma), 4 (plain, two roundings in fma). The body
// is inlined into a function of that target; a helper that takes or returns a Vec needs
// ESP_SIMD_INLINE, and threads go around a dispatch, never inside: an outlined parallel region
// would be compiled without the target. Keep throwing code out of the body.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include <espalier/core/dtype.hpp>
#include <espalier/core/math.hpp>
#include <espalier/ops/cpu/isa.hpp>

#define ESP_SIMD_INLINE __attribute__((always_inline)) inline
/// The same for a lambda, between its parameters and its body.
#define ESP_SIMD_LAMBDA __attribute__((always_inline))
/// Before a loop over an array of Vec with at most 16 steps known at compile time: keeps the array
/// in registers.
#ifdef __CUDACC__
#define ESP_UNROLL  // not known to its front end
#else
#define ESP_UNROLL _Pragma("GCC unroll 16")
#endif

/// GCC 12 takes the two widths of a conversion apart where one instruction does it. Without
/// inlining
/// (-O0) a body is compiled for the base target, which has no such instruction.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__) && \
    !defined(__NO_INLINE__)
#define ESP_SIMD_ASM 1
#else
#define ESP_SIMD_ASM 0
#endif

namespace espalier::simd {

namespace detail {
template <class T, int W>
struct RawOf {
  typedef T type __attribute__((vector_size(sizeof(T) * W)));
};
template <class T, int W>
using Raw = typename RawOf<T, W>::type;
template <class T>
using IntOf = std::conditional_t<sizeof(T) == 8, std::int64_t, std::int32_t>;

/// The upper half of each lane of `rounded` is x as bf16, rounded to nearest even.
template <class RawFloat, class U32>
ESP_SIMD_INLINE void round_to_bf16(const RawFloat& x, U32& rounded) {
  const U32 u = reinterpret_cast<U32>(x);
  const U32 nearest = u + 0x7fffu + ((u >> 16) & 1u);
  rounded = x == x ? nearest : u | 0x400000u;  // a NaN stays one, and quiet
}
}  // namespace detail

/// What Vec<T, W> reads and writes: T itself, and narrower floats that convert on the way.
template <class M, class T>
concept Memory =
    std::same_as<M, T> || std::same_as<M, float> || std::same_as<M, bf16> || std::same_as<M, f16>;

template <std::floating_point T, int W>
struct Mask {
  detail::Raw<detail::IntOf<T>, W> v;  // all ones or zero per lane
};

/// Which lanes of a vector a load or store touches; see for_each_vector.
struct AllLanes {};
struct FirstLanes {
  int n;
};

/// W lanes of T. A value type of one register; every member is inlined.
template <std::floating_point T, int W>
struct Vec {
  using Raw = detail::Raw<T, W>;
  static constexpr int kLanes = W;
  Raw v;

  ESP_SIMD_INLINE Vec() : v{} {}
  ESP_SIMD_INLINE explicit Vec(const Raw& raw) : v(raw) {}
  ESP_SIMD_INLINE explicit Vec(T scalar) {
#ifdef __clang__
    v = scalar - Raw{};  // x - 0 keeps -0 and NaN
#else
    // GCC 12 splits the expression above into lanes while it still compiles for the base target,
    // and does not merge them again; this loop becomes one broadcast.
    for (int i = 0; i < W; ++i) v[i] = scalar;
#endif
  }

  template <Memory<T> M>
  static ESP_SIMD_INLINE Vec load(const M* p) {
    if constexpr (std::same_as<M, T>) {
      Raw raw;
      __builtin_memcpy(&raw, p, sizeof raw);
      return Vec(raw);
    } else {
      return Vec(__builtin_convertvector(load_float(p).v, Raw));
    }
  }
  /// The first n < W lanes from memory, the others 0; touches nothing behind them.
  template <Memory<T> M>
  static ESP_SIMD_INLINE Vec load_partial(const M* p, int n) {
    alignas(64) M lanes[W] = {};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
  }
  template <Memory<T> M>
  static ESP_SIMD_INLINE Vec load(const M* p, AllLanes) {
    return load(p);
  }
  template <Memory<T> M>
  static ESP_SIMD_INLINE Vec load(const M* p, FirstLanes lanes) {
    return load_partial(p, lanes.n);
  }
  /// The load of a loop's first pass over memory: prefetches 2 KB ahead, because the hardware
  /// prefetcher is late when several streams come from memory (a fifth of the time, measured).
  template <Memory<T> M, class Lanes>
  static ESP_SIMD_INLINE Vec load_ahead(const M* p, Lanes lanes) {
    __builtin_prefetch(reinterpret_cast<const char*>(p) + 2048);
    return load(p, lanes);
  }
  /// Rounds to nearest even where M is narrower than T (double goes through float).
  template <Memory<T> M>
  ESP_SIMD_INLINE void store(M* p) const {
    if constexpr (std::same_as<M, T>) {
      __builtin_memcpy(p, &v, sizeof v);
    } else {
      store_float(__builtin_convertvector(v, RawFloat), p);
    }
  }
  template <Memory<T> M>
  ESP_SIMD_INLINE void store_partial(M* p, int n) const {
    alignas(64) M lanes[W];
    store(lanes);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
  }
  template <Memory<T> M>
  ESP_SIMD_INLINE void store(M* p, AllLanes) const {
    store(p);
  }
  template <Memory<T> M>
  ESP_SIMD_INLINE void store(M* p, FirstLanes lanes) const {
    store_partial(p, lanes.n);
  }

  ESP_SIMD_INLINE T operator[](int lane) const {
    return v[lane];
  }
  ESP_SIMD_INLINE Vec& operator+=(const Vec& b) {
    return v += b.v, *this;
  }
  ESP_SIMD_INLINE Vec& operator-=(const Vec& b) {
    return v -= b.v, *this;
  }
  ESP_SIMD_INLINE Vec& operator*=(const Vec& b) {
    return v *= b.v, *this;
  }
  friend ESP_SIMD_INLINE Vec operator+(const Vec& a, const Vec& b) {
    return Vec(a.v + b.v);
  }
  friend ESP_SIMD_INLINE Vec operator-(const Vec& a, const Vec& b) {
    return Vec(a.v - b.v);
  }
  friend ESP_SIMD_INLINE Vec operator*(const Vec& a, const Vec& b) {
    return Vec(a.v * b.v);
  }
  friend ESP_SIMD_INLINE Vec operator/(const Vec& a, const Vec& b) {
    return Vec(a.v / b.v);
  }
  friend ESP_SIMD_INLINE Vec operator-(const Vec& a) {
    return Vec(-a.v);
  }
  friend ESP_SIMD_INLINE Mask<T, W> operator<(const Vec& a, const Vec& b) {
    return {a.v < b.v};
  }
  friend ESP_SIMD_INLINE Mask<T, W> operator>(const Vec& a, const Vec& b) {
    return {a.v > b.v};
  }

 private:
  using RawFloat = detail::Raw<float, W>;
  using U16 = detail::Raw<std::uint16_t, W>;
  // In memory, at any address and beside any other type.
  typedef std::uint16_t U16InMemory __attribute__((vector_size(2 * W), aligned(2), may_alias));
  using U32 = detail::Raw<std::uint32_t, W>;

  static ESP_SIMD_INLINE Vec<float, W> load_float(const float* p) {
    RawFloat raw;
    __builtin_memcpy(&raw, p, sizeof raw);
    return Vec<float, W>(raw);
  }
  static ESP_SIMD_INLINE Vec<float, W> load_float(const bf16* p) {
    U32 u;
    load_u16(p, u);
    return Vec<float, W>(reinterpret_cast<RawFloat>(u << 16));
  }
  static ESP_SIMD_INLINE Vec<float, W> load_float(const f16* p) {
    U32 u;
    load_u16(p, u);
    const U32 magnitude = (u & 0x7fffu) << 13;  // exponent bias 15: 2^112 too small
    const U32 scaled = reinterpret_cast<U32>(reinterpret_cast<RawFloat>(magnitude) * 0x1p112f);
    const U32 special = reinterpret_cast<U32>(magnitude >= 0x0f800000u) & 0x7f800000u;
    return Vec<float, W>(reinterpret_cast<RawFloat>(scaled | special | ((u & 0x8000u) << 16)));
  }
  static ESP_SIMD_INLINE void store_float(const RawFloat& raw, float* p) {
    __builtin_memcpy(p, &raw, sizeof raw);
  }
  static ESP_SIMD_INLINE void store_float(const RawFloat& raw, bf16* p) {
    U32 rounded;
    detail::round_to_bf16(raw, rounded);
    store_u16(rounded >> 16, p);
  }
  // As the constructor of f16: each lane is right in one of the four cases.
  static ESP_SIMD_INLINE void store_float(const RawFloat& raw, f16* p) {
    const U32 u = reinterpret_cast<U32>(raw);
    const U32 magnitude = u & 0x7fffffffu;
    const U32 normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const RawFloat aligned = reinterpret_cast<RawFloat>(magnitude) + 0.5f;
    const U32 subnormal = reinterpret_cast<U32>(aligned) - 0x3f000000u;
    U32 h = magnitude < 0x38800000u ? subnormal : normal;
    h = magnitude < 0x477ff000u ? h : U32{} + 0x7c00u;
    h = raw == raw ? h : U32{} + 0x7e00u;
    store_u16(h | ((u >> 16) & 0x8000u), p);
  }
  static ESP_SIMD_INLINE void load_u16(const void* p, U32& wide) {
    if constexpr (ESP_SIMD_ASM && W == 16) {
      asm("vpmovzxwd %1, %0" : "=v"(wide) : "m"(*static_cast<const U16InMemory*>(p)));
    } else {
      U16 h;
      __builtin_memcpy(&h, p, sizeof h);
      wide = __builtin_convertvector(h, U32);
    }
  }
  static ESP_SIMD_INLINE void store_u16(const U32& low, void* p) {
    if constexpr (ESP_SIMD_ASM && W == 16) {
      asm("vpmovdw %1, %0" : "=m"(*static_cast<U16InMemory*>(p)) : "v"(low));
    } else {
      const U16 h = __builtin_convertvector(low, U16);
      __builtin_memcpy(p, &h, sizeof h);
    }
  }
};

/// Lane I of the result is lane Index::at(I) of the concatenation of a and b.
template <class Index, std::floating_point T, int L, int... I>
ESP_SIMD_INLINE Vec<T, L> shuffle(const Vec<T, L>& a, const Vec<T, L>& b,
                                  std::integer_sequence<int, I...>) {
#if defined(__clang__)
  return Vec<T, L>(__builtin_shufflevector(a.v, b.v, Index::at(I)...));
#else
  using Mask = detail::Raw<detail::IntOf<T>, L>;
  return Vec<T, L>(__builtin_shuffle(a.v, b.v, Mask{Index::at(I)...}));
#endif
}
template <class Index, std::floating_point T, int L>
ESP_SIMD_INLINE Vec<T, L> shuffle(const Vec<T, L>& a, const Vec<T, L>& b) {
  return shuffle<Index>(a, b, std::make_integer_sequence<int, L>{});
}

/// Deinterleaves 2W neighbours into two vectors, even and odd elements: for bf16 that takes half
/// the instructions of two vectors in order.
template <int W>
struct Pair {
  using V = Vec<float, W>;
  V even, odd;

  static ESP_SIMD_INLINE Pair load(const bf16* p) {
    U32 both;
    __builtin_memcpy(&both, p, sizeof both);
    return {V(reinterpret_cast<Raw>(both << 16)), V(reinterpret_cast<Raw>(both & 0xffff0000u))};
  }
  /// For operands beside those of bf16.
  static ESP_SIMD_INLINE Pair load(const float* p) {
    const V low = V::load(p), high = V::load(p + W);
    return {shuffle<EverySecond<0>>(low, high), shuffle<EverySecond<1>>(low, high)};
  }
  template <class M>
  static ESP_SIMD_INLINE Pair load_ahead(const M* p) {
    __builtin_prefetch(reinterpret_cast<const char*>(p) + 2048);
    return load(p);
  }
  ESP_SIMD_INLINE void store(bf16* p) const {
    U32 low, high;
    detail::round_to_bf16(even.v, low);
    detail::round_to_bf16(odd.v, high);
    const U32 both = (low >> 16) | (high & 0xffff0000u);
    __builtin_memcpy(p, &both, sizeof both);
  }

 private:
  using Raw = detail::Raw<float, W>;
  using U32 = detail::Raw<std::uint32_t, W>;

  template <int First>
  struct EverySecond {
    static constexpr int at(int i) { return 2 * i + First; }
  };
};

/// The vector that computes on T in a dispatch over W floats: W lanes of float for f32, bf16 and
/// f16 in memory, half as many for double.
template <class T, int W>
using Native = Vec<acc_t<T>, W * 4 / static_cast<int>(sizeof(acc_t<T>))>;

/// Calls body(i, lanes) for the vectors that cover [begin, end), of which the last may be a part:
///   for_each_vector<V>(0, n, [&](std::int64_t i, auto lanes) ESP_SIMD_LAMBDA {
///     (V::load(x + i, lanes) * factor).store(y + i, lanes);
///   });
template <class V, class Body>
ESP_SIMD_INLINE void for_each_vector(std::int64_t begin, std::int64_t end, const Body& body) {
  std::int64_t i = begin;
  for (; i + V::kLanes <= end; i += V::kLanes) body(i, AllLanes{});
  if (i < end) body(i, FirstLanes{static_cast<int>(end - i)});
}

/// a * b + c; one rounding on avx2 and avx512 (compiled to one instruction by contraction).
template <std::floating_point T, int W>
ESP_SIMD_INLINE Vec<T, W> fma(const Vec<T, W>& a, const Vec<T, W>& b, const Vec<T, W>& c) {
#ifdef __clang__
#pragma clang fp contract(fast)
#endif
  return Vec<T, W>(a.v * b.v + c.v);
}
template <std::floating_point T, int W>
ESP_SIMD_INLINE Vec<T, W> select(const Mask<T, W>& m, const Vec<T, W>& yes, const Vec<T, W>& no) {
  return Vec<T, W>(m.v ? yes.v : no.v);
}
/// a > b ? a : b, so a NaN in `a` is dropped and one in `b` stays.
template <std::floating_point T, int W>
ESP_SIMD_INLINE Vec<T, W> max(const Vec<T, W>& a, const Vec<T, W>& b) {
  return Vec<T, W>(a.v > b.v ? a.v : b.v);
}
/// a < b ? a : b, so a NaN in `a` is dropped and one in `b` stays.
template <std::floating_point T, int W>
ESP_SIMD_INLINE Vec<T, W> min(const Vec<T, W>& a, const Vec<T, W>& b) {
  return Vec<T, W>(a.v < b.v ? a.v : b.v);
}
template <std::floating_point T, int W>
ESP_SIMD_INLINE Vec<T, W> abs(const Vec<T, W>& a) {
  using Bits = detail::Raw<detail::IntOf<T>, W>;
  constexpr auto kMagnitude = std::numeric_limits<detail::IntOf<T>>::max();
  return Vec<T, W>(
      reinterpret_cast<typename Vec<T, W>::Raw>(reinterpret_cast<Bits>(a.v) & kMagnitude));
}

namespace detail {
template <std::floating_point T, int W, class Combine>
ESP_SIMD_INLINE T reduce(const Vec<T, W>& a, Combine combine) {
  if constexpr (W == 2) {
    return combine(a[0], a[1]);
  } else {
    Vec<T, W / 2> low, high;
    __builtin_memcpy(&low.v, &a.v, sizeof low.v);
    __builtin_memcpy(&high.v, reinterpret_cast<const char*>(&a.v) + sizeof low.v, sizeof high.v);
    return reduce(combine(low, high), combine);
  }
}
}  // namespace detail

/// Lane i plus lane i + W/2, then the same again: one order for each W.
template <std::floating_point T, int W>
ESP_SIMD_INLINE T sum(const Vec<T, W>& a) {
  return detail::reduce(a, [](const auto& x, const auto& y) ESP_SIMD_LAMBDA { return x + y; });
}
/// Largest lane; NaN lanes may be dropped.
template <std::floating_point T, int W>
ESP_SIMD_INLINE T max(const Vec<T, W>& a) {
  return detail::reduce(a, [](const auto& x, const auto& y) ESP_SIMD_LAMBDA {
    if constexpr (std::floating_point<std::remove_cvref_t<decltype(x)>>) {
      return x > y ? x : y;
    } else {
      return max(x, y);
    }
  });
}

/// The sum over [0, n) of what `add(i, lanes, sum)` adds to a vector: `sum` with the terms of the
/// next vector, 0 in masked lanes. Four accumulators alternate, because the latency of an addition
/// is that of four loads.
template <class V, class Add>
ESP_SIMD_INLINE auto sum_over(std::int64_t n, const Add& add) {
  V s0, s1, s2, s3;
  std::int64_t i = 0;
  for (; i + 4 * V::kLanes <= n; i += 4 * V::kLanes) {
    s0 = add(i, AllLanes{}, s0);
    s1 = add(i + V::kLanes, AllLanes{}, s1);
    s2 = add(i + 2 * V::kLanes, AllLanes{}, s2);
    s3 = add(i + 3 * V::kLanes, AllLanes{}, s3);
  }
  for_each_vector<V>(i, n,
                     [&](std::int64_t j, auto lanes) ESP_SIMD_LAMBDA { s0 = add(j, lanes, s0); });
  return sum((s0 + s1) + (s2 + s3));
}

template <int W>
ESP_SIMD_INLINE Vec<double, W> exp(const Vec<double, W>& x) {
  Vec<double, W> y;
  for (int i = 0; i < W; ++i) y.v[i] = math::exp(x.v[i]);
  return y;
}
namespace detail {
/// `x` as it was rounded: under -ffast-math (x + c) - c would be x itself.
template <class V>
ESP_SIMD_INLINE V rounded(const V& x) {
#if !defined(__clang__)
  return V(__builtin_assoc_barrier(x.v));
#elif __has_builtin(__arithmetic_fence)
  return V(__arithmetic_fence(x.v));
#else
  return x;
#endif
}

/// exp(x) = mantissa · 2^n for |x| < 110, the mantissa in [0.7, 1.42].
template <int W>
struct ExpParts {
  Vec<float, W> mantissa;
  Raw<std::int32_t, W> n;  // in the low bits; above them 0x4b400000
};
template <int W>
ESP_SIMD_INLINE ExpParts<W> exp_parts(const Vec<float, W>& x) {
  using V = Vec<float, W>;
  // Adding 1.5 * 2^23 leaves round(x / ln 2) in the low bits.
  const V shifter(0x1.8p23f);
  const V shifted = rounded(fma(x, V(0x1.715476p0f), shifter));
  const V n = rounded(shifted - shifter);
  // ln 2 in two parts, the first with nine trailing zero bits, so that n * part is exact.
  V r = fma(n, V(-0x1.62ep-1f), x);
  r = fma(n, V(-0x1.0bfbe8p-15f), r);
  // (e^r - 1 - r) / r^2, minimax on |r| <= ln(2) / 2: relative error of e^r 3e-9.
  V q = fma(r, V(0x1.6a2432p-10f), V(0x1.1239e4p-7f));
  q = fma(q, r, V(0x1.5558f2p-5f));
  q = fma(q, r, V(0x1.555492p-3f));
  q = fma(q, r, V(0x1.fffffcp-2f));
  return {fma(q, r * r, r) + V(1.0f), reinterpret_cast<Raw<std::int32_t, W>>(shifted.v)};
}
}  // namespace detail

/// At most 2 ulp over all floats; subnormal results, 0, infinity and NaN as std::exp gives them.
template <int W>
ESP_SIMD_INLINE Vec<float, W> exp(const Vec<float, W>& x) {
  using V = Vec<float, W>;
  using Int = detail::Raw<std::int32_t, W>;
  // Both bounds round to 0 and infinity; the operand order lets NaN through.
  const auto parts = detail::exp_parts<W>(max(V(-104.0f), min(V(89.0f), x)));
  // 2^n in two factors, for n from -150 to 128 is beyond one float.
  const Int whole = parts.n - 0x4b400000;
  const Int half = whole >> 1;
  const V scale_1(reinterpret_cast<typename V::Raw>((half + 127) << 23));
  const V scale_2(reinterpret_cast<typename V::Raw>((whole - half + 127) << 23));
  return parts.mantissa * scale_1 * scale_2;
}
/// exp for -87 <= x <= 88, where neither x nor the result is extreme, in two thirds of the time.
/// NaN stays NaN.
template <int W>
ESP_SIMD_INLINE Vec<float, W> exp_normal(const Vec<float, W>& x) {
  using V = Vec<float, W>;
  using Int = detail::Raw<std::int32_t, W>;
  const auto parts = detail::exp_parts<W>(x);
  const Int scale = (parts.n + (127 - 0x4b400000)) << 23;
  return parts.mantissa * V(reinterpret_cast<typename V::Raw>(scale));
}
template <int W>
ESP_SIMD_INLINE Vec<double, W> exp_normal(const Vec<double, W>& x) {
  return exp(x);
}
template <std::floating_point T, int W>
ESP_SIMD_INLINE Vec<T, W> log(const Vec<T, W>& x) {
  Vec<T, W> y;
  for (int i = 0; i < W; ++i) y.v[i] = math::log(x.v[i]);
  return y;
}
template <std::floating_point T, int W>
ESP_SIMD_INLINE Vec<T, W> sqrt(const Vec<T, W>& x) {
  Vec<T, W> y;
  for (int i = 0; i < W; ++i) y.v[i] = math::sqrt(x.v[i]);
  return y;
}
/// exp(x) for x <= 0, and 0 for x < least, which is at least the log of the smallest normal number:
/// subnormal numbers are slow to compute and slower to multiply.
template <std::floating_point T, int W>
ESP_SIMD_INLINE Vec<T, W> exp_or_zero(const Vec<T, W>& x, T least) {
  using V = Vec<T, W>;
  return select(x < V(least), V(T(0)), exp_normal(max(V(least), x)));
}
/// 1 / d for 1 <= d <= 2, within 1 ulp where fma rounds once, in a fifth of the time of a division
/// on avx512.
template <int W>
ESP_SIMD_INLINE Vec<float, W> reciprocal_near_1(const Vec<float, W>& d) {
  using V = Vec<float, W>;
  // (1 - T4(2d - 3) / T4(-3)) / d, off by 1/577 at most; then its error e enters as 1 + e + e^2.
  V r = fma(d, V(-128.0f / 577), V(768.0f / 577));
  r = fma(d, r, V(-1696.0f / 577));
  r = fma(d, r, V(1632.0f / 577));
  const V e = fma(-d, r, V(1.0f));
  return fma(r, fma(e, e, e), r);
}
template <int W>
ESP_SIMD_INLINE Vec<double, W> reciprocal_near_1(const Vec<double, W>& d) {
  return Vec<double, W>(1.0) / d;
}

/// 1 / (1 + e^-x) and 1 less that, from e^-|x|, so that both keep their relative accuracy; 0 where
/// they are below the smallest normal number.
template <class V>
struct Sigmoid {
  V value, rest;
};
template <std::floating_point T, int W>
ESP_SIMD_INLINE Sigmoid<Vec<T, W>> sigmoid_and_rest(const Vec<T, W>& x) {
  using V = Vec<T, W>;
  constexpr T kLeast = std::same_as<T, double> ? T(-708.3964) : T(-87.33654);
  const V e = exp_or_zero(-abs(x), kLeast);
  const V large = reciprocal_near_1(V(T(1)) + e), small = e * large;
  const auto negative = x < V(T(0));
  return {select(negative, small, large), select(negative, large, small)};
}
template <std::floating_point T, int W>
ESP_SIMD_INLINE Vec<T, W> sigmoid(const Vec<T, W>& x) {
  return sigmoid_and_rest(x).value;
}

namespace detail {
#if defined(__x86_64__)
#define ESP_TARGET_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))
#define ESP_TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
template <class F>
ESP_TARGET_AVX512 __attribute__((flatten)) decltype(auto) run_avx512(F& f) {
  return f.template operator()<16>();
}
template <class F>
ESP_TARGET_AVX2 __attribute__((flatten)) decltype(auto) run_avx2(F& f) {
  return f.template operator()<8>();
}
#endif
}  // namespace detail

/// Calls f.template operator()<W>() compiled for the instruction set that cpu::isa() names.
template <class F>
decltype(auto) dispatch(F&& f) {
#if defined(__x86_64__)
  const cpu::Isa isa = cpu::isa();
  if (isa >= cpu::Isa::avx512) return detail::run_avx512(f);
  if (isa == cpu::Isa::avx2) return detail::run_avx2(f);
#endif
  return f.template operator()<4>();
}

}  // namespace espalier::simd
