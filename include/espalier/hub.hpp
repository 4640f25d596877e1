// SPDX-License-Identifier: Apache-2.0
// Everything in hub/.
#pragma once
#ifdef __CUDACC__
#error "espalier/hub.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/hub/adapter.hpp>
#include <espalier/hub/checkpoint.hpp>
#include <espalier/hub/fingerprint.hpp>
#include <espalier/hub/forecast.hpp>
#include <espalier/hub/json_config.hpp>
#include <espalier/hub/load_model.hpp>
#include <espalier/hub/synthetic.hpp>
#include <espalier/hub/tensor_groups.hpp>
