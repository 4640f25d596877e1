# SPDX-License-Identifier: Apache-2.0
# Every layer that nvcc may see, and every header of kernels/, alone in a .cu file.
if(NOT NVCC)
  message("skipped: no nvcc on this machine")
  return()
endif()
set(work ${BUILD}/under_nvcc)
file(MAKE_DIRECTORY ${work})
set(includes "")
foreach(layer core tensor autograd ops nn models espalier)
  list(APPEND includes espalier/${layer}.hpp)
endforeach()
file(GLOB kernels RELATIVE ${SOURCE}/kernels ${SOURCE}/kernels/espalier/kernels/*.hpp
     ${SOURCE}/kernels/espalier/kernels/*.cuh)
set(failed "")
foreach(include IN LISTS includes kernels)
  string(MAKE_C_IDENTIFIER ${include} name)
  file(WRITE ${work}/${name}.cu "#include <${include}>\n")
  execute_process(COMMAND ${NVCC} -std=c++20 -arch=sm_90 -c -I${SOURCE}/include -I${SOURCE}/kernels
                          ${work}/${name}.cu -o ${work}/${name}.o
                  RESULT_VARIABLE status OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(NOT status EQUAL 0)
    message("${include}\n${said}")
    list(APPEND failed ${include})
  endif()
endforeach()
if(failed)
  message(FATAL_ERROR "not for nvcc alone: ${failed}")
endif()
