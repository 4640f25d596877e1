// SPDX-License-Identifier: Apache-2.0
// Everything in train/.
#pragma once
#ifdef __CUDACC__
#error "espalier/train.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/train/adamw.hpp>
#include <espalier/train/balancing.hpp>
#include <espalier/train/batches.hpp>
#include <espalier/train/checkpoints.hpp>
#include <espalier/train/clip.hpp>
#include <espalier/train/dataset.hpp>
#include <espalier/train/examples.hpp>
#include <espalier/train/packing.hpp>
#include <espalier/train/run_state.hpp>
#include <espalier/train/schedule.hpp>
#include <espalier/train/train_log.hpp>
#include <espalier/train/trainer.hpp>
