// SPDX-License-Identifier: Apache-2.0
// Everything in tensor/.
#pragma once

#include <espalier/tensor/finite.hpp>
#include <espalier/tensor/storage.hpp>
#include <espalier/tensor/tensor.hpp>
#include <espalier/tensor/thread_memory.hpp>
