#!/usr/bin/env bash
# Every training method and placement on MRPC under one budget, and every policy on the badge model.
#
#   BACKBONE=path/to/arctic-embed-s DATA=path/with/MRPC OUT=runs/methods-mrpc ./run.sh [STEP...]
#
# Steps: the names of `runs` below (each trains one model on one thread and evaluates it), `policies` (curves of
# the badge model on dev, and what dev chooses on test rows), `heads` (the time of every form of exit) and
# `tables`. All of them by default: about two hours on an otherwise idle core. An interrupted run goes on where it was, and
# two calls with different steps may run side by side. Records are copied beside this script.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
badge=${BADGE:-$here/../../target/release/badge}
: "${BACKBONE:?a directory with a 12-layer BERT}" "${DATA:?a folder with MRPC/}" "${OUT:?a folder to write to}"
mkdir -p "$OUT" "$here/records"

# One budget: so many epochs a stage at one rate; nothing but the method differs. NAME = flags.
declare -A runs=(
  [joint]="--method joint"
  [joint-mha]="--method joint --exit-head mha"
  [joint-mha-fastbert]="--method joint --exit-head mha-fastbert"
  [two-stage]="--method two-stage"
  [two-stage-distillation]="--method two-stage --second-stage distillation"
  [alternating]="--method alternating"
  [gradient-equilibrium]="--method gradient-equilibrium"
  [global-past-future]="--method global-past-future"
  [badge]="--method badge --bypass-rank 16 --bypass-activation tanh --lte frozen"
  [badge-mhsa]="--method badge --bypass-placement mhsa --bypass-rank 16 --bypass-activation tanh"
  [badge-ffn]="--method badge --bypass-placement ffn --bypass-rank 16 --bypass-activation tanh"
  [single]="--method single"
)
order=(joint badge single two-stage two-stage-distillation alternating gradient-equilibrium global-past-future badge-mhsa
  badge-ffn joint-mha joint-mha-fastbert)

# The exits' scores on MRPC's 1,725 official test rows, which no choice has seen.
score() { # model directory, record name
  [ -f "$1/official/record.json" ] || "$badge" eval --model "$1" --task mrpc --data "$DATA/MRPC" --split official-test \
    --threads 1 --out "$1/official"
  cp "$1/official/record.json" "$here/records/$2.official-test.json"
}

train() { # name
  local out=$OUT/$1 flags
  read -ra flags <<<"${runs[$1]}"
  [ -f "$out/record.json" ] || "$badge" train --backbone "$BACKBONE" --task mrpc --data "$DATA/MRPC" --out "$out" "${flags[@]}" \
    --epochs "${EPOCHS:-3}" --lr 5e-5 --seed 42 --threads 1 --precision bf16 --resume
  cp "$out/record.json" "$here/records/$1.train.json"
  if [ "$1" = single ]; then
    for depth in "$out"/depth-*; do score "$depth" "single-${depth##*/}"; done
  else
    score "$out" "$1"
  fi
}

# Curves on dev; for every family and target the policy that dev likes best, on rows that dev has not seen:
# the test half row by row with the clock, the official test rows replayed.
policies() {
  local model=$OUT/badge points=() chosen
  "$badge" sweep --model "$model" --task mrpc --data "$DATA/MRPC" --split dev --threads 1 --out "$OUT/policies-dev"
  cp "$OUT/policies-dev/record.json" "$here/records/policies.dev.json"
  chosen=$(python3 "$here/choose.py" "$here/records/policies.dev.json")
  for point in $chosen; do points+=(--policy "$point"); done
  "$badge" eval --model "$model" --task mrpc --data "$DATA/MRPC" --split test --threads 1 "${points[@]}" --out "$OUT/policies-test"
  cp "$OUT/policies-test/record.json" "$here/records/policies.test.json"
  "$badge" eval --model "$model" --task mrpc --data "$DATA/MRPC" --split official-test --replay "${points[@]}" --out "$OUT/policies-official"
  cp "$OUT/policies-official/record.json" "$here/records/policies.official-test.json"
}

heads() { "$badge" bench heads --shape 12x384 --lengths 32,64,128 --threads 1 --out "$here/records/heads.json"; }

tables() { python3 "$here/table.py" "$here/records" "$here/README.md"; }

[ $# -gt 0 ] || set -- "${order[@]}" policies heads tables
for step in "$@"; do
  if [ -n "${runs[$step]:-}" ]; then train "$step"; else "$step"; fi
done
