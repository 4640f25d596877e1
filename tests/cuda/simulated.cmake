# SPDX-License-Identifier: Apache-2.0
# The first program of README.md, fine_tune, analyze and evaluate with the device Cuda where there is
# no GPU, and the benches of its kernels, on sizes of a test: the same sources, built as in a build
# with CUDA, with the simulator in the place of the toolkit.
file(GLOB kernel_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/espalier/kernels/*.cu)
set(simulated ${CMAKE_CURRENT_BINARY_DIR}/kernels_simulated)
set(instances "")
foreach(source IN LISTS kernel_sources)
  cmake_path(GET source STEM name)
  file(CONFIGURE OUTPUT ${simulated}/${name}.cpp CONTENT "#include \"${source}\"\n")
  list(APPEND instances ${simulated}/${name}.cpp)
endforeach()
add_library(espalier_kernels_simulated STATIC ${instances})
target_include_directories(espalier_kernels_simulated BEFORE PUBLIC support/simulator
                                                      ${PROJECT_SOURCE_DIR}/kernels)
target_compile_definitions(espalier_kernels_simulated INTERFACE ESPALIER_CUDA=1)
target_compile_options(espalier_kernels_simulated PUBLIC -Wno-unknown-pragmas -Wno-pass-failed)  # unroll, of nvcc
target_link_libraries(espalier_kernels_simulated PUBLIC espalier_dev CLI11::CLI11 fmt::fmt)

# The two lines that make README.md's first program one for a GPU.
file(READ ${PROJECT_SOURCE_DIR}/examples/00_first_program.cpp program)
string(REPLACE "using D = Cpu;" "using D = Cuda;" program "${program}")
string(REPLACE "#include <espalier/espalier.hpp>\n"
               "#include <espalier/espalier.hpp>\n#include <espalier/cuda.hpp>\n" program "${program}")
file(CONFIGURE OUTPUT ${simulated}/first_program.cc CONTENT "${program}" @ONLY)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
                                       ${PROJECT_SOURCE_DIR}/examples/00_first_program.cpp)
add_executable(first_program_simulated ${simulated}/first_program.cc)
target_compile_options(first_program_simulated PRIVATE $<$<CXX_COMPILER_ID:GNU>:-O0> -g0)
target_link_libraries(first_program_simulated PRIVATE espalier_kernels_simulated espalier_compiled)

foreach(name fine_tune analyze evaluate)
  add_executable(${name}_simulated ${PROJECT_SOURCE_DIR}/examples/${name}.cpp)
  target_include_directories(${name}_simulated PRIVATE ${PROJECT_SOURCE_DIR}/tools)
  # Three steps of a tiny model: the time to compile counts. (What clang compiles with -O0 calls names
  # of constructors that it does not emit into espalier_compiled with more.)
  target_compile_options(${name}_simulated PRIVATE $<$<CXX_COMPILER_ID:GNU>:-O0> -g0)
  target_link_libraries(${name}_simulated PRIVATE espalier_kernels_simulated espalier_compiled)
endforeach()

file(GLOB benches CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bench/cuda/*.cpp)
foreach(source IN LISTS benches)
  cmake_path(GET source STEM name)
  add_executable(cuda_${name}_simulated ${source})
  target_include_directories(cuda_${name}_simulated PRIVATE ${PROJECT_SOURCE_DIR}/tools)
  target_compile_options(cuda_${name}_simulated PRIVATE -O0 -g0)
  target_link_libraries(cuda_${name}_simulated PRIVATE espalier_kernels_simulated)
  espalier_bench(cuda_${name}_simulated)
  espalier_test(cuda/${name} "cuda;simulator" cuda_${name}_simulated --tiny --reps 3 --alike 2)
  espalier_slow_test(cuda/${name} FIXTURES_REQUIRED benches)
endforeach()
