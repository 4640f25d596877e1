#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Kills each writing program at random moments (SIGKILL), runs it again to its end, and compares with
# an uninterrupted run: the same bytes, clock fields aside, and nothing left over.
#   tests/stress/kills.sh [KILLS per program, 20] [programs ...]
# One run is killed one to three times, or $KILLS_PER_RUN times.
# Needs the preset cpu to be built. RANDOM is seeded by $SEED (1).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

kills=${1:-20}
shift || true
programs=("$@")
((${#programs[@]})) || programs=(prune merge_adapter upcycle make_checkpoint analyze fine_tune evaluate)
RANDOM=${SEED:-1}
bin=$PWD/build/cpu/bin
golden=$PWD/tests/golden/tiny_mixtral
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo '{"keep": [[0,1,2,3,4,5],[0,1,2,3,4,5]]}' >"$work/plan.json"
for i in 1 2 3 4 5 6 7 8 9; do echo "{\"text\": \"tree $((i * i)) grows, is trained and pruned\"}"; done >"$work/text.jsonl"
mkdir "$work/data"
for i in $(seq 40); do
  echo "{\"query\": \"tree $i is\", \"choices\": [\"pruned\", \"trained $i\"], \"gold\": $((i % 2))}" >>"$work/data/trees.jsonl"
  echo "{\"question\": \"$i + $i\", \"answer\": \"#### $((2 * i))\"}" >>"$work/data/gsm8k.jsonl"
done
"$bin/make_checkpoint" --output "$work/dense" --family llama --layers 2 --hidden 32 --intermediate 32 \
  --heads 2 --kv-heads 1 --vocab 400 --tokenizer "$golden/model" >/dev/null 2>&1

# The command of a program; its output is $work/out.
command_of() {
  local out=$work/out
  case $1 in
    prune) echo "$bin/prune --model $golden/model --plan $work/plan.json --output $out" ;;
    merge_adapter) echo "$bin/merge_adapter --model $golden/model --adapter $golden/adapter --output $out" ;;
    upcycle) echo "$bin/upcycle --model $work/dense --experts 4 --top-k 2 --output $out" ;;
    make_checkpoint) echo "$bin/make_checkpoint --layers 2 --hidden 64 --intermediate 64 --heads 2 --kv-heads 1 --experts 4 --vocab 400 --tokenizer $golden/model --output $out" ;;
    analyze) echo "$bin/analyze --model $golden/model --calibration $work/text.jsonl --criteria frequency,reap --output $out" ;;
    fine_tune) echo "$bin/fine_tune --threads 1 --model $golden/model --data $work/text.jsonl --max-length 24 --batch-size 2 --steps 30 --save-every 3 --lr 1e-2 --resume --output $out" ;;
    evaluate) echo "$bin/evaluate --threads 1 --model $golden/model --data $work/data --task loss,trees,gsm8k --shots 1 --max-new-tokens 12 --text $work/text.jsonl --resume --output $out" ;;
  esac
}

# What a run leaves, without what depends on the clock: a line per file, dates in names left out.
content() {
  (cd "$1" && find . -type f ! -name 'run.json' ! -path './results/*' ! -name 'results_*' | sort |
    while read -r file; do
      printf '%s %s\n' "$(sed -E 's/"(tokens_per_second|seconds|start_time|end_time|total_evaluation_time_secondes)": *[-0-9.e+]+//g' "$file" | sha256sum | cut -c1-16)" "$(sed -E 's/_20[0-9]{2}-[-0-9T.]+\././' <<<"$file")"
    done | sort -u)
}

failed=0
printf '%-16s %6s %6s %8s %10s %10s\n' program kills runs equal different left_over
for program in "${programs[@]}"; do
  command=$(command_of "$program")
  rm -rf "$work/out"
  begin=$(date +%s%N)
  $command >/dev/null 2>&1
  took=$((($(date +%s%N) - begin) / 1000))
  content "$work/out" >"$work/expected"
  done_kills=0 runs=0 equal=0 different=0 left=0
  while ((done_kills < kills)); do
    rm -rf "$work/out"
    most=${KILLS_PER_RUN:-$((1 + RANDOM % 3))}
    for ((k = 0; k < most && done_kills < kills; ++k)); do
      $command >/dev/null 2>&1 &
      pid=$!
      sleep "$(printf '0.%06d' $((RANDOM * 32768 % (took < 900000 ? took + took / 10 : 900000))))"
      if kill -KILL $pid 2>/dev/null; then done_kills=$((done_kills + 1)); fi
      wait $pid 2>/dev/null || true
    done
    runs=$((runs + 1))
    # One that was killed after its last rename left a whole result, which is not written again.
    $command >/dev/null 2>"$work/said" || grep -q "already; remove it\|has a scores.json already" "$work/said" || {
      echo "$program: $(tail -n 1 "$work/said")"
      different=$((different + 1))
      continue
    }
    if content "$work/out" | cmp -s - "$work/expected"; then equal=$((equal + 1)); else
      different=$((different + 1))
      content "$work/out" | diff - "$work/expected" | head -n 5 || true
    fi
    if find "$work" \( -name '*.tmp-*' -o -name '*.lock' \) | grep -q .; then
      left=$((left + 1))
      find "$work" \( -name '*.tmp-*' -o -name '*.lock' \) | head -n 3
      find "$work" -mindepth 1 \( -name '*.tmp-*' -o -name '*.lock' \) -exec rm -rf {} +
    fi
  done
  printf '%-16s %6d %6d %8d %10d %10d\n' "$program" $done_kills $runs $equal $different $left
  ((different == 0 && left == 0)) || failed=1
done
exit $failed
