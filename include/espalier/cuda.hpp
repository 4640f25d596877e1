// SPDX-License-Identifier: Apache-2.0
// Everything in cuda/.
#pragma once

#include <espalier/cuda/attention.hpp>
#include <espalier/cuda/bias.hpp>
#include <espalier/cuda/column_blocks.hpp>
#include <espalier/cuda/device.hpp>
#include <espalier/cuda/dropout.hpp>
#include <espalier/cuda/elementwise.hpp>
#include <espalier/cuda/embedding.hpp>
#include <espalier/cuda/gemm.hpp>
#include <espalier/cuda/linear.hpp>
#include <espalier/cuda/linear_cross_entropy.hpp>
#include <espalier/cuda/load_balancing_loss.hpp>
#include <espalier/cuda/lora.hpp>
#include <espalier/cuda/matmul.hpp>
#include <espalier/cuda/moe.hpp>
#include <espalier/cuda/rms_norm.hpp>
#include <espalier/cuda/rope.hpp>
#include <espalier/cuda/router_rule.hpp>
#include <espalier/cuda/router_z_loss.hpp>
#include <espalier/cuda/runtime.hpp>
#include <espalier/cuda/sigmoid_gate.hpp>
#include <espalier/cuda/softmax.hpp>
#include <espalier/cuda/sum.hpp>
#include <espalier/cuda/swiglu.hpp>
