#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs each writing program on disks of random sizes that are too small for its output. It must fail
# in one line, leave nothing that looks whole, and succeed once there is room. Needs root (tmpfs).
#   tests/stress/full_disk.sh [SIZES per program, 20]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if [[ ${INSIDE:-} != 1 ]]; then exec env INSIDE=1 unshare --mount bash "$PWD/tests/stress/full_disk.sh" "$@"; fi

sizes=${1:-20}
RANDOM=${SEED:-1}
bin=$PWD/build/cpu/bin
golden=$PWD/tests/golden/tiny_mixtral
work=$(mktemp -d)
disk=$work/disk
mkdir "$disk"
trap 'umount "$disk" 2>/dev/null; rm -rf "$work"' EXIT
echo '{"keep": [[0,1,2,3,4,5],[0,1,2,3,4,5]]}' >"$work/plan.json"
for i in 1 2 3 4 5 6 7 8 9; do echo "{\"text\": \"tree $((i * i)) grows, is trained and pruned\"}"; done >"$work/text.jsonl"
"$bin/make_checkpoint" --output "$work/dense" --family llama --layers 2 --hidden 32 --intermediate 32 \
  --heads 2 --kv-heads 1 --vocab 400 --tokenizer "$golden/model" >/dev/null 2>&1
out=$disk/out
declare -A commands=(
  [prune]="$bin/prune --model $golden/model --plan $work/plan.json --output $out"
  [merge_adapter]="$bin/merge_adapter --model $golden/model --adapter $golden/adapter --output $out"
  [upcycle]="$bin/upcycle --model $work/dense --experts 4 --top-k 2 --output $out"
  [make_checkpoint]="$bin/make_checkpoint --layers 2 --hidden 64 --intermediate 64 --heads 2 --kv-heads 1 --experts 4 --vocab 400 --tokenizer $golden/model --output $out"
  [analyze]="$bin/analyze --model $golden/model --calibration $work/text.jsonl --criteria frequency,reap --output $out"
  [fine_tune]="$bin/fine_tune --threads 1 --model $golden/model --data $work/text.jsonl --max-length 24 --steps 9 --save-every 3 --resume --output $out"
  [evaluate]="$bin/evaluate --threads 1 --model $golden/model --task loss --text $work/text.jsonl --resume --output $out"
  [pretrain]="$bin/pretrain --threads 1 --model $golden/model --data $work/text.jsonl --max-length 24 --steps 3 --output $out"
)

failed=0
printf '%-16s %6s %8s %10s %10s\n' program sizes refused "half done" "then right"
for program in "${!commands[@]}"; do
  mount -t tmpfs -o size=64m tmpfs "$disk"
  ${commands[$program]} >/dev/null 2>&1
  used=$(du -sk "$out" | cut -f1)
  umount "$disk"
  refused=0 half=0 right=0
  for ((i = 0; i < sizes; ++i)); do
    kilobytes=$((4 + RANDOM * 8 % (used > 8 ? used - 4 : 4)))
    mount -t tmpfs -o size=${kilobytes}k,nr_inodes=0 tmpfs "$disk"
    if ${commands[$program]} >/dev/null 2>"$work/said"; then
      # What is not needed may be missing, and a warning says so: a picture.
      grep -q warning "$work/said" && refused=$((refused + 1)) || echo "$program: $kilobytes kB were enough"
    else
      code=$?
      lines=$(grep -c "^$program: .*" "$work/said" || true)
      ((code == 1 && lines >= 1)) && grep -q "No space left\|are free on this disk" "$work/said" &&
        refused=$((refused + 1)) || { echo "$program: exit code $code at $kilobytes kB"; tail -n 3 "$work/said"; }
      case $program in
        fine_tune | evaluate | analyze) ;; # written in place, file by file; the last one says that it is done
        *) [[ -e $out ]] && half=$((half + 1)) ;;
      esac
      find "$disk" -name '*.tmp-*' | grep -q . && half=$((half + 1)) && find "$disk" -name '*.tmp-*'
    fi
    mount -o remount,size=64m "$disk"
    [[ $program == analyze ]] && rm -f "$out/scores.json"
    if [[ -e $out/config.json ]] || ${commands[$program]} >/dev/null 2>"$work/said"; then right=$((right + 1)); else tail -n 1 "$work/said"; fi
    umount "$disk"
  done
  printf '%-16s %6d %8d %10d %10d\n' "$program" $sizes $refused $half $right
  ((refused == sizes && half == 0 && right == sizes)) || failed=1
done
exit $failed
