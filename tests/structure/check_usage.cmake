# SPDX-License-Identifier: Apache-2.0
# What every program promises of its command line: --help explains the common options and exits 0;
# an unknown option exits 2 with one line on stderr and nothing on stdout.
execute_process(COMMAND ${PROGRAM} --help RESULT_VARIABLE status OUTPUT_VARIABLE out ERROR_VARIABLE err)
if(NOT status EQUAL 0 OR NOT err STREQUAL "")
  message(FATAL_ERROR "--help: exit ${status}, stderr '${err}'")
endif()
foreach(option --device --threads --seed --json --help)
  if(NOT out MATCHES "${option}")
    message(FATAL_ERROR "--help does not mention ${option}:\n${out}")
  endif()
endforeach()

execute_process(COMMAND ${PROGRAM} --no-such-option RESULT_VARIABLE status OUTPUT_VARIABLE out
                ERROR_VARIABLE err)
if(NOT status EQUAL 2 OR NOT out STREQUAL "" OR NOT err MATCHES "^[^\n]+\n$")
  message(FATAL_ERROR "--no-such-option: exit ${status}, stdout '${out}', stderr '${err}'")
endif()
