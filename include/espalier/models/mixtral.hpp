// SPDX-License-Identifier: Apache-2.0
// Mixtral (Jiang et al. 2024, arXiv:2401.04088): the decoder with its own defaults.
#pragma once

#include <espalier/models/decoder.hpp>

namespace espalier {

using MixtralConfig = DecoderConfig;
template <FloatElement T, Device D = Cpu>
using Mixtral = Decoder<T, D>;

}  // namespace espalier
