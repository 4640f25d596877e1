#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The whole flow, from a bare Debian 12 on: fine_tune -> analyze -> prune -> evaluate -> report.
#   tools/demo.sh                            a world of its own: makes texts of six small skills and
#                                            a mixture of experts, trains it, teaches it a seventh
#                                            skill, prunes it by several criteria
#   tools/demo.sh --model DIR --data FILE    a Hugging Face folder: a mixture, or a dense Llama,
#                                            Mistral or Qwen3 (which is upcycled first), and JSONL
#                                            to tune on
# Every step prints its command; what it says goes to a log of its own. See --help for the rest.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<'TEXT'
Usage: tools/demo.sh [OPTIONS]
  --output DIR        Folder for everything that is made; must not exist (demo-output)
  --model DIR         Start from this checkpoint instead of training one
  --data FILE         With --model: JSONL with text, or prompt and response
  --calibration FILE  With --model: JSONL for analyze (the training part of --data)
  --steps N           Optimizer steps of fine_tune (300; with --model 20)
  --pretrain-steps N  Optimizer steps of pretrain (1200)
  --batch-size N      Rows per step of fine_tune (32; with --model 2)
  --max-length N      Tokens per row of fine_tune (256)
  --max-tokens N      With --model: tokens of calibration (2000)
  --limit N           With --model: held-out lines to evaluate on (20)
  --target LIST       LoRA targets (q,k,v,o,gate,w1,w2,w3; with --model q,k,v,o,router)
  --criteria LIST     Criteria to prune by (reap,frequency,random)
  --keep LIST         Experts to keep (6,4)
  --threads N         CPU threads; 0 takes all cores (0)
  --seed N            Seed of everything random (0)
  --skip-build        Take the programs in build/cpu/bin as they are
TEXT
}

wrong() { echo "demo.sh: $1; see tools/demo.sh --help" >&2; exit 2; }

output=demo-output model='' data='' calibration='' steps='' batch='' target='' build=1
pretrain_steps=1200 max_length=256 max_tokens=2000 limit=20 criteria=reap,frequency,random keep=6,4
threads=0 seed=0
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help) usage; exit 0 ;;
    --skip-build) build=0; shift; continue ;;
    --output | --model | --data | --calibration | --steps | --pretrain-steps | --batch-size | \
      --max-length | --max-tokens | --limit | --target | --criteria | --keep | --threads | --seed)
      [[ $# -ge 2 ]] || wrong "$1 needs a value" ;;&
    --output) output=$2 ;;
    --model) model=$2 ;;
    --data) data=$2 ;;
    --calibration) calibration=$2 ;;
    --steps) steps=$2 ;;
    --pretrain-steps) pretrain_steps=$2 ;;
    --batch-size) batch=$2 ;;
    --max-length) max_length=$2 ;;
    --max-tokens) max_tokens=$2 ;;
    --limit) limit=$2 ;;
    --target) target=$2 ;;
    --criteria) criteria=$2 ;;
    --keep) keep=$2 ;;
    --threads) threads=$2 ;;
    --seed) seed=$2 ;;
    *) wrong "unknown option $1" ;;
  esac
  shift 2
done
[[ -z "$model" || -n "$data" ]] || wrong "--model needs --data"
[[ -n "$model" || -z "$data$calibration" ]] || wrong "--data and --calibration need --model"
[[ ! -e "$output" ]] || wrong "$output exists already; remove it or choose another --output"
[[ -z "$model" || -f "$model/config.json" ]] || wrong "$model has no config.json"
[[ -z "$data" || -f "$data" ]] || wrong "$data is no file"
[[ -z "$data" || $(grep -c . "$data") -ge 10 ]] || wrong "$data has less than 10 lines"

export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}  # threads that wait must not slow others down
bin=$here/build/cpu/bin
mkdir -p "$output/logs"
number=0

# step TITLE COMMAND...   One numbered step; its output goes to a log, and to $said.
step() {
  local title=$1 begin=$SECONDS log
  shift
  number=$((number + 1))
  log=$(printf '%s/logs/%02d-%s.log' "$output" "$number" "${1##*/}")
  said=$log.out
  printf '\n%2d. %s\n    $ %s\n' "$number" "$title" "${*#"$bin"/}"
  if ! "$@" >"$said" 2>"$log"; then
    cat "$said" >>"$log"
    printf '\ndemo.sh: step %d (%s) failed; its log is %s and ends with:\n' "$number" "$title" "$log" >&2
    tail -n 5 "$log" >&2
    exit 1
  fi
  printf '    done in %d s\n' $((SECONDS - begin))
}
show() { sed 's/^/    /' "$said"; }
common=(--threads "$threads" --seed "$seed")

# measure NAME   evaluate on what this run measures; a row of the table at the end
measure() {
  local name=$1
  if [[ -n "$model" ]]; then
    step "How well does '$name' predict held-out lines?" "$bin/evaluate" --model "$output/$name" \
      --task loss --text "$output/held_out.jsonl" --max-length "$max_length" \
      --output "$output/results/$name" "${common[@]}"
  else
    step "What can '$name' do?" "$bin/evaluate" --model "$output/$name" --task "$skills" \
      --data "$output/skills" --output "$output/results/$name" "${common[@]}"
  fi
  results+=("$output/results/$name")
  # evaluate's lines are: task, shots, questions, metric, value, standard error
  awk -v name="$name" -v header="$([[ -s "$output/table.txt" ]] || echo yes)" '
    $4 == "acc" { title[++n] = $1; value[n] = sprintf("%.2f", $5); sum += $5; mean = 1 }
    $1 == "loss" { title[++n] = $4; value[n] = sprintf("%.4f", $5) }
    END {
      if (mean) { title[++n] = "mean"; value[n] = sprintf("%.2f", sum / (n - 1)) }
      if (header) {
        printf "%-24s", "model"
        for (i = 1; i <= n; ++i) printf "%9s", title[i]
        printf "\n"
      }
      printf "%-24s", name
      for (i = 1; i <= n; ++i) printf "%9s", value[i]
      printf "\n"
    }' "$said" >>"$output/table.txt"
  sed -n -e '1s/^/    /p' -e '$s/^/    /p' "$output/table.txt"
}
results=()
begin_all=$SECONDS

if [[ $build -eq 1 ]]; then
  step "Packages" "$here/tools/install_packages.sh"
  step "Configure" cmake -S "$here" --preset cpu
  programs=(make_skills make_checkpoint pretrain upcycle fine_tune merge_adapter analyze prune verify
    evaluate report)
  step "Build" cmake --build "$here/build/cpu" --parallel "$(nproc)" --target "${programs[@]}"
fi
begin_run=$SECONDS

if [[ -z "$model" ]]; then
  skills=copy,upper,reverse,sort,add,next,shift
  step "Texts of six base skills and a new one, shift" "$bin/make_skills" --output "$output/skills" \
    --seed "$seed"
  step "A mixture of experts that knows nothing" "$bin/make_checkpoint" \
    --output "$output/untrained" --tokenizer "$output/skills/tokenizer" --layers 3 --hidden 96 \
    --intermediate 128 --heads 6 --kv-heads 3 --experts 8 --top-k 2 --max-positions 256 \
    --initializer-range 0.05 --dtype f32 --seed "$seed"
  show
  # Nothing evens out the load of the experts: left to themselves they divide the skills, and some
  # matter much more than others, as in large models.
  step "Pretraining of all weights on the base skills" "$bin/pretrain" --model "$output/untrained" \
    --data "$output/skills/pretrain.jsonl" --eval-data "$output/skills/held_out.jsonl" \
    --output "$output/base" --steps "$pretrain_steps" --batch-size 64 --lr 3e-3 --warmup 50 \
    --aux-loss 0 "${common[@]}"
  show
  train=$output/skills/fine_tune.jsonl calibration=$output/skills/calibration.jsonl
  learning=(--lr 3e-3 --schedule cosine --warmup 10 --lora-r 8 --lora-alpha 16)
  : "${steps:=300}" "${batch:=32}" "${target:=q,k,v,o,gate,w1,w2,w3}"
  max_tokens=0
else
  # Every tenth line is held out, as many as are evaluated on; the rest is trained on.
  train=$output/train.jsonl
  awk -v limit="$limit" -v held="$output/held_out.jsonl" -v train="$train" '
    NF && NR % 10 == 0 && n < limit { print > held; ++n; next }
    NF { print > train }' "$data"
  : "${calibration:=$train}"
  if grep -Eq '"(num_local_experts|num_experts|n_routed_experts)"' "$model/config.json"; then
    ln -s "$(cd "$model" && pwd)" "$output/base"
  else
    step "A mixture of experts from a dense model" "$bin/upcycle" --model "$model" \
      --output "$output/base" --experts 8 --top-k 2 --noise 0.1 --seed "$seed"
    show
  fi
  learning=(--lr 2e-4 --schedule cosine --warmup 2 --lora-r 8 --lora-alpha 16)
  : "${steps:=20}" "${batch:=2}" "${target:=q,k,v,o,router}"
fi
measure base

step "Fine-tuning with LoRA" "$bin/fine_tune" --model "$output/base" --data "$train" \
  --output "$output/adapter" --target "$target" --steps "$steps" --batch-size "$batch" \
  --max-length "$max_length" --save-every 0 "${learning[@]}" "${common[@]}"
show
step "The adapter becomes part of the weights" "$bin/merge_adapter" --model "$output/base" \
  --adapter "$output/adapter" --output "$output/tuned"
measure tuned

scores=router_norm_drift,router_delta,expert_delta,frequency,reap,random
for criterion in ${criteria//,/ }; do
  [[ ",$scores," == *",$criterion,"* ]] || scores+=,$criterion
done
step "Scores of every expert" "$bin/analyze" --model "$output/base" --tuned "$output/tuned" \
  --calibration "$calibration" --max-tokens "$max_tokens" --criteria "$scores" \
  --output "$output/scores" "${common[@]}"
show
for k in ${keep//,/ }; do
  for criterion in ${criteria//,/ }; do
    name=$criterion-$k
    step "Keep $k experts of each layer by $criterion" "$bin/prune" --model "$output/tuned" \
      --scores "$output/scores/scores.json" --criterion "$criterion" --keep "$k" \
      --output "$output/$name"
    step "Is '$name' what the plan says, byte for byte and logit for logit?" "$bin/verify" \
      --base "$output/tuned" --pruned "$output/$name" --text "$calibration" --max-tokens 256 \
      --threads "$threads"
    show
    measure "$name"
  done
done

runs=("$output/adapter")
[[ -n "$model" ]] || runs=("$output/base" "${runs[@]}")
step "Report" "$bin/report" "${results[@]}" "${runs[@]}" --output "$output/report" \
  --title "Espalier: tuned and pruned"
if [[ -n "$model" ]]; then
  printf '\nLoss and perplexity of held-out lines:\n'
else
  printf '\nShare of exact answers, 100 questions a skill; shift is the skill that was fine-tuned:\n'
fi
cat "$output/table.txt"
printf '\n%d steps in %d s, %d s of them installing and building.\n' "$number" \
  $((SECONDS - begin_all)) $((begin_run - begin_all))
printf 'Page: %s\n' "$(cd "$output/report" && pwd)/index.html"
