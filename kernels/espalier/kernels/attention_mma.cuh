// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <espalier/kernels/attention_mma_backward.cuh>
#include <espalier/kernels/attention_mma_forward.cuh>
