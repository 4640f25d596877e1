#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds and runs the fuzz targets of tests/fuzz under AddressSanitizer and UBSan.
#   tools/fuzz.sh                  each for 20 seconds, two at a time
#   tools/fuzz.sh 3600 json        one, for an hour
# FUZZ_SEED=1 tries the same inputs each time, as CI does, so that a change fails by its own faults.
# New inputs go to build/fuzz/corpus/NAME, an input that crashes or hangs to build/fuzz/crash-NAME-*,
# what a target says to build/fuzz/log/NAME. To see a crash again: build/fuzz/bin/fuzz_NAME FILE.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-20}
names=()
for source in tests/fuzz/*.cpp; do names+=("$(basename "$source" .cpp)"); done
[[ -z "${2:-}" ]] || names=("$2")

mkdir -p build
cmake --preset fuzz >build/fuzz-configure.log 2>&1 || { cat build/fuzz-configure.log; exit 1; }
[[ ! -w /dev/shm ]] || export TMPDIR=/dev/shm  # the files that targets write: thousands a second
cmake --build build/fuzz --target "${names[@]/#/fuzz_}"

run_one() {  # NAME SECONDS
  local name=$1 corpus=build/fuzz/corpus/$1 seeds=tests/fuzz/corpus/$1
  mkdir -p "$corpus" build/fuzz/log "$seeds"
  if OMP_NUM_THREADS=1 build/fuzz/bin/fuzz_"$name" -max_total_time="$2" -seed="${FUZZ_SEED:-0}" -timeout=20 -rss_limit_mb=4096 \
    -max_len=4096 -print_final_stats=1 -artifact_prefix="build/fuzz/crash-$name-" \
    "$corpus" "$seeds" >build/fuzz/log/"$name" 2>&1; then
    printf '%-16s %9s executions\n' "$name" \
      "$(sed -n 's/^stat::number_of_executed_units: *//p' build/fuzz/log/"$name")"
  else
    tail -n 60 build/fuzz/log/"$name"
    echo "fuzz_$name found something: build/fuzz/crash-$name-*"
    return 1
  fi
}
export -f run_one
printf '%s\n' "${names[@]}" | xargs -P 2 -I NAME bash -c 'run_one NAME '"$seconds"
