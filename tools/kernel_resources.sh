#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the compiler gives each kernel: registers, static shared memory, spills; and how long it takes
# per .cu file. Compiles only, so it runs without a GPU. Fails on a warning, an error or a spill.
#   tools/kernel_resources.sh [--arch "sm_80 sm_90a"] [--only WORD] [--all]
# --all prints a row per instantiation, not per kernel. NVCC names the compiler ("ccache nvcc").
set -euo pipefail
cd "$(dirname "$0")/.."

archs="sm_80 sm_90a" only="" all=0
while (($#)); do
  case $1 in
    --arch) archs=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --all) all=1; shift ;;
    *) sed -n '3,6s/^# //p' "$0"; exit 2 ;;
  esac
done
PATH=$PATH:/usr/local/cuda/bin
read -ra nvcc <<<"${NVCC:-nvcc}"
if ! command -v "${nvcc[0]}" >/dev/null || ! command -v nvcc >/dev/null; then
  echo "skipped: no nvcc on this machine"
  exit 77
fi
flags=(-std=c++20 -O3 -Xptxas -v -Ikernels -Iinclude)
for arch in $archs; do flags+=(-gencode "arch=compute_${arch#sm_},code=$arch"); done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
TIMEFORMAT='%U %S'
for source in kernels/espalier/kernels/*"$only"*.cu; do
  name=$(basename "$source")
  if ! { time "${nvcc[@]}" "${flags[@]}" -c "$source" -o "$work/$name.o" >"$work/$name.log" 2>&1; } \
      2>"$work/$name.time"; then
    echo "$source does not compile:"
    cat "$work/$name.log"
    failed=1
  fi
  if grep -n -i "warning" "$work/$name.log"; then
    echo "$source compiles with warnings"
    failed=1
  fi
  awk -v file="$name" '
    /Compiling entry function/ { gsub("\047", ""); kernel = $(NF - 2); arch = $NF }
    /bytes stack frame/ {
      for (i = 2; i <= NF; ++i) {
        if ($i == "bytes" && $(i + 1) == "stack") stack = $(i - 1)
        if ($i == "bytes" && $(i + 1) == "spill") spills += $(i - 1)
      }
    }
    /: Used [0-9]+ registers/ {
      shared = 0
      for (i = 2; i <= NF; ++i) {
        if ($i ~ /^registers/) registers = $(i - 1)
        if ($i == "bytes" && $(i + 1) ~ /^smem/) shared = $(i - 1)
      }
      print file, arch, kernel, registers, shared, stack, spills + 0
      stack = spills = 0
    }' "$work/$name.log" >>"$work/rows"
done

nvcc --version | sed -n '/release/s/.*\(release.*\)/nvcc \1/p'
echo
# c++filt prints "void espalier::kernels::name<arguments>(parameters)": the name, or with arguments.
awk '{print $3}' "$work/rows" | c++filt |
  sed -e 's/^void //' -e 's/espalier::kernels:://g' >"$work/names"
if ((all)); then
  sed -i -e 's/(anonymous namespace):://g' -e 's/>(.*/>/' -e 's/([^()]*$//' "$work/names"
else
  sed -i -e 's/[<(].*//' "$work/names"
fi
columns="" lines=""
for arch in $archs; do columns+=" registers $arch |" lines+="---|"; done
echo "| file | kernel | variants |$columns shared bytes | stack bytes | spilled bytes |"
echo "|---|---|---|$lines---|---|---|"
paste -d' ' <(cut -d' ' -f1,2,4-7 "$work/rows") "$work/names" | awk -v archs="$archs" '
  {
    name = $7
    for (i = 8; i <= NF; ++i) name = name " " $i
    key = $1 "|" name
    if (!(key in known)) { order[++keys] = key; known[key] = 1 }
    of = key "|" $2
    ++variants[of]
    if (variants[of] > most[key]) most[key] = variants[of]
    if (!(of in low) || $3 < low[of]) low[of] = $3
    if ($3 > high[of]) high[of] = $3
    if ($4 > shared[key]) shared[key] = $4
    if ($5 > stack[key]) stack[key] = $5
    spills[key] += $6
  }
  END {
    count = split(archs, arch, " ")
    for (i = 1; i <= keys; ++i) {
      k = order[i]
      split(k, part, "|")
      ranges = ""
      for (a = 1; a <= count; ++a) {
        of = k "|" arch[a]
        ranges = ranges " " (!(of in low) ? "-" : low[of] == high[of] ? low[of] : low[of] " - " high[of]) " |"
      }
      printf "| %s | %s | %d |%s %d | %d | %d |\n", part[1], part[2], most[k], ranges, shared[k],
             stack[k], spills[k]
    }
  }' | sort
echo
echo "Seconds of the compiler, all architectures:"
for t in "$work"/*.time; do
  awk -v file="$(basename "$t" .cu.time)" 'END { printf "%s %.1f\n", file, $1 + $2 }' "$t"
done | paste -sd, | sed 's/,/, /g' | fold -s -w 118
if awk '$7 > 0 {found = 1} END {exit !found}' "$work/rows"; then
  echo "a kernel spills registers"
  failed=1
fi
exit $failed
