// SPDX-License-Identifier: Apache-2.0
// Everything in nn/.
#pragma once

#include <espalier/nn/attention.hpp>
#include <espalier/nn/context.hpp>
#include <espalier/nn/embedding.hpp>
#include <espalier/nn/feed_forward.hpp>
#include <espalier/nn/init.hpp>
#include <espalier/nn/kv_cache.hpp>
#include <espalier/nn/latent_attention.hpp>
#include <espalier/nn/linear.hpp>
#include <espalier/nn/moe_block.hpp>
#include <espalier/nn/parameter.hpp>
#include <espalier/nn/rms_norm.hpp>
#include <espalier/nn/router.hpp>
