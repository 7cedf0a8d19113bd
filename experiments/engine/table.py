#!/usr/bin/env python3
"""Writes the tables of docs/performance.md and README.md from records.

    python table.py records ../../docs/performance.md ../../README.md

Each pair of markers `<!-- name:start -->`, `<!-- name:end -->` holds one table; a table whose records
are missing is left as it is. `<!-- name-FOLDER:start -->` wants those of another machine, in
records/FOLDER.
"""
import json
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
from markdown import fill, table

RECORDS = [pathlib.Path(sys.argv[1])]
DOCUMENTS = [pathlib.Path(path) for path in sys.argv[2:]]
PRECISIONS = ("f32", "bf16", "int8")
SHAPES = ("albert-base", "12x384")
RIVALS = {"f32": ("onnxruntime f32", "openvino f32", "pytorch f32"), "bf16": ("openvino bf16", "pytorch bf16"), "int8": ("onnxruntime int8",)}


def read(name):
    path = RECORDS[-1] / name
    return json.loads(path.read_text()) if path.exists() else None


def machine(record):
    m = record["machine"]
    isa = m.get("instruction_set") or m.get("isa")
    return f"{m['cpu']}, {m['logical_cpus']} cores, {isa}"


def peaks():
    record = read("kernels-2.json")
    if not record:
        return None
    found = record["results"]["peaks"]
    names = [("f32_gflops", "f32, GFLOP/s"), ("bf16_gflops", "bf16, GFLOP/s"), ("int8_gops", "int8, GOP/s"),
             ("cache_gigabytes_per_second", "reading 8 MiB, GB/s"), ("memory_gigabytes_per_second", "reading memory, GB/s")]
    rows = [[who] + [f"{found[key][name]:.0f}" if found[key][name] else "none" for name, _ in names]
            for key, who in (("one_thread", "1 thread"), ("all_threads", "2 threads"))]
    return f"{machine(record)}:\n\n" + table([""] + [title for _, title in names], rows)


def yardsticks():
    blocks = []
    for threads in (1, 2):
        record = read(f"yardsticks-{threads}.json")
        if not record:
            return None
        groups = {}
        for row in record["rows"]:
            groups.setdefault((row["library"], row["precision"]), []).append(row["ratio"])
        for (library, precision), ratios in groups.items():
            ratios.sort()
            blocks.append([library, precision, threads, f"{ratios[len(ratios) // 2]:.2f}x", f"{ratios[0]:.2f}x", f"{ratios[-1]:.2f}x"])
    return table(["library", "precision", "threads", "ours faster, median", "lowest", "highest"], blocks)


def kernels():
    record = read("kernels-1.json")
    if not record:
        return None
    products = [r for r in record["results"]["rows"] if r.get("share_of_peak") is not None and r["kernel"] != "attention"]
    rows = []
    for shape in SHAPES:
        for kernel in dict.fromkeys(r["kernel"] for r in products):
            for precision in PRECISIONS:
                here = {r["m"]: r for r in products if (r["model"], r["kernel"], r["precision"]) == (shape, kernel, precision)}
                if not here or kernel == "embedding mapping":
                    continue
                any_row = next(iter(here.values()))
                rows.append([shape, kernel, f"{any_row['n']} x {any_row['k']}", precision]
                            + [f"{here[m]['share_of_peak']:.0%}" if m in here else "" for m in (16, 32, 64, 128)])
    return f"{machine(record)}:\n\n" + table(["model", "product", "N x K", "precision", "M = 16", "32", "64", "128"], rows)


def peers(name, unit, digits):
    blocks = []
    for shape in SHAPES:
        record = read(f"{name}-{shape}.json")
        if not record:
            continue
        cells = {(r["engine"] + " " + r["precision"], r["threads"], r["point"]): r[unit] for r in record["rows"]}
        ratios = {(r["precision"], r["threads"], r["point"]): r for r in record["ratios"]}
        rows = []
        for threads in sorted({k[1] for k in cells}):
            for point in sorted({k[2] for k in cells}):
                for precision in PRECISIONS:
                    ratio = ratios.get((precision, threads, point))
                    if not ratio:
                        continue
                    rivals = " / ".join(f"{cells[r, threads, point]:.{digits}f}" for r in RIVALS[precision])
                    rows.append([threads, point, precision, f"{cells['badge ' + precision, threads, point]:.{digits}f}", rivals,
                                 f"**{ratio['ratio']:.2f}x** ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"])
        versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
        point = "tokens" if name == "latency" else "batch"
        blocks.append(f"{shape} ({machine(record)}; {versions}):\n\n"
                      + table(["threads", point, "precision", "ours", "rivals", "ratio"], rows))
    return "\n\n".join(blocks) or None


def speed():
    """The README's: 64 tokens only."""
    rows = []
    for shape in SHAPES:
        record = read(f"latency-{shape}.json")
        if not record:
            return None
        cells = {(r["engine"] + " " + r["precision"], r["threads"], r["point"]): r["median_ms"] for r in record["rows"]}
        for row in record["ratios"]:
            if row["point"] == 64:
                precision, threads = row["precision"], row["threads"]
                best = min(RIVALS[precision], key=lambda rival: cells[rival, threads, 64])
                rows.append([shape, precision, threads, f"{cells['badge ' + precision, threads, 64]:.1f}",
                             f"{cells[best, threads, 64]:.1f} ({best.split()[0]})", f"{row['ratio']:.2f}x"])
    rows.sort(key=lambda r: (SHAPES.index(r[0]), r[2], PRECISIONS.index(r[1])))
    return table(["model", "precision", "threads", "BADGE, ms", "fastest rival, ms", "ratio"], rows)


def exits():
    depths, overheads, shares = [], [], []
    for shape in SHAPES:
        for threads in (1, 2):
            waiting, alone = (read(f"exits-{wait}-{shape}-{threads}.json") for wait in ("auto", "never"))
            if waiting and alone:
                by_itself = {(r["length"], r["precision"]): r for r in alone["results"]["exits"]}
                for row in waiting["results"]["exits"]:
                    other = by_itself[row["length"], row["precision"]]
                    overheads.append([shape, threads, row["length"], row["precision"], f"{row['overhead_percent']:+.1f} %",
                                      f"{other['overhead_percent']:+.1f} %"])
            record = read(f"depths-{shape}-{threads}.json")
            if record:
                found = record["results"]
                for length in sorted({r["length"] for r in found["depths"]}):
                    for precision in PRECISIONS:
                        here = {r["depth"]: r for r in found["depths"] if (r["length"], r["precision"]) == (length, precision)}
                        if here:
                            depths.append([shape, threads, length, precision]
                                          + [f"{here[m]['share_of_full'] * 12:.2f}" for m in (1, 3, 6, 9, 12)])
            record = read(f"exit-shares-{shape}-{threads}.json")
            if record:
                for row in record["results"]["exit_shares"]:
                    shares.append([shape, threads, row["precision"], f"{row['ideal_share']:.1%}", f"{row['share_of_full']:.1%}",
                                   f"{row['share_of_saving']:.0%}"])
    if not depths:
        return None
    return "\n\n".join([
        "Time when every sample leaves at exit m, in twelfths of full depth (m would be proportional; less is better, "
        "since the block that ends a sequence computes little more than [CLS]):",
        table(["model", "threads", "tokens", "precision", "m = 1", "3", "6", "9", "12"], depths),
        "All twelve exits with their bypasses and a policy that is never satisfied, over the plain forward pass with one exit; four at "
        "a time, as the engine computes them once it has seen that hardly anybody leaves, and each after its own block "
        "(`--exits-wait never`):",
        table(["model", "threads", "tokens", "precision", "added time", "each by itself"], overheads),
        "Batches of 32 with MRPC's lengths; half of the rows leave, an eighth each at exits 3 to 6, known beforehand (`fixed:m`). *Ideal* is blocks run per "
        "token; the saving is the time saved over the ideal one:",
        table(["model", "threads", "precision", "ideal share of full time", "measured", "share of the saving"], shares),
    ])


def accuracy():
    rows = []
    for task in ("rte", "mrpc"):
        for precision in ("bf16", "int8"):
            record = read(f"accuracy-{task}-{precision}.json")
            if not record:
                continue
            found = record["results"]["agreement"]
            for policy in found["points"]:
                rows.append([task, found["rows"], policy["policy"], precision, f"{policy['score'] * 100:.1f}",
                             f"{policy['reference_score'] * 100:.1f}", f"{policy['label_agreement']:.1%}",
                             f"{policy['exit_agreement']:.1%}"])
    if not rows:
        return None
    return table(["task", "samples", "policy", "precision", "score", "f32 score", "same label", "same exit"], rows)


def load():
    rows = []
    for shape in SHAPES:
        record = read(f"load-{shape}.json")
        for row in record["results"]["rows"] if record else []:
            rows.append([shape, row["precision"], f"{row['first_ms']:.0f}", f"{row['median_ms']:.0f}", f"{row['packed_bytes'] / 1e6:.1f}",
                         f"{row['workspace_bytes'] / 1e6:.1f}", f"{row['growth_ratio']:.2f}", f"{row['resident_ratio']:.2f}"])
    if not rows:
        return None
    return table(["model", "precision", "first load, ms", "median load, ms", "packed weights, MB", "workspace, MB",
                  "memory taken / (weights + workspace)", "the whole program's"], rows)


TABLES = {
    "peaks": peaks, "yardsticks": yardsticks, "kernels": kernels, "latency": lambda: peers("latency", "median_ms", 1),
    "throughput": lambda: peers("throughput", "tokens_per_second", 0), "exits": exits, "accuracy": accuracy, "load": load, "speed": speed,
}



def made(text):
    """Every table that a text has a place for."""
    folders = [""] + [f"-{path.name}" for path in RECORDS[0].iterdir() if path.is_dir()]
    tables = {}
    for folder in folders:
        RECORDS.append(RECORDS[0] / folder[1:])
        tables.update({name + folder: make() for name, make in TABLES.items() if f"<!-- {name}{folder}:start -->" in text})
        RECORDS.pop()
    return tables


for document in DOCUMENTS:
    here = made(document.read_text())
    for name in (name for name, table in here.items() if table is None):
        print(f"no records for `{name}`", file=sys.stderr)
    fill(document, here)
