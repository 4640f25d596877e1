// SPDX-License-Identifier: Apache-2.0
// A header that nvcc cannot read says so, before nvcc drowns in what it includes.
// ERROR: json.hpp is host-only; include it from a .cpp
#ifdef SHOULD_FAIL
#define __CUDACC__
#endif
#include <espalier/io/json.hpp>
