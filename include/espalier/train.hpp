// SPDX-License-Identifier: Apache-2.0
// Everything in train/.
#pragma once
#ifdef __CUDACC__
#error "espalier/train.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/train/balancing.hpp>
#include <espalier/train/checkpoints.hpp>
#include <espalier/train/fine_tune.hpp>
#include <espalier/train/loss_curve.hpp>
#include <espalier/train/run_state.hpp>
#include <espalier/train/train_log.hpp>
#include <espalier/train/trainer.hpp>
