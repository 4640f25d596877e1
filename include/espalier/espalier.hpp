// SPDX-License-Identifier: Apache-2.0
// The framework: tensors, autograd, ops, layers, models, and what a training step needs.
// Beside it: io.hpp, text.hpp and plot.hpp for files, text and plots; hub.hpp, data.hpp and
// infer.hpp for checkpoints, data sets and decoding; train.hpp, prune.hpp and eval.hpp for what
// the drivers do.
#pragma once

#include <espalier/autograd.hpp>
#include <espalier/core.hpp>
#include <espalier/data/batches.hpp>
#include <espalier/models.hpp>
#include <espalier/nn.hpp>
#include <espalier/ops.hpp>
#include <espalier/optim.hpp>
#include <espalier/tensor.hpp>
#include <espalier/train/trainer.hpp>
