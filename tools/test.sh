#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds Espalier and runs its tests, from a bare Debian 12 on: installs what is missing first, and
# says which files took longest to compile.
#   tools/test.sh                        preset cpu, all tests
#   tools/test.sh --preset asan          or tsan, tidy
#   tools/test.sh -R ops/ -j 1           anything else goes to ctest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=cpu
if [[ "${1:-}" == --preset ]]; then
  preset=${2:?tools/test.sh: --preset needs a name: cpu, asan, tsan or tidy}
  shift 2
fi
case "$preset" in
  cpu) tools/install_packages.sh ;;
  asan | tsan | tidy) tools/install_packages.sh check ;;
  *) echo "tools/test.sh: no test preset '$preset'; there are cpu, asan, tsan and tidy" >&2; exit 2 ;;
esac

jobs=$(nproc)
cmake --preset "$preset"
cmake --build --preset "$preset" --parallel "$jobs"
cmake -D BUILD="build/$preset" -P tools/slow_tus.cmake
ctest --preset "$preset" --parallel "$jobs" "$@"
