// SPDX-License-Identifier: Apache-2.0
// Everything in autograd/.
#pragma once

#include <espalier/autograd/accumulate.hpp>
#include <espalier/autograd/backward_pass.hpp>
#include <espalier/autograd/launch.hpp>
#include <espalier/autograd/node.hpp>
#include <espalier/autograd/node_map.hpp>
#include <espalier/autograd/recompute.hpp>
#include <espalier/autograd/saved_check.hpp>
#include <espalier/autograd/var.hpp>
