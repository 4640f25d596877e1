// SPDX-License-Identifier: Apache-2.0
// ESP_INLINE marks heavy functions that many translation units call. By default it is `inline`. A
// project may compile these functions once, as a form of explicit instantiation:
// - it defines ESPALIER_COMPILED in all files: bodies may be inlined, no code is emitted;
// - it links object files compiled with ESPALIER_COMPILED_HERE: code is emitted, called or not.
// In this repository the CMake target espalier_compiled does so, which halves the build time. A
// heavy library that only such bodies need is included between #ifdef ESP_BODIES and #endif, with
// them.
// ESP_ON_DEMAND before a function, a member or a constructor makes it a template where all is
// `inline`: a translation unit that does not call it pays for reading its body, not for what its
// body instantiates. ESP_DEMANDED begins its definition where that stands apart.
//   ESP_COMPILED_TEMPLATE(void f<float>(int));
// after a non-inline template declares the explicit instantiation `extern` in the same way; a file
// of the target defines it, `template void f<float>(int);`. ("class C<float>": every member defined
// outside of C.)
#pragma once

#if __cplusplus < 202002L
#error "Espalier is C++20: compile with -std=c++20 (CMake: target_compile_features(... cxx_std_20))"
#endif
#if !defined(__EXCEPTIONS) && !defined(__CUDACC__)
#error "Espalier reports errors by exceptions: compile without -fno-exceptions"
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
#define ESP_ON_DEMAND
#define ESP_DEMANDED ESP_INLINE
#else
#define ESP_ON_DEMAND template <int = 0>
#define ESP_DEMANDED template <int>
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
#else  // options that differ from the caller's keep GCC from inlining it and all its callees
#define ESP_INLINE [[gnu::gnu_inline, gnu::optimize("no-inline")]] inline
#endif
#else
#define ESP_INLINE inline
#endif
