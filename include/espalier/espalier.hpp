// SPDX-License-Identifier: Apache-2.0
// The framework: tensors, autograd, ops, layers, models, and what a training step needs.
// Beside it: io.hpp, text.hpp and plot.hpp for files, text and plots; train.hpp, prune.hpp
// and eval.hpp for the loops of the drivers.
#pragma once

#include <espalier/autograd.hpp>
#include <espalier/core.hpp>
#include <espalier/models.hpp>
#include <espalier/nn.hpp>
#include <espalier/ops.hpp>
#include <espalier/tensor.hpp>
#include <espalier/train/adamw.hpp>
#include <espalier/train/batches.hpp>
#include <espalier/train/clip.hpp>
#include <espalier/train/schedule.hpp>
#include <espalier/train/trainer.hpp>
