// SPDX-License-Identifier: Apache-2.0
// The decoder in f32, compiled once for all programs and tests of this repository.
#include <espalier/models/decoder.hpp>

template class espalier::Decoder<float>;
