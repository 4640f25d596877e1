#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-format 14 over every C++ and CUDA file; with --fix it rewrites them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

format=clang-format
if command -v clang-format-14 >/dev/null; then
  format=clang-format-14
fi
if ! "$format" --version | grep -q 'version 14\.'; then
  echo "check_format.sh: needs clang-format 14, found: $("$format" --version)" >&2
  exit 1
fi
arguments=(--dry-run -Werror)
if [[ "${1:-}" == --fix ]]; then
  arguments=(-i)
fi
folders=()
for folder in include kernels examples bench tests tools; do
  if [[ -d "$folder" ]]; then folders+=("$folder"); fi
done
find "${folders[@]}" \
  \( -name '*.hpp' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu' \) -print0 |
  xargs -0 "$format" "${arguments[@]}"
