#!/usr/bin/env python3
"""Writes the tables of training speed from records.

    python table.py records README.md

Each pair of markers `<!-- name:start -->`, `<!-- name:end -->` holds one table; a table whose records
are missing is left as it is, and a document without its markers too.
"""
import json
import pathlib
import sys

RECORDS = pathlib.Path(sys.argv[1])
DOCUMENTS = [pathlib.Path(path) for path in sys.argv[2:]]
SHAPES = ("albert-base", "12x384")
MIB = 2**20


def records(what):
    paths = [RECORDS / f"{what}-{shape}.json" for shape in SHAPES]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def machine(record):
    m = record["machine"]
    return f"{m['cpu']}, {m['logical_cpus']} cores, {m['isa']}"


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
            share = f"{100 * ours['share_of_peak']:.0f} %" if ours["share_of_peak"] else "-"
            rows.append([record["shape"], precision, ratio["against"], *cells(ours), *cells(theirs),
                         f"{ratio['speed']:.2f}x ({ratio['lowest']:.2f} to {ratio['highest']:.2f})",
                         f"{ratio['memory']:.2f}", share])
    threads = found[0]["configuration"]["threads"]
    titles = ["model", "precision", "against", *(f"ours, {h}" for h in header), *(f"theirs, {h}" for h in header),
              "ours faster", "memory, ours to theirs", "of our peak"]
    return f"{machine(found[0])}, {threads} threads:\n\n" + table(titles, rows)


def step():
    return speeds("step", ["ms a step", "MiB"], lambda row: [f"{row['median_ms']:.0f}", f"{row['resident_peak'] / MIB:.0f}"])


def epoch():
    return speeds("epoch", ["s an epoch", "tokens/s", "MiB"],
                  lambda row: [f"{row['round_seconds']:.0f}", f"{row['tokens_per_second']:.0f}", f"{row['resident_peak'] / MIB:.0f}"])


def main():
    blocks = {"training-step": step(), "training-epoch": epoch()}
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for name, block in blocks.items():
            start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
            if block and start in text:
                before, rest = text.split(start, 1)
                text = before + start + "\n" + block + "\n" + end + rest.split(end, 1)[1]
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
