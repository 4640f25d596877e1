// SPDX-License-Identifier: Apache-2.0
// Everything in models/.
#pragma once

#include <espalier/models/mixtral.hpp>
#include <espalier/models/mixtral_config.hpp>
#include <espalier/models/model_loss.hpp>
