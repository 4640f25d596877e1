// SPDX-License-Identifier: Apache-2.0
// Filters of answers and metrics of generated texts and of likelihoods: everything in
// eval/metrics/.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/eval/metrics/answer_filter.hpp>
#include <espalier/eval/metrics/exact_match.hpp>
#include <espalier/eval/metrics/python_regex.hpp>
#include <espalier/eval/metrics/python_text.hpp>
