#!/usr/bin/env bash
# Everything behind the training figures of docs/performance.md, on this machine, otherwise idle.
#
#   PYTHON=python3 BACKBONE=path/to/arctic-embed-s DATA=path/with/MRPC OUT=runs/precision ./run.sh [STEP...]
#
# Steps: step (a quarter of an hour on two cores), epoch (an hour), stage (half an hour; ROWS=600 takes the
# first rows of these two alone) and precision (an hour; fine-tunes MRPC in f32 and bf16 with the seeds of SEEDS, and needs
# BACKBONE, DATA and OUT); all by default. PYTHON has the packages that peers.py names. Records are
# written beside this script, to records/MACHINE where that is set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export BADGE=${BADGE:-$here/../../target/release/badge}
python=${PYTHON:-python3}
records=$here/records/${MACHINE:-}
mkdir -p "$records"
shapes=(albert-base 12x384)

step() {
  for shape in "${shapes[@]}"; do
    "$python" "$here/peers.py" step --shape "$shape" --out "$records/step-$shape.json"
  done
}

epoch() {
  for shape in "${shapes[@]}"; do
    "$python" "$here/peers.py" epoch --shape "$shape" --rounds 1 --rows "${ROWS:-100000}" \
      --lengths-file "$here/mrpc-train-lengths.json" --out "$records/epoch-$shape.json"
  done
}

stage() {
  local lengths
  lengths=$(mktemp --suffix .json)
  "$python" -c 'import json, sys; print(json.dumps(json.load(open(sys.argv[1]))[:int(sys.argv[2])]))' \
    "$here/mrpc-train-lengths.json" "${ROWS:-100000}" >"$lengths"
  for shape in "${shapes[@]}"; do
    "$BADGE" bench train --shape "$shape" --lengths-file "$lengths" --second-stage-epochs 25 --precision bf16 \
      --batch 16 --runs 3 --threads 2 --out "$records/stage-$shape.json"
  done
  rm "$lengths"
}

precision() {
  : "${BACKBONE:?a directory with a 12-layer BERT}" "${DATA:?a folder with MRPC/}" "${OUT:?a folder to write to}"
  for seed in ${SEEDS:-1 2 3}; do
    for precision in f32 bf16; do
      local out=$OUT/$precision-$seed
      "$BADGE" train --backbone "$BACKBONE" --task mrpc --data "$DATA/MRPC" --out "$out" --method joint --precision $precision \
        --epochs 3 --lr 5e-5 --seed "$seed" --threads "${THREADS:-1}" --resume
      "$python" "$here/curve.py" "$out" "$records/precision-$precision-$seed.json"
    done
  done
}

[ $# -gt 0 ] || set -- step epoch stage precision
for name in "$@"; do "$name"; done
"$python" "$here/table.py" "$here/records" "$here/README.md" "$here/../../docs/performance.md"
