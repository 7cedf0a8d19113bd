#!/usr/bin/env python3
"""Throughput at equal p99: `badge serve` beside FastAPI with ONNX Runtime int8, the same model.

    peer.py --model MODEL --exits CALIBRATED --data FOLDER --precision int8 --out records/peer.json

For each server the greatest Poisson rate is sought, by bisection over runs of open-loop load, at
which every request is answered and the 99th percentile stays within --p99-ms. Servers take turns,
and each round searches anew. The Python server runs without batches and with micro-batches; the
better of the two counts. `exits` is our server with the policy of CALIBRATED's
exit_calibration.json, where there is one. Accuracy is that of the task's test rows.

Needs (pinned) what ../engine/peers.py needs and fastapi 0.165.0, uvicorn 0.54.0, uvloop 0.23.0,
httptools 0.9.0.
"""
import argparse
import json
import pathlib
import sys
import tempfile

from servers import HERE, badge_serve, capacity, now, replay, running, spread, threads, unloaded_p50, write_record

sys.path.append(str(HERE.parent / "engine"))
from peers import export

MOST_BATCHED = 16
# A search ends when it knows the rate so exactly.
RESOLUTION = 1.03


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--exits", type=pathlib.Path, help="the model, calibrated with --max-drop 0.01; full depth alone without it")
    parser.add_argument("--data", required=True, help="folder of the task")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--p99-ms", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of one run of the search")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=3182)
    return parser.parse_args()


def chosen(args):
    """The policy that the calibration chose, if there is one."""
    return args.exits and json.loads((args.exits / "exit_calibration.json").read_text())["policy"]


def contenders(args, onnx):
    def ours(policy):
        return badge_serve(args.model, args.precision, args.port, "--policy", policy)

    def python(batch):
        return [sys.executable, HERE / "peer_server.py", "--onnx", onnx, "--model", args.model, "--port", args.port,
                "--threads", threads(), "--batch", batch]

    exits = {"badge, exits": ours(chosen(args))} if args.exits else {}
    return {"badge, full depth": ours("full"), **exits, "python": python(1), f"python, batches of {MOST_BATCHED}": python(MOST_BATCHED)}


def search(server, args, seed):
    """The greatest rate that keeps the p99, and every run that was made to find it."""
    p50 = unloaded_p50(server.url, args.data, args.seconds / 2)
    most = capacity(server.url, args.data, p50, args.seconds)
    probes = []

    def holds(rate):
        report = replay(server.url, f"poisson:rate={rate:.2f},seconds={args.seconds}", args.data, slo_ms=args.p99_ms,
                        seed=seed + len(probes))
        summary = report["summary"]
        kept = summary["served"] == summary["offered"] and summary["latency_ms"]["p99"] <= args.p99_ms
        probes.append({"rate": rate, "kept": kept, "p50_ms": summary["latency_ms"]["p50"], "p99_ms": summary["latency_ms"]["p99"],
                       "served": summary["served"], "offered": summary["offered"], "accuracy": summary["effective_accuracy"],
                       "mean_depth": summary["mean_depth"], "lag_p99_ms": summary["lag_ms"]["p99"]})
        return kept

    low, high = 0.0, 1.2 * most
    rate = 0.8 * most
    while low == 0.0 or high / low > RESOLUTION:
        low, high = (rate, high) if holds(rate) else (low, rate)
        rate = (low + high) / 2 if low else 0.7 * rate
        if rate < 1.0:
            raise SystemExit(f"a p99 of {args.p99_ms:g} ms is not even kept at one request a second")
    return {"unloaded_p50_ms": p50, "capacity": most, "rate": low, "probes": probes}


def ratios(found, ours, peers):
    """Ours over the better of the peers, round by round."""
    rates = {name: [search["rate"] for search in searches] for name, searches in found.items()}
    return spread([mine / max(theirs) for mine, *theirs in zip(rates[ours], *(rates[peer] for peer in peers))])


def main():
    args, started = arguments(), now()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        _, _, onnx = export(folder, args.model, with_types=True)
        servers = contenders(args, onnx)
        found = {name: [] for name in servers}
        for number in range(args.rounds):
            for name, command in servers.items():
                with running(command, args.port, folder / "log") as server:
                    found[name].append(search(server, args, 100 * number))
                print(f"round {number + 1}: {name}: {found[name][-1]['rate']:.1f} a second", flush=True)
    full, *exits, python, batches = servers
    ratio = {"ratio_full": full, **{"ratio_exits": name for name in exits}}
    ratio = {key: ratios(found, name, [python, batches]) for key, name in ratio.items()}
    results = {"p99_ms": args.p99_ms, **ratio,
               "servers": {name: {"rate": spread([s["rate"] for s in searches]), "searches": searches,
                                  "accuracy": spread([p["accuracy"] for s in searches for p in s["probes"] if p["kept"]])}
                           for name, searches in found.items()}}
    import onnxruntime
    import uvicorn
    configuration = {"exits": chosen(args), "precision": args.precision, "seconds": args.seconds, "rounds": args.rounds,
                     "versions": {"onnxruntime": onnxruntime.__version__, "uvicorn": uvicorn.__version__}}
    write_record(args.out, "peer", started, configuration, results)


if __name__ == "__main__":
    main()
