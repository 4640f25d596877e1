// SPDX-License-Identifier: Apache-2.0
// Everything in plot/.
#pragma once
#ifdef __CUDACC__
#error "espalier/plot.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/plot/axes.hpp>
#include <espalier/plot/bars.hpp>
#include <espalier/plot/canvas.hpp>
#include <espalier/plot/color.hpp>
#include <espalier/plot/curves.hpp>
#include <espalier/plot/heatmap.hpp>
#include <espalier/plot/ticks.hpp>
