#!/usr/bin/env bash
# Everything behind docs/performance.md, on this machine, otherwise idle (about an hour on two cores).
#
#   PYTHON=python3 DATA=path/with/RTE/and/MRPC MODELS=path/with/rte-badge/and/mrpc-badge OUT=runs/engine ./run.sh [STEP...]
#
# Steps: models kernels yardsticks exits load latency throughput accuracy; all of them by default.
# PYTHON has the packages that peers.py names. MODELS holds two fine-tuned models (see
# ../first-run); without it the accuracy step is left out. Records are written beside this script, to
# records/MACHINE where that is set: tables of several machines stand side by side.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export BADGE=${BADGE:-$here/../../target/release/badge}
python=${PYTHON:-python3}
: "${OUT:?a folder for models with random weights}"
records=$here/records/${MACHINE:-}
mkdir -p "$records" "$OUT"
shapes=(albert-base 12x384)

models() {
  for shape in "${shapes[@]}"; do
    [ -f "$OUT/$shape/model.safetensors" ] || "$python" "$here/make_model.py" --shape "$shape" --out "$OUT/$shape"
  done
}

kernels() {
  for threads in 1 2; do "$BADGE" bench kernels --threads $threads --out "$records/kernels-$threads.json"; done
}

yardsticks() {
  for threads in 1 2; do
    (cd "$here/../.." && RAYON_NUM_THREADS=$threads cargo bench -q -p badge-kernels --bench yardsticks -- $threads) \
      >"$records/yardsticks-$threads.json"
  done
}

exits() {
  for shape in "${shapes[@]}"; do
    for threads in 1 2; do
      "$BADGE" bench latency --model "$OUT/$shape" --threads $threads --depths --runs 25 --out "$records/depths-$shape-$threads.json"
      for wait in auto never; do
        "$BADGE" bench latency --model "$OUT/$shape" --threads $threads --exits all --exits-wait $wait --runs 25 \
          --out "$records/exits-$wait-$shape-$threads.json"
      done
      "$BADGE" bench throughput --model "$OUT/$shape" --threads $threads --batch 32 --lengths-file "$here/mrpc-lengths.json" \
        --exit-shares 0.125@3,0.125@4,0.125@5,0.125@6 --out "$records/exit-shares-$shape-$threads.json"
    done
  done
}

load() {
  for shape in "${shapes[@]}"; do "$BADGE" bench load --model "$OUT/$shape" --out "$records/load-$shape.json"; done
}

latency() {
  for shape in "${shapes[@]}"; do
    "$python" "$here/peers.py" latency --model "$OUT/$shape" --name "$shape" --out "$records/latency-$shape.json"
  done
}

throughput() {
  for shape in "${shapes[@]}"; do
    "$python" "$here/peers.py" throughput --model "$OUT/$shape" --name "$shape" --lengths-file "$here/mrpc-lengths.json" \
      --out "$records/throughput-$shape.json"
  done
}

accuracy() {
  [ -n "${MODELS:-}" ] || { echo "no MODELS: the accuracy step is left out" >&2; return; }
  : "${DATA:?a folder with RTE/ and MRPC/}"
  for task in rte mrpc; do
    for precision in bf16 int8; do
      "$BADGE" eval --model "$MODELS/$task-badge" --task $task --data "$DATA/${task^^}" --split test --precision $precision \
        --compare f32 --policy full --policy fixed:6 --policy dge:tau=0.3,t=2 --policy dge:tau=0.5,t=1 \
        --out "$OUT/$task-$precision"
      cp "$OUT/$task-$precision/record.json" "$records/accuracy-$task-$precision.json"
    done
  done
}

for step in "${@:-models kernels yardsticks exits load latency throughput accuracy}"; do
  for name in $step; do "$name"; done
done
"$python" "$here/table.py" "$here/records" "$here/../../docs/performance.md" "$here/../../README.md"
