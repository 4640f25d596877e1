// SPDX-License-Identifier: Apache-2.0
// Mixtral in f32, compiled once for all programs and tests of this repository.
#include <espalier/models/mixtral.hpp>

template class espalier::Mixtral<float>;
