#!/usr/bin/env python3
"""Writes the tables of training speed from records.

    python table.py records README.md

Each pair of markers `<!-- name:start -->`, `<!-- name:end -->` holds one table; a table whose records
are missing is left as it is, and a document without its markers too. `<!-- name-FOLDER:start -->`
wants those of another machine, in records/FOLDER.
"""
import json
import pathlib
import statistics
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
from markdown import fill, table

RECORDS = [pathlib.Path(sys.argv[1])]
DOCUMENTS = [pathlib.Path(path) for path in sys.argv[2:]]
SHAPES = ("albert-base", "12x384")
MIB = 2**20
# MRPC's training pairs.
EVERY_ROW = 3668


def records(what):
    paths = [RECORDS[-1] / f"{what}-{shape}.json" for shape in SHAPES]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def machine(record):
    m = record["machine"]
    return f"{m['cpu']}, {m['logical_cpus']} cores, {m['isa']}"


def peak_of(record, precision):
    """The highest that any record of this kind of machine has measured: something else on the machine lowers it."""
    alike = [r for what in ("step", "epoch") for r in records(what) if r["machine"] == record["machine"]]
    return max(r["peaks"]["all_threads"][f"{precision}_gflops"] or 0 for r in alike)


def speeds(what, header, cells):
    """One row a shape and precision: ours, then PyTorch's, then the ratios."""
    found = records(what)
    if not found:
        return None
    rows = []
    for record in found:
        by = {(row["engine"], row["precision"]): row for row in record["rows"]}
        for ratio in record["ratios"]:
            precision = ratio["precision"]
            ours, theirs = by[("badge", precision)], by[(ratio["against"], precision)]
            peak = peak_of(record, precision)
            rates = statistics.median(r["gflops"] for r in ours["rounds"])
            share = f"{100 * rates / peak:.0f} %" if peak else "-"
            rows.append([record["shape"], precision, ratio["against"], *cells(ours), *cells(theirs),
                         f"{ratio['speed']:.2f}x ({ratio['lowest']:.2f} to {ratio['highest']:.2f})",
                         f"{ratio['memory']:.2f}", share])
    threads = found[0]["configuration"]["threads"]
    titles = ["model", "precision", "against", *(f"ours, {h}" for h in header), *(f"theirs, {h}" for h in header),
              "ours faster", "memory, ours to theirs", "of our peak"]
    part = found[0]["configuration"]["rows"] if what == "epoch" else EVERY_ROW
    of = f", the first {part} rows" if part < EVERY_ROW else ""
    return f"{machine(found[0])}, {threads} threads{of}:\n\n" + table(titles, rows)


def step():
    return speeds("step", ["ms a step", "MiB"], lambda row: [f"{row['median_ms']:.0f}", f"{row['resident_peak'] / MIB:.0f}"])


def epoch():
    return speeds("epoch", ["s an epoch", "tokens/s", "MiB"],
                  lambda row: [f"{row['round_seconds']:.0f}", f"{row['tokens_per_second']:.0f}", f"{row['resident_peak'] / MIB:.0f}"])


def stage():
    found = records("stage")
    rows = []
    for record in found:
        s = record["results"]["second_stage"]
        rows.append([record["configuration"]["shape"], f"{s['features_seconds']:.1f}", f"{s['stored_epoch_seconds']:.2f}",
                     f"{s['recomputed_epoch_seconds']:.1f}", f"{s['epoch_ratio']:.1f}x", f"{s['stage_ratio']:.1f}x"])
    header = ["model", "features once, s", "an epoch on them, s", "an epoch without, s", "epoch", "25 epochs with the features"]
    return table(header, rows) if rows else None


def precision():
    """Dev scores of both precisions by seed, and how far their losses lie apart."""
    rows, gaps = [], {"seed": [], "precision": []}
    runs = {}
    for path in sorted(RECORDS[-1].glob("precision-*.json")):
        _, name, seed = path.stem.split("-")
        runs[int(seed), name] = json.loads(path.read_text())
    seeds = sorted({seed for seed, _ in runs})
    if not seeds or len(runs) != 2 * len(seeds):
        return None
    for seed in seeds:
        pair = [runs[seed, name] for name in ("f32", "bf16")]
        best = [run["results"]["dev"] for run in pair]
        apart = [abs(a - b) / a for a, b in zip(*(smooth(run["losses"]) for run in pair))]
        rows.append([seed, *(f"{100 * b['average']:.1f}" for b in best), *(f"{100 * b['best']:.1f}" for b in best),
                     f"{100 * statistics.mean(apart):.2f} %", f"{100 * max(apart):.2f} %"])
    header = ["seed", "S-avg f32", "S-avg bf16", "S-best f32", "S-best bf16", "losses apart, mean", "most"]
    of = lambda name: [100 * runs[seed, name]["results"]["dev"]["average"] for seed in seeds]
    if len(seeds) < 2:
        return table(header, rows)
    between = statistics.stdev(of("f32"))
    difference = statistics.mean(b - a for a, b in zip(of("f32"), of("bf16")))
    return table(header, rows) + (
        f"\n\nLosses are means over {WINDOW} steps of the first {len(pair[0]['losses'])}, relative to f32's. S-avg of bf16 less that "
        f"of f32: {difference:+.2f} in the mean; the standard deviation of f32's over seeds is {between:.2f}.")


WINDOW = 20


def smooth(losses):
    return [statistics.mean(losses[i:i + WINDOW]) for i in range(0, len(losses) - WINDOW + 1)]


def main():
    blocks = {}
    for folder in [""] + [f"-{path.name}" for path in RECORDS[0].iterdir() if path.is_dir()]:
        RECORDS.append(RECORDS[0] / folder[1:])
        blocks.update({f"training-step{folder}": step(), f"training-epoch{folder}": epoch(), f"training-stage{folder}": stage(),
                       f"training-precision{folder}": precision()})
        RECORDS.pop()
    for path in DOCUMENTS:
        fill(path, blocks)


if __name__ == "__main__":
    main()
