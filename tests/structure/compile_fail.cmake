# SPDX-License-Identifier: Apache-2.0
# CASE must compile as it is, and must not with SHOULD_FAIL defined; the compiler's message must then
# match the case's line "// ERROR: regular expression".
file(STRINGS ${CASE} reason REGEX "^// ERROR: ")
string(REPLACE "// ERROR: " "" reason "${reason}")
if(reason STREQUAL "")
  message(FATAL_ERROR "${CASE} has no line // ERROR:")
endif()
set(compile ${COMPILER} -std=c++20 -fsyntax-only -I${SOURCE}/include)

execute_process(COMMAND ${compile} -Wall -Wextra -Werror ${CASE} RESULT_VARIABLE status
                ERROR_VARIABLE said)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "does not compile without SHOULD_FAIL:\n${said}")
endif()
execute_process(COMMAND ${compile} -DSHOULD_FAIL ${CASE} RESULT_VARIABLE status
                ERROR_VARIABLE said)
if(status EQUAL 0)
  message(FATAL_ERROR "compiles with SHOULD_FAIL")
endif()
if(NOT said MATCHES "${reason}")
  message(FATAL_ERROR "fails for another reason than \"${reason}\":\n${said}")
endif()
