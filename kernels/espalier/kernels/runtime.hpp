// SPDX-License-Identifier: Apache-2.0
// What a declaration of a launcher needs: error and stream of the CUDA runtime, and the names of
// the 2-byte floats. Without the toolkit just enough to declare, so that any compiler can read it.
#pragma once

#include <cstddef>
#include <cstdint>

#if __has_include(<cuda_runtime_api.h>)
#include <cuda_runtime_api.h>
#else
enum cudaError : int { cudaSuccess = 0 };
using cudaError_t = cudaError;
struct CUstream_st;
using cudaStream_t = CUstream_st*;
#endif

struct __nv_bfloat16;
struct __half;
