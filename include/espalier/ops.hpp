// SPDX-License-Identifier: Apache-2.0
// Everything in ops/.
#pragma once

#include <espalier/ops/adamw_step.hpp>
#include <espalier/ops/add.hpp>
#include <espalier/ops/attention.hpp>
#include <espalier/ops/bias.hpp>
#include <espalier/ops/cast.hpp>
#include <espalier/ops/clamp.hpp>
#include <espalier/ops/clamped_swiglu.hpp>
#include <espalier/ops/combine.hpp>
#include <espalier/ops/concat_heads.hpp>
#include <espalier/ops/dispatch.hpp>
#include <espalier/ops/dropout.hpp>
#include <espalier/ops/embedding.hpp>
#include <espalier/ops/group_offsets.hpp>
#include <espalier/ops/linear.hpp>
#include <espalier/ops/linear_cross_entropy.hpp>
#include <espalier/ops/load_balancing_loss.hpp>
#include <espalier/ops/mask_columns.hpp>
#include <espalier/ops/matmul.hpp>
#include <espalier/ops/mul.hpp>
#include <espalier/ops/narrow.hpp>
#include <espalier/ops/reshape.hpp>
#include <espalier/ops/rms_norm.hpp>
#include <espalier/ops/rope.hpp>
#include <espalier/ops/router_rule.hpp>
#include <espalier/ops/router_top_k.hpp>
#include <espalier/ops/router_z_loss.hpp>
#include <espalier/ops/scale.hpp>
#include <espalier/ops/sigmoid_gate.hpp>
#include <espalier/ops/softmax.hpp>
#include <espalier/ops/sum.hpp>
#include <espalier/ops/swiglu.hpp>
#include <espalier/ops/trace_session.hpp>
