#!/usr/bin/env python3
"""Prints, for every family of policies and every target of layers saved, the policy that dev likes best.

    python choose.py records/policies.dev.json

Of the points of a family that save at least the target on dev the one of the best score, of equals the faster.
"""
import json
import sys
from pathlib import Path

TARGETS = (0.3, 0.5, 0.7)


def choices(record):
    """`(family, target) -> point` of a sweep's record."""
    sweep = record["results"]
    found = {}
    for family in sweep["families"]:
        for target in TARGETS:
            points = [p for p in sweep["points"] if p["family"] == family and 1 - 1 / p["layer_speedup"] >= target - 1e-9]
            if points:
                found[family, target] = max(points, key=lambda p: (p["score"], p["layer_speedup"]))
    return found


if __name__ == "__main__":
    chosen = choices(json.loads(Path(sys.argv[1]).read_text()))
    print("\n".join(dict.fromkeys(point["policy"] for point in chosen.values())))
