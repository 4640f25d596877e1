// SPDX-License-Identifier: Apache-2.0
// ESP_INLINE marks the heavy functions that many translation units call. It is `inline`, nothing
// more, unless a project compiles them once instead of in each of its files: it then defines
// ESPALIER_COMPILED everywhere (bodies may be inlined, but no code is emitted for them), and links
// object files that were compiled with ESPALIER_COMPILED_HERE (code is emitted, called or not). In
// this repository that is the CMake target espalier_compiled: it halves the time to build.
// What only such bodies need, a heavy library, stands between #ifdef ESP_BODIES and #endif with
// them.
//   ESP_COMPILED_TEMPLATE(void f<float>(int));
// behind a template that is not inline does the same for one instance of it; a file of that target
// says `template void f<float>(int);`. ("class C<float>": every member defined outside of C.)
#pragma once

#if __cplusplus < 202002L
#error "Espalier is C++20: compile with -std=c++20 (CMake: target_compile_features(... cxx_std_20))"
#endif
#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ && !defined(ESPALIER_ALLOW_FAST_MATH)
#error \
    "-ffast-math and -Ofast take NaN and infinity away, by which Espalier masks and finds errors; \
add -fno-finite-math-only, or define ESPALIER_ALLOW_FAST_MATH to go on without them"
#endif

#if defined(ESPALIER_COMPILED_HERE) || !defined(ESPALIER_COMPILED)
#define ESP_BODIES
#endif

#if defined(ESPALIER_COMPILED) || defined(ESPALIER_COMPILED_HERE)
#define ESP_COMPILED_TEMPLATE(...) extern template __VA_ARGS__
#else
#define ESP_COMPILED_TEMPLATE(...) static_assert(true)
#endif

#if defined(ESPALIER_COMPILED_HERE)
#define ESP_INLINE [[gnu::used]] inline
#elif defined(ESPALIER_COMPILED)
#ifdef __clang__
#define ESP_INLINE [[gnu::gnu_inline]] inline
#pragma clang diagnostic ignored "-Wgnu-inline-cpp-without-extern"
#else  // other options than its caller's keep GCC from inlining it, and with it all that it calls
#define ESP_INLINE [[gnu::gnu_inline, gnu::optimize("no-inline")]] inline
#endif
#else
#define ESP_INLINE inline
#endif
