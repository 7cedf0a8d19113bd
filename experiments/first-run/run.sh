#!/usr/bin/env bash
# The first run on real data: RTE and MRPC, with bypasses and without, under one budget.
#
#   BACKBONE=path/to/arctic-embed-s DATA=path/with/RTE/and/MRPC OUT=runs/first-run ./run.sh
#
# Trains four models (about half an hour each on one core), chooses three operating points of
# divergence-based exiting on the dev half, evaluates them on the test half and copies the records
# beside this script. An interrupted run goes on where it was.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
badge=${BADGE:-$here/../../target/release/badge}
: "${BACKBONE:?a directory with a 12-layer BERT}" "${DATA:?a folder with RTE/ and MRPC/}" "${OUT:?a folder to write to}"
mkdir -p "$OUT" "$here/records"

train() { # task folder method flags...
  local out=$OUT/$1-$3
  "$badge" train --backbone "$BACKBONE" --task "$1" --data "$DATA/$2" --out "$out" --method "$3" "${@:4}" \
    --epochs 5 --lr 5e-5 --seed 42 --threads 1 --resume
  cp "$out/record.json" "$here/records/$1-$3.train.json"
}

evaluate() { # task folder method
  local model=$OUT/$1-$3 grid=() points=()
  for t in 1 2 3 4; do
    for tau in 0.1 0.2 0.3 0.4 0.5 0.6 0.65 0.69 0.692 0.695 0.7; do grid+=(--policy "dge:tau=$tau,t=$t"); done
  done
  "$badge" eval --model "$model" --task "$1" --data "$DATA/$2" --split dev --replay "${grid[@]}" --out "$model/dev"
  cp "$model/dev/record.json" "$here/records/$1-$3.dev.json"
  for point in $(python3 "$here/operating_points.py" "$model/dev/record.json"); do points+=(--policy "$point"); done
  "$badge" eval --model "$model" --task "$1" --data "$DATA/$2" --split test "${points[@]}" --threads 1 --out "$model/test"
  cp "$model/test/record.json" "$here/records/$1-$3.test.json"
  cp "$model/test/logits-test.safetensors" "$here/records/$1-$3.logits-test.safetensors"
}

train rte RTE badge --bypass-rank 16 --bypass-activation gelu
train rte RTE joint
train mrpc MRPC badge --bypass-rank 16 --bypass-activation tanh
train mrpc MRPC joint
for method in badge joint; do evaluate rte RTE $method; evaluate mrpc MRPC $method; done
# MRPC's official test rows are labelled: the same points on 1725 rows, replayed.
for method in badge joint; do
  points=()
  for point in $(python3 "$here/operating_points.py" "$OUT/mrpc-$method/dev/record.json"); do points+=(--policy "$point"); done
  "$badge" eval --model "$OUT/mrpc-$method" --task mrpc --data "$DATA/MRPC" --split official-test --replay "${points[@]}" \
    --out "$OUT/mrpc-$method/official"
  cp "$OUT/mrpc-$method/official/record.json" "$here/records/mrpc-$method.official-test.json"
done
python3 "$here/table.py" "$here/records"
