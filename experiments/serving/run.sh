#!/usr/bin/env bash
# Everything behind docs/controller.md's tables and this folder's, on this machine, otherwise idle
# (about three hours with an hour of soak).
#
#   PYTHON=python3 TASK=mrpc MODEL=runs/mrpc DATA=glue/MRPC OUT=runs/serving ./run.sh [STEP...]
#
# Steps: simulation models overhead start burst peer soak; all of them by default. TASK is a task's
# name or file, MODEL a fine-tuned BADGE model of it, DATA the folder of its files, TEXTS the one of
# them that the overhead step asks (dev.tsv), OUT a folder for models. PYTHON has the packages that
# peer.py names. PRECISION is what our server multiplies (int8), EPSILON and CONFIDENCE what its
# calibration promises (0.1, 0.9), POLICIES which ones it tries (all; fewer can be certified
# further), P99_MS and ROUNDS the limit and the searches of the peer step (50, 3), with FULL_ONLY
# set without exits, MINUTES how long the soak takes (60), SERVER_CPUS and CLIENT_CPUS who computes where (0, 1).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export BADGE=${BADGE:-$here/../../target/release/badge}
python=${PYTHON:-python3}
export TASK=${TASK:-mrpc}
precision=${PRECISION:-int8}
records=$here/records
mkdir -p "$records"

needs() {
  : "${OUT:?a folder for models}" "${MODEL:?a fine-tuned model of TASK}" "${DATA:?the folder of TASK}"
}

simulation() {
  "$BADGE" bench controller --seed 42 --out "$records/simulation.json" --quiet >/dev/null
}

# The model twice, calibrated for two ends, and one of ALBERT-base's size with its tokeniser.
models() {
  needs
  mkdir -p "$OUT"
  for name in certified exits; do
    rm -rf "${OUT:?}/$name"
    cp -rL "$MODEL" "$OUT/$name"
  done
  local common=(--task "$TASK" --data "$DATA" --precision "$precision")
  "$BADGE" calibrate --model "$OUT/certified" "${common[@]}" --max-drop "${EPSILON:-0.1}" --confidence "${CONFIDENCE:-0.9}" \
    --policies "${POLICIES:-all}"
  "$BADGE" calibrate --model "$OUT/exits" "${common[@]}" --max-drop 0.01
  "$python" "$here/../engine/make_model.py" --shape albert-base --tokenizer "$MODEL" --out "$OUT/albert-base"
}

overhead() {
  needs
  (cd "$here/../.." && cargo bench -q -p badge-server --bench overhead -- "$(realpath "$MODEL")" \
    "$(realpath "$DATA")/${TEXTS:-dev.tsv}" "$precision") >"$records/overhead.tmp"
  mv "$records/overhead.tmp" "$records/overhead.json"
}

start() {
  needs
  python3 "$here/start.py" --model "$OUT/albert-base" --out "$records/start.json"
}

burst() {
  needs
  python3 "$here/burst.py" --model "$OUT/certified" --data "$DATA" --precision "$precision" \
    --figure "$records/burst.svg" --out "$records/burst.json"
}

peer() {
  needs
  local exits=()
  [ -z "${FULL_ONLY:-}" ] && exits=(--exits "$OUT/exits")
  "$python" "$here/peer.py" --model "$MODEL" "${exits[@]}" --p99-ms "${P99_MS:-50}" --rounds "${ROUNDS:-3}" --data "$DATA" --precision "$precision" \
    --out "$records/peer.json"
}

soak() {
  needs
  python3 "$here/soak.py" --model "$OUT/certified" --data "$DATA" --precision "$precision" --minutes "${MINUTES:-60}" \
    --out "$records/soak.json"
}

for step in "${@:-simulation models overhead start burst peer soak}"; do
  for name in $step; do "$name"; done
done
python3 "$here/table.py" "$records" "$here/../../docs/controller.md" "$here/README.md"
