# SPDX-License-Identifier: Apache-2.0
# Under -Ofast the headers refuse to compile and say why; with ESPALIER_ALLOW_FAST_MATH they compile,
# and fast_math.cpp finds the values right.
set(case ${SOURCE}/tests/structure/fast_math.cpp)
set(compile ${COMPILER} -std=c++20 -Ofast -I${SOURCE}/include ${case} -o ${BUILD}/fast_math)

execute_process(COMMAND ${compile} RESULT_VARIABLE status ERROR_VARIABLE said)
if(status EQUAL 0 OR NOT said MATCHES "define ESPALIER_ALLOW_FAST_MATH")
  message(FATAL_ERROR "-Ofast is not refused in words:\n${said}")
endif()
execute_process(COMMAND ${compile} -DESPALIER_ALLOW_FAST_MATH RESULT_VARIABLE status ERROR_VARIABLE said)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "does not compile with -Ofast -DESPALIER_ALLOW_FAST_MATH:\n${said}")
endif()
execute_process(COMMAND ${BUILD}/fast_math RESULT_VARIABLE status OUTPUT_VARIABLE said)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "wrong values under -Ofast:\n${said}")
endif()
