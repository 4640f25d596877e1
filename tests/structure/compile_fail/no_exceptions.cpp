// SPDX-License-Identifier: Apache-2.0
// Errors are exceptions: a compiler without them says so in one line.
// ERROR: compile without -fno-exceptions
#ifdef SHOULD_FAIL
#undef __EXCEPTIONS
#endif
#include <espalier/core/inline.hpp>
