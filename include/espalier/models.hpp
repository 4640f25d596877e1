// SPDX-License-Identifier: Apache-2.0
// Everything in models/.
#pragma once

#include <espalier/models/decoder.hpp>
#include <espalier/models/decoder_config.hpp>
#include <espalier/models/layout.hpp>
#include <espalier/models/mixtral.hpp>
#include <espalier/models/model_loss.hpp>
#include <espalier/models/tensor_names.hpp>
#include <espalier/models/weights.hpp>
