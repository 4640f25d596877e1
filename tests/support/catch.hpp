// SPDX-License-Identifier: Apache-2.0
// The test framework, in one place: Catch2 v2.13 as Debian packages it.
#pragma once

#include <catch2/catch.hpp>
