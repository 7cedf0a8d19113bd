#!/usr/bin/env python3
"""Chooses three operating points on the dev half: `operating_points.py DEV_RECORD`.

For each allowed drop of 0, 1 and 3 points below the deepest exit the fastest policy of the grid (layer
speed-up; of equals the better score). Points that coincide are replaced by the next fastest, so that three
different ones are printed, one a line. The test half is never looked at.
"""
import json
import sys

DROPS = (0.0, 0.01, 0.03)


def main():
    results = json.load(open(sys.argv[1]))["results"]
    full = results["evaluation"]["scores"]["exits"][-1]
    chosen = []
    for drop in DROPS:
        within = [p for p in results["policies"] if p["score"] >= full - drop - 1e-9]
        within.sort(key=lambda p: (-p["layer_speedup"], -p["score"]))
        fresh = [p["policy"] for p in within if p["policy"] not in chosen]
        if fresh:
            chosen.append(fresh[0])
    print("\n".join(chosen))


if __name__ == "__main__":
    main()
