#!/usr/bin/env python3
"""Writes the tables of docs/controller.md and README.md from records: `table.py RECORDS DOCUMENT...`.

Each pair of markers `<!-- name:start -->`, `<!-- name:end -->` holds one table; a table whose record
is missing is left as it is.
"""
import json
import pathlib
import statistics
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
from markdown import fill, table

RECORDS = pathlib.Path(sys.argv[1])
DOCUMENTS = [pathlib.Path(path) for path in sys.argv[2:]]
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


def read(name):
    path = RECORDS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def simulated():
    record = read("simulation")
    if not record:
        return {}
    rows = record["results"]["rows"]
    bursts = [row for row in rows if row["name"].startswith("burst")]
    return {"simulation": comparison(rows), "ticks": ticks(rows), "order": order(bursts)}


def span(values, form, factor=1.0):
    """A median, with the range where there is one."""
    if values is None:
        return "–"
    low, middle, high = (form.format(factor * values[key]) for key in ("lowest", "median", "highest"))
    return middle if low == high else f"{middle} ({low} to {high})"


def machine(record):
    found = record["machine"]
    return (f"{found['cpu']}, {found['logical_cpus']} processors: the server has {found['server_cpus']}, the generator "
            f"{found['client_cpus']}; commit {record['commit'][:9]}, {record['started'][:10]}")


def overhead():
    record = read("overhead")
    if not record:
        return None
    rows = [[name, f"{record[key]:.3f} ms"] for name, key in (
        ("ids of a text", "tokenisation_ms"), ("ids and engine", "bare_ms"), ("over HTTP", "served_ms"),
        ("added by HTTP and scheduling", "added_ms"), ("echo of a byte", "echo_ms")) if key in record]
    # Records of before 2026-11-22 do not say where it comes about.
    if "echo_ms" in record:
        of = {stage: statistics.median(done["added_in"][f"{stage}_ms"] for done in record["rounds"])
              for stage in ("connection", "queue", "computation", "tokenisation")}
        rows[4:4] = [[f"of it {stage}", f"{value:.3f} ms"] for stage, value in of.items()]
    head = f"{record['texts']} texts, {record['precision']}, {record['instruction_set']}, {record['threads']} thread(s), p50:"
    return head + "\n\n" + table(["", "one text"], rows)


def start():
    record = read("start")
    if not record:
        return None
    mib = record["configuration"]["weights_bytes"] / 2**20
    rows = [[precision, span(found["seconds"], "{:.3f} s"), f"{found['first_seconds']:.3f} s"]
            for precision, found in record["results"].items()]
    head = f"{record['configuration']['model']}, {mib:.0f} MiB of weights. {machine(record)}."
    return head + "\n\n" + table(["precision", "start to ready", "the first"], rows)


def burst():
    record = read("burst")
    if not record:
        return None
    found = record["results"]
    epsilon = found["certified_loss"]["epsilon"]
    head = (f"Unloaded p50 {found['unloaded_p50_ms']:.2f} ms, SLO {found['slo_ms']:.1f} ms. Full depth carries "
            f"{found['full_capacity']:.0f} texts a second, the floor (`{found['ladder'][-1]['policy']}`) {found['floor_capacity']:.0f}. "
            f"Full depth scores {percent(found['full_accuracy'])} on these rows; the certificate bounds the loss by {percent(epsilon)}, so "
            f"that the floor lies at {percent(found['full_accuracy'] - epsilon)}. {machine(record)}.")
    header = ["burst", "server", "in time", "accuracy", "mean depth", "full depth again after", "for good", "goodput / floor's capacity",
              "refused, of all", "429 after, p50 and p99", "without an answer"]
    rows = []
    for row in found["bursts"]:
        d = row["digest"]
        rows.append([
            f"{row['peak']:g}x", row["server"], span(d["attainment"], "{:.2f} %", 100), span(d["effective_accuracy"], "{:.1f} %", 100),
            span(d["mean_depth"], "{:.2f}"), span(d["recovered_seconds"], "{:.2f} s"), span(d["settled_seconds"], "{:.2f} s"),
            span(d["goodput_over_floor"], "{:.2f}"), span(d["refused_share"], "{:.1f} %", 100),
            f"{span(d['refusal_p50_ms'], '{:.1f} ms')}; {span(d['refusal_p99_ms'], '{:.1f} ms')}", d["failed"] + d["lost"],
        ])
    return head + "\n\n" + table(header, rows)


def peer():
    record = read("peer")
    if not record:
        return None
    found = record["results"]
    rows = [[name, span(s["rate"], "{:.1f}"), span(s["accuracy"], "{:.1f} %", 100),
             f"{statistics.median(search['unloaded_p50_ms'] for search in s['searches']):.2f} ms"] for name, s in found["servers"].items()]
    exits = f", {span(found['ratio_exits'], '{:.2f}')} with exits" if "ratio_exits" in found else ""
    head = (f"Requests a second with every one answered and a p99 of at most {found['p99_ms']:g} ms; medians over rounds of searches. Ours over "
            f"the better Python server: {span(found['ratio_full'], '{:.2f}')} at full depth{exits}. {machine(record)}.")
    return head + "\n\n" + table(["server", "requests / s", "accuracy", "unloaded p50"], rows)


def soak():
    record = read("soak")
    if not record:
        return None
    found, summary = record["results"], record["results"]["run"]["summary"]
    slope, memory = found["slope_mib_per_day"], found["resident_mib"]
    trend = f"{slope['value']:+.1f} ± {slope['half_interval']:.1f} MiB a day" if slope else "–"
    rows = [["minutes", f"{record['configuration']['minutes']:g}"], ["requests", summary["offered"]],
            ["in time", percent(summary["attainment"])], ["failed or lost", sum(summary["failed"].values()) + summary["lost"]],
            ["resident memory, first, last and most", " / ".join(f"{memory[key]:.1f}" for key in ("first", "last", "most")) + " MiB"],
            ["trend", f"{trend}, {'flat' if found['flat'] else 'not flat'}"]]
    return f"{machine(record)}.\n\n" + table(["", ""], rows)


def main():
    blocks = {**simulated(), **{step.__name__: step() for step in (overhead, start, burst, peer, soak)}}
    for document in DOCUMENTS:
        fill(document, blocks)


main()
