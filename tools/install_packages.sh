#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what Espalier is built from, on Debian 12 or a relative; does nothing where it is there.
#   tools/install_packages.sh            to build and test
#   tools/install_packages.sh check      also what CI checks with: clang, clang-format, clang-tidy
set -euo pipefail

packages=(g++ cmake ninja-build pkg-config ccache
  libfmt-dev libsimdjson-dev libxxhash-dev              # formatting, JSON, hashes
  catch2 libcli11-dev                                   # tests, command lines
  libbenchmark-dev                                      # benches
  libutf8proc-dev libpcre2-dev                          # Unicode and patterns of tokenizers
  libcairo2-dev fonts-dejavu-core)                      # plots
if [[ "${1:-}" == check ]]; then
  packages+=(clang clang-format clang-tidy libomp-dev libclang-rt-dev)
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ "$status" == installed ]] || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then
  exit 0
fi

as_root=()
if [[ $EUID -ne 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "install_packages.sh: not root, and there is no sudo; install: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -q
"${as_root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}"
