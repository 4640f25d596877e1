// SPDX-License-Identifier: Apache-2.0
// The Catch main of the tests on a GPU. Without a device it says so and exits 77, which ctest
// reports as skipped; whatever the device reports in the end is a failure too.
#define CATCH_CONFIG_RUNNER
#include <cuda_runtime.h>

#include <cstdio>

#include "support/catch.hpp"

int main(int argc, char** argv) {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device (%s)\n",
                error == cudaSuccess ? "none is there" : cudaGetErrorString(error));
    return 77;
  }
  cudaDeviceProp device;
  if (cudaGetDeviceProperties(&device, 0) == cudaSuccess) {
    std::printf("on %s, compute capability %d.%d\n", device.name, device.major, device.minor);
  }
  const int failed = Catch::Session().run(argc, argv);
  const cudaError_t left = cudaDeviceSynchronize();
  if (left != cudaSuccess) std::printf("the device reports: %s\n", cudaGetErrorString(left));
  return failed != 0 || left != cudaSuccess;
}
