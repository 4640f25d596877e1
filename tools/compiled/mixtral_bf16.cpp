// SPDX-License-Identifier: Apache-2.0
// Mixtral in bf16, compiled once for all programs and tests of this repository.
#include <espalier/models/mixtral.hpp>

template class espalier::Mixtral<espalier::bf16>;
