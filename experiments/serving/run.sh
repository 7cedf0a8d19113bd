#!/usr/bin/env bash
# Simulates the SLO controller and writes the table of docs/controller.md from the record.
set -euo pipefail
cd "$(dirname "$0")"
badge=${BADGE:-../../target/release/badge}
"$badge" bench controller --seed 42 --out simulation.json --quiet > /dev/null
python3 table.py simulation.json ../../docs/controller.md
