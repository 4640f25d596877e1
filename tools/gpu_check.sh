#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds, checks and times the CUDA kernels on the GPU of this machine, in one call of less than 8
# minutes on 16 cores; needs nvcc and g++ 12 or later, no CMake.
#   tools/gpu_check.sh [--deps FOLDER] [--out FOLDER] [--arch sm_90a] [--jobs N] [--seconds 460]
#   tools/gpu_check.sh --pack FOLDER     # elsewhere before: the headers that this machine may lack
# Stages: build; the tests of tests/gpu; every bench of bench/cuda, which verifies 20 runs to be
# alike to the byte; the benches' smallest sizes and the tests under compute-sanitizer (memcheck,
# racecheck); the tests with 20 runs. Each has its share of the seconds; what is done is kept:
#   FOLDER/log/*.txt   FOLDER/bench/*.json (a line per case)   FOLDER/RESULTS.md (for bench/)
# Kernels, tests and benches are found by where they lie. Exit code: 0, 1 if a stage failed or did
# not finish, 77 without a GPU (then it has built all the same; --no-build skips that).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

deps="" out=build/gpu_check arch="" jobs=$(nproc) seconds=460 build=1 pack=""
while (($#)); do
  case $1 in
    --deps) deps=$(realpath "$2"); shift 2 ;;
    --out) out=$2; shift 2 ;;
    --arch) arch=$2; shift 2 ;;
    --jobs) jobs=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --pack) pack=$2; shift 2 ;;
    --no-build) build=0; shift ;;
    *) sed -n '3,13s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done

if [[ -n $pack ]]; then
  mkdir -p "$pack/include" "$pack/lib"
  cp -rL /usr/include/{fmt,CLI,catch2,simdjson.h} "$pack/include/"
  cp -L "$(find /usr/lib -name 'libsimdjson.so.[0-9]*' | sort | head -1)" "$pack/lib/"
  du -sh "$pack"
  exit
fi

PATH=$PATH:/usr/local/cuda/bin
if ! command -v nvcc >/dev/null; then
  echo "skipped: no nvcc on this machine"
  exit 77
fi
if [[ -z $arch ]]; then  # that of the GPU; without one that of an H100
  arch=sm_$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
  [[ $arch == sm_ || $arch == sm_90 ]] && arch=sm_90a
fi
mkdir -p "$out"/{log,bench,obj,bin,host/espalier/kernels}
out=$(realpath "$out")
cuda=$(dirname "$(dirname "$(realpath "$(command -v nvcc)")")")
locate() { find "$cuda/" /usr/local /opt /usr/lib -name "$1" -not -path '*stubs*' 2>/dev/null | head -1; }
failed=()
left() { echo $((seconds - SECONDS)); }

# stage NAME SECONDS COMMAND...: at most so long, and no longer than what is left.
stage() {
  local name=$1 limit=$2 begin=$SECONDS status
  shift 2
  (($(left) < limit)) && limit=$(left)
  if ((limit < 2)); then
    status="not reached"
  else
    timeout -k 5 "$limit" "$@" >"$out/log/$name.txt" 2>&1
    status=$?
    ((status == 124 || status == 137)) && status="cut off after $limit s"
  fi
  [[ $status == 0 ]] && status=passed
  [[ $status =~ ^[0-9]+$ ]] && status="failed ($status)"
  [[ $status == passed ]] || failed+=("$name")
  printf '%-42s %4d s  %s\n' "$name" $((SECONDS - begin)) "$status" | tee -a "$out/stages.txt"
}

# --- build: one line per object, all of them at once ------------------------------------------------
cublas=$(locate cublas_v2.h)  # some machines have it in a package of Python's alone
include="-Itests/gpu/host -I$out/host -Itests -Iinclude -Ikernels -Itools -I$cuda/include"
include+=" -I$(dirname "$cublas")"
[[ -n $deps ]] && include+=" -isystem $deps/include"
defines="-DESPALIER_CUDA=1 -DFMT_HEADER_ONLY -DESPALIER_TESTS_DIR='\"$PWD/tests\"'"
host="${CXX:-g++} -std=c++20 -fopenmp $defines $include"
device="nvcc -std=c++20 -gencode arch=compute_${arch#sm_},code=$arch -lineinfo"
tests=$(ls tests/{cuda,kernels,gpu}/*_test.cpp 2>/dev/null | grep -vE '(simulator|drivers)_test')

# The longest first.
objects() {
  local f o
  for f in $tests tests/gpu/main.cpp; do
    o=$out/obj/test_$(basename "$(dirname "$f")")_$(basename "$f" .cpp).o
    if grep -q __global__ "$f"; then  # it has kernels of its own
      echo "$device -O1 -x cu -include tests/gpu/device.hpp -Itests -Iinclude -Ikernels" \
        "${deps:+-isystem $deps/include} -c $f -o $o"
    else
      echo "$host -O0 -include tests/gpu/device.hpp -c $f -o $o"
    fi
  done
  for f in kernels/espalier/kernels/*.cu; do
    echo "$device -O3 -Ikernels -c $f -o $out/obj/kernel_$(basename "$f" .cu).o"
  done
  for f in bench/cuda/*.cpp; do
    echo "$host -O1 -c $f -o $out/obj/bench_$(basename "$f" .cpp).o"
  done
}
build() {
  local f name
  local blas lt
  blas=$(locate 'libcublas.so*') lt=$(locate 'libcublasLt.so*')
  local libraries=("$blas" "$lt" -Wl,-rpath,"$(dirname "$blas")" -Wl,-rpath,"$(dirname "$lt")"
    "$(locate libcudart_static.a)" -lpthread -ldl -lrt)
  for f in kernels/espalier/kernels/*.hpp; do
    name=$(basename "$f" .hpp)
    printf '#include <espalier/kernels/%s>\n' \
      $(cd kernels/espalier/kernels && ls "$name"*.hpp) >"$out/host/espalier/kernels/$name.cuh"
  done
  objects | xargs -P "$jobs" -d '\n' -I{} bash -c '{} || echo "DOES NOT COMPILE: {}"'
  link() { "${CXX:-g++}" -fopenmp "$@" "$out"/obj/kernel_*.o "${libraries[@]}"; }
  for f in bench/cuda/*.cpp; do
    name=$(basename "$f" .cpp)
    link "$out/obj/bench_$name.o" -o "$out/bin/cuda_$name" &
  done
  if [[ -n $deps ]]; then
    link "$out"/obj/test_*.o "$deps"/lib/libsimdjson.so.* -Wl,-rpath,"$deps/lib" -o "$out/bin/test_gpu" &
  else
    link "$out"/obj/test_*.o -lsimdjson -o "$out/bin/test_gpu" &
  fi
  wait
  [[ -x $out/bin/test_gpu ]] && ! grep -q "DOES NOT COMPILE" "$out/log/build.txt"
}
export -f build objects locate
export out cuda jobs deps include defines host device tests

rm -f "$out/stages.txt"
if ((build)); then
  rm -f "$out"/obj/*.o "$out"/bin/*
  stage build $((seconds / 2)) bash -c build
fi
if ! nvidia-smi -L >"$out/log/gpu.txt" 2>&1; then
  echo "skipped: no CUDA device"
  ((${#failed[@]})) && exit 1
  exit 77
fi

# --- check and time -------------------------------------------------------------------------------------
many="~*2^31*" most="[kernels]~*2^31*,[cuda]"  # those take long for their memory alone
stage tests 60 "$out/bin/test_gpu" "$most"
# Does it depend on where the tests' arrays lie?
[[ " ${failed[*]} " != *" tests "* ]] ||
  stage tests_in_managed_memory 60 env ESPALIER_MANAGED=1 "$out/bin/test_gpu" "$most"
for program in "$out"/bin/cuda_*; do
  name=$(basename "$program") limit=45
  [[ $name == *grouped* ]] && limit=130
  json() { "$1" --json --alike 20 >"$2"; }
  export -f json
  stage "$name" $limit bash -c "json $program $out/bench/$name.json"
done
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    check="compute-sanitizer --tool $tool --error-exitcode 9"
    [[ $tool == memcheck ]] && check+=" --report-api-errors no"  # the tests look at those themselves
    tiny() { local p; for p in "$1"/cuda_*; do $2 "$p" --tiny --reps 1 --alike 1 || return; done; }
    export -f tiny
    stage "benches_under_$tool" 60 bash -c "tiny '$out/bin' '$check'"
    stage "tests_under_$tool" 60 bash -c "ESPALIER_RUNS=1 $check '$out/bin/test_gpu' '[kernels]$many'"
  done
else
  echo "no compute-sanitizer on this machine: memcheck and racecheck did not run" |
    tee -a "$out/stages.txt"
fi
stage tests_beyond_2_31 60 "$out/bin/test_gpu" "*2^31*"
stage twenty_runs_alike 60 env ESPALIER_RUNS=20 "$out/bin/test_gpu" "[kernels]$many"

# --- results --------------------------------------------------------------------------------------------
{
  echo "### $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | head -1)"
  echo
  echo "$(nvcc --version | sed -n 's/.*\(release.*\),.*/nvcc \1/p'), $arch, $(date -I)," \
    "$(git rev-parse --short HEAD 2>/dev/null || echo 'no git')." \
    "Medians; each time follows a flush of the L2 cache. Ceiling: the copy or the bf16 product of" \
    "cuBLAS measured in the same run."
  echo
  echo '```'
  cat "$out/stages.txt"
  echo '```'
  for file in "$out"/bench/*.json; do
    [[ -s $file ]] || continue
    echo
    sed -nE 's/.*"copy_gb_per_s": ([0-9.]+), "product_tflop_per_s": ([0-9.]+).*/Copy \1 GB\/s, product \2 TFLOP\/s.\n/p' \
      "$file"
    echo "| $(basename "$file" .json) | us | min us | rate | of ceiling | launches | runs alike | peers, us |"
    echo "|---|---|---|---|---|---|---|---|"
    sed -nE 's/.*"case": "([^"]*)", "us": ([0-9.]+), "min_us": ([0-9.]+), "([a-z_]+)": ([0-9.]+), "of_ceiling": ([0-9.]+), "launches": ([0-9]+), "alike": ([0-9]+), "peers_us": \{([^}]*)\}.*/| \1 | \2 | \3 | \5 \4 | \6 | \7 | \8 | \9 |/p' \
      "$file" | sed -e 's/"//g' -e 's/gb_per_s/GB\/s/' -e 's/tflop_per_s/TFLOP\/s/'
  done
} >"$out/RESULTS.md"

echo "$SECONDS s; results in $out/RESULTS.md"
if ((${#failed[@]})); then
  for name in "${failed[@]}"; do
    printf '\n%s ends with:\n' "$name"
    tail -n 8 "$out/log/$name.txt" 2>/dev/null | cut -c1-200
  done
  echo "failed or unfinished: ${failed[*]}"
  exit 1
fi
