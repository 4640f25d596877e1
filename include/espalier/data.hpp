// SPDX-License-Identifier: Apache-2.0
// Everything in data/.
#pragma once
#ifdef __CUDACC__
#error "espalier/data.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/data/batches.hpp>
#include <espalier/data/calibration.hpp>
#include <espalier/data/dataset.hpp>
#include <espalier/data/examples.hpp>
#include <espalier/data/packing.hpp>
#include <espalier/data/records.hpp>
#include <espalier/data/training_set.hpp>
