// SPDX-License-Identifier: Apache-2.0
// Everything in autograd/.
#pragma once

#include <espalier/autograd/var.hpp>
