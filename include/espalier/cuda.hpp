// SPDX-License-Identifier: Apache-2.0
// Everything in cuda/.
#pragma once

#include <espalier/cuda/device.hpp>
#include <espalier/cuda/runtime.hpp>
