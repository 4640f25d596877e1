// SPDX-License-Identifier: Apache-2.0
// The functions that core/inline.hpp is about: files, tokenizers, plans and command lines, compiled
// once for all programs and tests of this repository.
#include <espalier/eval.hpp>
#include <espalier/io.hpp>
#include <espalier/plot.hpp>
#include <espalier/prune.hpp>
#include <espalier/text.hpp>
#include <espalier/train.hpp>

#include "cli/program.hpp"
#include "cli/progress.hpp"
