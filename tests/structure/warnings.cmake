# SPDX-License-Identifier: Apache-2.0
# With nothing but -I and -Wall -Wextra the headers give no warning at any level of optimization.
foreach(level -O0 -O1 -O2 -O3)
  execute_process(COMMAND ${COMPILER} -std=c++20 ${level} -Wall -Wextra -Werror -I${SOURCE}/include -c
                          ${SOURCE}/tests/structure/warnings.cpp -o ${BUILD}/warnings.o
                  RESULT_VARIABLE status ERROR_VARIABLE said)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${level} warns:\n${said}")
  endif()
endforeach()
