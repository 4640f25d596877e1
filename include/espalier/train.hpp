// SPDX-License-Identifier: Apache-2.0
// Everything in train/.
#pragma once

#include <espalier/train/adamw.hpp>
#include <espalier/train/clip.hpp>
#include <espalier/train/schedule.hpp>
