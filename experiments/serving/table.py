#!/usr/bin/env python3
"""Writes the tables of docs/controller.md from the simulation's record: `table.py RECORD DOCUMENT`.

Each pair of markers `<!-- name:start -->`, `<!-- name:end -->` holds one table.
"""
import json
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
from markdown import fill, table

RECORD, DOCUMENT = map(pathlib.Path, sys.argv[1:])
STATIC = ("full depth", "floor", "law")
TICKS = ("ticks alone, SLO/4", "ticks alone, 100 ms", "ticks alone, 0.5 s", "ticks alone, 2 s")


def percent(share):
    return f"{100 * share:.1f} %"


def maybe(value, form):
    return form.format(value) if value is not None else "–"


def outcomes(row):
    return {cell["name"]: cell["outcome"] for cell in row["cells"]}


def heading(row):
    promise = row["promise"]
    return f"{row['name']}; SLO {1e3 * promise['slo']:.0f} ms, floor {promise['floor']}<br>`{row['trace']}`"


def comparison(rows):
    header = ["trace", "depth by", "in time", "refused", "p99", "depth before", "in the burst", "in all", "full depth again after", "mean score"]
    lines = []
    for row in rows:
        cells = outcomes(row)
        for at, name in enumerate(STATIC):
            o = cells[name]
            lines.append([
                heading(row) if at == 0 else "", f"**{name}**" if name == "law" else name,
                percent(o["in_time"]), percent(o["refused"]), f"{o['p99_ms']:.0f} ms", maybe(o["depth_before"], "{:.2f}"),
                maybe(o["depth_in_burst"], "{:.2f}"), f"{o['depth']:.2f}",
                maybe(o["settled_seconds"] if name == "law" else None, "{:.2f} s"), f"{o['score']:.4f}",
            ])
    return table(header, lines)


def ticks(rows):
    header = ["in time (expired)", "law"] + [name.removeprefix("ticks alone, ") for name in TICKS]
    lines = []
    for row in rows:
        cells = outcomes(row)
        shown = [f"{percent(cells[name]['in_time'])} ({percent(cells[name]['expired'])})" for name in ("law", *TICKS)]
        lines.append([row["name"], *shown])
    return table(header, lines)


def order(rows):
    header = ["trace", "order", "in time", "refused", "expired", "p50"]
    lines = []
    for row in rows:
        cells = outcomes(row)
        for name, text in (("law", "first come"), ("law, last come first", "last come, where the command says so")):
            o = cells[name]
            lines.append([row["name"], text, percent(o["in_time"]), percent(o["refused"]), percent(o["expired"]), f"{o['p50_ms']:.0f} ms"])
    return table(header, lines)


def main():
    record = json.loads(RECORD.read_text())
    rows = record["results"]["rows"]
    burst = [row for row in rows if row["name"].startswith("burst")]
    fill(DOCUMENT, {"simulation": comparison(rows), "ticks": ticks(rows), "order": order(burst)})


main()
