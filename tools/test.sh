#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds Espalier and runs its tests, from a bare Debian 12 on: installs what is missing first, and
# says which files took longest to compile.
#   tools/test.sh                        preset cpu, all tests but those labelled slow
#   tools/test.sh -L slow                those: every header alone, under nvcc, the benches on tiny sizes
#   tools/test.sh --preset asan          or tsan, tidy; asan-kernels and tsan-kernels: a part of them
#   tools/test.sh -R ops/ -j 1           anything else goes to ctest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=cpu
if [[ "${1:-}" == --preset ]]; then
  preset=${2:?tools/test.sh: --preset needs a name: cpu, asan, tsan, tidy, asan-kernels or tsan-kernels}
  shift 2
fi
case "$preset" in
  cpu) tools/install_packages.sh ;;
  asan | tsan | tidy | asan-kernels | tsan-kernels) tools/install_packages.sh check ;;
  *) echo "tools/test.sh: no test preset '$preset'; there are cpu, asan, tsan, tidy, asan-kernels and tsan-kernels" >&2; exit 2 ;;
esac

jobs=$(nproc)
configured=${preset%-kernels}
cmake --preset "$configured"
cmake --build --preset "$preset" --parallel "$jobs"
cmake -D BUILD="build/$configured" -P tools/slow_tus.cmake
if (($# == 0)); then set -- -LE '^slow$'; fi
ctest --preset "$preset" --parallel "$jobs" "$@"
