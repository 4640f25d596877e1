// SPDX-License-Identifier: Apache-2.0
// Everything in optim/.
#pragma once

#include <espalier/optim/adamw.hpp>
#include <espalier/optim/clip.hpp>
#include <espalier/optim/schedule.hpp>
