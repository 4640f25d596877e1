// SPDX-License-Identifier: Apache-2.0
// Everything in prune/.
#pragma once
#ifdef __CUDACC__
#error "espalier/prune.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/prune/activation_scores.hpp>
#include <espalier/prune/adapter.hpp>
#include <espalier/prune/analysis.hpp>
#include <espalier/prune/calibrate.hpp>
#include <espalier/prune/config_edit.hpp>
#include <espalier/prune/criteria.hpp>
#include <espalier/prune/export.hpp>
#include <espalier/prune/norms.hpp>
#include <espalier/prune/plan.hpp>
#include <espalier/prune/pruned_tensor.hpp>
#include <espalier/prune/score_heatmaps.hpp>
#include <espalier/prune/scores.hpp>
#include <espalier/prune/verify.hpp>
