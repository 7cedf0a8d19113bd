#!/usr/bin/env python3
"""Prints the Markdown tables of the README from the records: `table.py RECORDS [README]`.

With a README the text between its first-run markers is replaced.
"""
import json
import sys
from pathlib import Path

TASKS = {"rte": "RTE (accuracy)", "mrpc": "MRPC (mean of accuracy and F1)"}
SPLITS = {"test": "test half", "official-test": "official test"}
METHODS = {"badge": "bypasses, r = 16", "joint": "no bypasses"}


def read(folder, name):
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def percent(value):
    return f"{100 * value:.1f}"


def interval(value):
    return f"{percent(value['low'])}-{percent(value['high'])}"


def exit_table(folder, split):
    lines, depths = [], None
    for task, title in TASKS.items():
        for method, label in METHODS.items():
            record = read(folder, f"{task}-{method}.{split}")
            if record is None:
                continue
            evaluation = record["results"]["evaluation"]
            depths = evaluation["depths"]
            scores = evaluation["scores"]
            cells = [percent(s) for s in scores["exits"]] + [percent(scores["average"]), percent(scores["best"])]
            lines.append([f"{title.split()[0]}, {label}"] + cells)
    header = [SPLITS[split]] + [str(d) for d in depths] + ["S-avg", "S-best"]
    return table(header, lines)


def policy_table(folder, split, timed):
    header = ["", "policy", "score", "95 %", "mean exit", "layer speed-up"] + (["time saved"] if timed else [])
    lines = []
    for task, title in TASKS.items():
        for method, label in METHODS.items():
            record = read(folder, f"{task}-{method}.{split}")
            if record is None:
                continue
            evaluation = record["results"]["evaluation"]
            name = f"{title.split()[0]}, {label}"
            full = [name, "full depth", percent(evaluation["scores"]["exits"][-1]),
                    interval(evaluation["intervals"][-1]), f"{evaluation['depths'][-1]}", "1.00x"]
            lines.append(full + (["0 %"] if timed else []))
            for policy in record["results"]["policies"]:
                row = ["", f"`{policy['policy']}`", percent(policy["score"]), interval(policy["interval"]),
                       f"{policy['mean_exit']:.2f}", f"{policy['layer_speedup']:.2f}x"]
                if timed:
                    row.append(f"{100 * policy['time']['time_saved']:.0f} %")
                lines.append(row)
    return table(header, lines)


def table(header, rows):
    out = ["| " + " | ".join(header) + " |", "|" + "|".join(["---"] + ["---:"] * (len(header) - 1)) + "|"]
    return "\n".join(out + ["| " + " | ".join(row) + " |" for row in rows])


def text(folder):
    parts = ["Every exit on the test half, percent:", exit_table(folder, "test"),
             "Divergence-based exiting at three operating points, chosen on the dev half "
             "(time at batch size 1, one thread):", policy_table(folder, "test", True)]
    if read(folder, "mrpc-badge.official-test"):
        parts += ["The same MRPC models on the 1,725 labelled rows of the official test set, whose intervals are "
                  "narrower:", exit_table(folder, "official-test"), policy_table(folder, "official-test", False)]
    return "\n\n".join(parts)


def main():
    folder = Path(sys.argv[1])
    made = text(folder)
    if len(sys.argv) < 3:
        print(made)
        return
    readme = Path(sys.argv[2])
    start, end = "<!-- first-run:start -->", "<!-- first-run:end -->"
    before, rest = readme.read_text().split(start, 1)
    _, after = rest.split(end, 1)
    readme.write_text(f"{before}{start}\n{made}\n{end}{after}")


if __name__ == "__main__":
    main()
