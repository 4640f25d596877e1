// SPDX-License-Identifier: Apache-2.0
// The functions of <cmath> that the framework calls, as compiler builtins. <cmath> also declares
// the special functions of C++17, which took a sixteenth of the umbrella's compile time.
#pragma once

namespace espalier::math {

inline float sqrt(float x) {
  return __builtin_sqrtf(x);
}
inline double sqrt(double x) {
  return __builtin_sqrt(x);
}
inline float exp(float x) {
  return __builtin_expf(x);
}
inline double exp(double x) {
  return __builtin_exp(x);
}
inline float exp2(float x) {
  return __builtin_exp2f(x);
}
inline double exp2(double x) {
  return __builtin_exp2(x);
}
inline float expm1(float x) {
  return __builtin_expm1f(x);
}
inline double expm1(double x) {
  return __builtin_expm1(x);
}
inline float log(float x) {
  return __builtin_logf(x);
}
inline double log(double x) {
  return __builtin_log(x);
}
inline float log2(float x) {
  return __builtin_log2f(x);
}
inline double log2(double x) {
  return __builtin_log2(x);
}
inline float sin(float x) {
  return __builtin_sinf(x);
}
inline double sin(double x) {
  return __builtin_sin(x);
}
inline float cos(float x) {
  return __builtin_cosf(x);
}
inline double cos(double x) {
  return __builtin_cos(x);
}
inline float pow(float x, float y) {
  return __builtin_powf(x, y);
}
inline double pow(double x, double y) {
  return __builtin_pow(x, y);
}
inline float ceil(float x) {
  return __builtin_ceilf(x);
}
inline float abs(float x) {
  return __builtin_fabsf(x);
}
inline double abs(double x) {
  return __builtin_fabs(x);
}
inline bool is_nan(float x) {
  return __builtin_isnan(x);
}
inline bool is_nan(double x) {
  return __builtin_isnan(x);
}
inline bool is_finite(double x) {
  return __builtin_isfinite(x);
}

}  // namespace espalier::math
