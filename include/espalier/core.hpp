// SPDX-License-Identifier: Apache-2.0
// Everything in core/.
#pragma once

#include <espalier/core/algorithm.hpp>
#include <espalier/core/clock.hpp>
#include <espalier/core/control_characters.hpp>
#include <espalier/core/device.hpp>
#include <espalier/core/dtype.hpp>
#include <espalier/core/error.hpp>
#include <espalier/core/function.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/core/math.hpp>
#include <espalier/core/mutex.hpp>
#include <espalier/core/peak_memory.hpp>
#include <espalier/core/random.hpp>
#include <espalier/core/shape.hpp>
#include <espalier/core/shell.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/core/trace.hpp>
#include <espalier/core/trace_report.hpp>
#include <espalier/core/version.hpp>
