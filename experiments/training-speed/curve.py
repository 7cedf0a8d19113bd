#!/usr/bin/env python3
"""Keeps what a comparison of precisions needs of a run: `curve.py MODEL_DIR RECORD`.

The record is the run's own with the losses of its first 200 steps added, read from `log.jsonl`.
"""
import json
import sys
from pathlib import Path

STEPS = 200


def main(directory, path):
    record = json.loads((directory / "record.json").read_text())
    events = map(json.loads, (directory / "log.jsonl").read_text().splitlines())
    steps = [event for event in events if event["event"] == "step" and event["step"] <= STEPS]
    # A resumed run may tell a step twice; the last telling counts.
    losses = {event["step"]: event["loss"] for event in steps}
    assert sorted(losses) == list(range(1, STEPS + 1)), "the log lacks steps"
    record["losses"] = [losses[step] for step in sorted(losses)]
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
