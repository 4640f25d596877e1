// SPDX-License-Identifier: Apache-2.0
// The definitions of all kernels, for the simulator: what espalier::kernels is in a build with
// CUDA.
#pragma once

#include <espalier/kernels/adamw.cuh>
#include <espalier/kernels/attention.cuh>
#include <espalier/kernels/combine.cuh>
#include <espalier/kernels/cross_entropy.cuh>
#include <espalier/kernels/dispatch.cuh>
#include <espalier/kernels/dropout.cuh>
#include <espalier/kernels/elementwise.cuh>
#include <espalier/kernels/embedding.cuh>
#include <espalier/kernels/grouped_gemm.cuh>
#include <espalier/kernels/load_balancing_loss.cuh>
#include <espalier/kernels/lora.cuh>
#include <espalier/kernels/norms.cuh>
#include <espalier/kernels/rms_norm.cuh>
#include <espalier/kernels/rope.cuh>
#include <espalier/kernels/router_top_k.cuh>
#include <espalier/kernels/routing.cuh>
#include <espalier/kernels/swiglu.cuh>
