#!/usr/bin/env bash
# Everything behind the training figures of docs/performance.md, on this machine, otherwise idle.
#
#   PYTHON=python3 ./run.sh [STEP...]
#
# Steps: step (a quarter of an hour on two cores) and epoch (an hour; ROWS=800 takes a part of it);
# both by default. PYTHON has the packages that peers.py names. Records are written beside this script.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export BADGE=${BADGE:-$here/../../target/release/badge}
python=${PYTHON:-python3}
records=$here/records
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

[ $# -gt 0 ] || set -- step epoch
for name in "$@"; do "$name"; done
"$python" "$here/table.py" "$records" "$here/README.md" "$here/../../docs/performance.md"
