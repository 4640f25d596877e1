# SPDX-License-Identifier: Apache-2.0
# Builds and runs tests/structure/consumer as a user would: WAY is installed_package,
# installed_components, installed_io or installed_kernels (from a prefix that is moved after the install),
# installed_alone (from a build that found no library), add_subdirectory or include_path (no CMake at
# all). WAY=time prints what the umbrella costs a compiler at -O0.
set(consumer ${SOURCE}/tests/structure/consumer)
set(work ${BUILD}/consume/${WAY})
file(REMOVE_RECURSE ${work})
file(MAKE_DIRECTORY ${work})

function(run)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${work} RESULT_VARIABLE status
                  OUTPUT_VARIABLE out ERROR_VARIABLE out)
  if(NOT status EQUAL 0)
    list(JOIN ARGN " " line)
    message(FATAL_ERROR "${line}\n${out}")
  endif()
  set(out "${out}" PARENT_SCOPE)
endfunction()

if(WAY STREQUAL "time")
  file(WRITE ${work}/umbrella.cpp "#include <espalier/espalier.hpp>\n")
  string(TIMESTAMP begin "%s%f")
  run(${COMPILER} -std=c++20 -O0 -I${SOURCE}/include -c umbrella.cpp)
  string(TIMESTAMP end "%s%f")
  math(EXPR ms "(${end} - ${begin}) / 1000")
  message("espalier/espalier.hpp compiles in ${ms} ms at -O0")
  return()
elseif(WAY STREQUAL "include_path")
  run(${COMPILER} -std=c++20 -Wall -Wextra -I${SOURCE}/include ${consumer}/main.cpp
      ${consumer}/second.cpp -o consumer)
  run(./consumer)
  return()
endif()

set(options "")
if(WAY STREQUAL "add_subdirectory")
  list(APPEND options -D ESPALIER_SOURCE=${SOURCE})
else()
  set(build ${BUILD})
  if(WAY STREQUAL "installed_alone")
    set(build ${work}/alone)
    set(without "")
    foreach(library fmt simdjson PkgConfig OpenMP)
      list(APPEND without -D CMAKE_DISABLE_FIND_PACKAGE_${library}=ON)
    endforeach()
    run(${CMAKE_COMMAND} -G ${GENERATOR} -S ${SOURCE} -B ${build} -D ESPALIER_DEV=OFF ${without}
        -D CMAKE_CXX_COMPILER=${COMPILER})
  endif()
  run(${CMAKE_COMMAND} --install ${build} --prefix ${work}/built_here)
  file(RENAME ${work}/built_here ${work}/moved)
  list(APPEND options -D CMAKE_PREFIX_PATH=${work}/moved)
endif()
run(${CMAKE_COMMAND} -G ${GENERATOR} -S ${consumer} -B build -D WAY=${WAY}
    -D CMAKE_CXX_COMPILER=${COMPILER} -D CMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} ${options})
run(${CMAKE_COMMAND} --build build)
run(./build/consumer)
message("${out}")
