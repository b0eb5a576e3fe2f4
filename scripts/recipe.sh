#!/usr/bin/env bash
# The recipe of the released weights: one command each for data, training and evaluation.
#
#   bash scripts/install_fonts.sh --more       # once, as root
#   scripts/recipe.sh data                     # render the crops; after an interruption, run it again
#   scripts/recipe.sh select                   # optional: copy the crops that FROM does not read reliably yet
#   scripts/recipe.sh train [--set key=value]  # train; after an interruption, run it again
#   scripts/recipe.sh evaluate                 # score on the benchmarks; prints the table of the model card
#
# Environment variables, with their defaults:
#   PRESET=small  FROM=                  FROM=small starts from the released weights instead of from scratch
#   RUN=runs/$PRESET  DATA=runs/data     folders of the run and of the crops
#   SETS=10  CROPS=100000  SEED=500      number of data sets, crops in each, and first seed
#   WORKERS=all cores                    processes that render
#   SELECTED=                            SELECTED=yes trains on the copies that `select` made
#   STEPS=125000                         of 64 crops each: 8 million crops
#   PROCESSES=1                          training processes, each with its share of a batch; see average_every in docs/log/training.md
#   VALIDATION=validation                folder of the data sets that choose and calibrate the checkpoint
#   BENCHMARKS=benchmarks                folder of the test sets, used by `evaluate` only
set -euo pipefail
preset=${PRESET:-small}
run=${RUN:-runs/$preset} data=${DATA:-runs/data} from=${FROM:-}
sets=${SETS:-10} crops=${CROPS:-100000} seed=${SEED:-500} steps=${STEPS:-125000}
workers=${WORKERS:-$(nproc)} processes=${PROCESSES:-1} kept=${SELECTED:+-select}
here=$(cd "$(dirname "$0")/.." && pwd)
[ ! -x "$here/.venv/bin/str-app" ] || PATH=$here/.venv/bin:$PATH

case ${1:-} in
data)
  for ((k = seed; k < seed + sets; k++)); do
    [ -e "$data/$k.lmdb" ] || str-app synth --out "$data/$k.lmdb" --count "$crops" --seed "$k" --workers "$workers"
  done ;;
select)
  for ((k = seed; k < seed + sets; k++)); do
    [ -e "$data/$k-select.lmdb" ] || str-app select "$data/$k.lmdb" --out "$data/$k-select.lmdb" --model "${from:-small}"
  done ;;
train)
  shift
  options=(--out "$run" --set "steps=$steps" --set validation_limit=400)
  for ((k = seed; k < seed + sets; k++)); do options+=(--train "$data/$k$kept.lmdb"); done
  for set in "${VALIDATION:-validation}"/*/; do options+=(--val "${set%/}"); done
  if [ -e "$run/last.pt" ]; then options+=(--resume)
  elif [ -z "$from" ]; then options+=(--preset "$preset")
  else
    # Trained weights: half of Muon's rate, attention loss kept low, no new CTC head.
    options+=(--from "$from" --name "$preset" --set optimizer=muon --set learning_rate=0.001 --set matrix_learning_rate=0.01
      --set warmup_steps=200 --set attention_weight=0.1 --set attention_weight_end=0.05 --set validate_every=500)
  fi
  # glibc keeps freed buffers instead of mapping new pages: saves a twelfth of a step's time on a CPU.
  export GLIBC_TUNABLES=glibc.malloc.hugetlb=1 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_MMAP_THRESHOLD_=100000000000
  if [ "$processes" = 1 ]; then exec str-app train "${options[@]}" "$@"; fi
  export OMP_NUM_THREADS=$((($(nproc) + processes - 1) / processes))
  exec torchrun --nproc-per-node "$processes" -m str_app train "${options[@]}" "$@" ;;
evaluate)
  exec str-app evaluate --data "${BENCHMARKS:-benchmarks}" --model "$run/best.safetensors" ;;
*)
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2 ;;
esac
