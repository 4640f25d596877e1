// SPDX-License-Identifier: Apache-2.0
// The version of Espalier; CMakeLists.txt reads it here.
#pragma once

namespace espalier {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace espalier
