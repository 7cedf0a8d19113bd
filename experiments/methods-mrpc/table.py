#!/usr/bin/env python3
"""Writes the tables of README.md from the records: `table.py records README.md`.

Text between the markers `<!-- name:start -->` and `<!-- name:end -->` is replaced; what was not run stays empty.
"""
import json
import sys
from pathlib import Path

from choose import TARGETS, choices

sys.path.append(str(Path(__file__).resolve().parent.parent))
from markdown import fill, table

RECORDS = Path(sys.argv[1])
RUNS = {
    "single": "single exits, one model a depth",
    "joint": "JT",
    "joint-mha": "JT + MHA exit, r = 32",
    "joint-mha-fastbert": "JT + FastBERT's exit",
    "two-stage": "2ST, labels",
    "two-stage-distillation": "2ST, distillation",
    "alternating": "ALT",
    "gradient-equilibrium": "GradEquil",
    "global-past-future": "GPF",
    "badge": "BADGE (bypass around the block)",
    "badge-mhsa": "BADGE, around the attention",
    "badge-ffn": "BADGE, around the feed-forward",
}
DEPTHS = range(1, 13)
# Of three epochs of 3,668 rows in batches of 16.
STEPS = 690


def read(name):
    path = RECORDS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def percent(value):
    return "" if value is None else f"{100 * value:.1f}"


def dev(name):
    """Every exit's dev score in the best epoch, and the optimiser steps of the run."""
    record = read(f"{name}.train")
    if record is None:
        return None, None
    results = record["results"]
    if name == "single":
        return [m["score"] for m in results["models"]], f"{len(results['models'])} x {STEPS}"
    return results["dev"]["exits"], results["steps"]


def official(name):
    """Every exit's score on the official test rows, with the interval of its best."""
    if name == "single":
        records = [read(f"single-depth-{depth:02}.official-test") for depth in DEPTHS]
        if None in records:
            return None, None
        evaluations = [record["results"]["evaluation"] for record in records]
        scores = [e["scores"]["exits"][0] for e in evaluations]
        intervals = [e["intervals"][0] for e in evaluations]
    else:
        record = read(f"{name}.official-test")
        if record is None:
            return None, None
        evaluation = record["results"]["evaluation"]
        scores, intervals = evaluation["scores"]["exits"], evaluation["intervals"]
    return scores, intervals[scores.index(max(scores))]


def methods():
    rows = []
    for name, title in RUNS.items():
        (on_dev, steps), (on_test, interval) = dev(name), official(name)
        cells = []
        for scores in (on_dev, on_test):
            cells += [percent(sum(scores) / len(scores)), percent(max(scores))] if scores else ["", ""]
        within = f"{percent(interval['low'])} to {percent(interval['high'])}" if interval else ""
        rows.append([title, *cells, within, steps or ""])
    return table(["method", "dev S-avg", "dev S-best", "test S-avg", "test S-best", "95 %", "steps"], rows)


def exits():
    rows = []
    for name, title in RUNS.items():
        scores, _ = official(name)
        rows.append([title, *(map(percent, scores) if scores else [""] * len(DEPTHS))])
    return table(["method", *map(str, DEPTHS)], rows)


def policies():
    on_dev = read("policies.dev")
    if on_dev is None:
        return None
    chosen = choices(on_dev)
    by = {}
    for split in ("test", "official-test"):
        record = read(f"policies.{split}")
        by[split] = {p["policy"]: p for p in record["results"]["policies"]} if record else {}
    rows = []
    for family in on_dev["results"]["families"]:
        for target in TARGETS:
            point = chosen.get((family, target))
            if point is None:
                rows.append([family, target, *[""] * 6])
                continue
            live, far = by["test"].get(point["policy"]), by["official-test"].get(point["policy"])
            interval = f"{percent(far['interval']['low'])} to {percent(far['interval']['high'])}" if far else ""
            saved = lambda p: f"{100 * (1 - 1 / p['layer_speedup']):.0f} %"
            time = f"{100 * live['time']['time_saved']:.0f} %" if live and live.get("time") else ""
            rows.append([family, target, f"`{shortened(point['policy'])}`", percent(point["score"]), percent(far and far["score"]), interval,
                         saved(far) if far else "", time])
    return table(["policy", "layers saved on dev, at least", "chosen on dev", "dev", "test", "95 %", "layers saved", "time saved"], rows)


def shortened(policy):
    return policy if len(policy) < 60 else policy.split(",temperatures=")[0] + ",temperatures=..."


def heads():
    record = read("heads")
    if record is None:
        return None
    by = {}
    for row in record["results"]["rows"]:
        by.setdefault(row["form"], []).append(row)
    lengths = [row["length"] for row in next(iter(by.values()))]
    rows = [[form, rows[0]["parameters"], *(f"{row['ms_per_exit']:.3f} ({100 * row['share_of_block']:.1f} %)" for row in rows)]
            for form, rows in by.items()]
    return table(["exit", "parameters", *(f"ms at {length} tokens (of a block)" for length in lengths)], rows)


fill(Path(sys.argv[2]), {"methods": methods(), "exits": exits(), "policies": policies(), "heads": heads()})
