#!/usr/bin/env python3
"""A burst on a server that keeps its promise by leaving earlier, and on one of full depth.

    burst.py --model CERTIFIED --data FOLDER --precision int8 --out records/burst.json

First, of this machine: the unloaded median, whose fourfold is the SLO, and what full depth and the
floor carry. Then, in turns with other arrivals each round: calm traffic, --seconds of burst, calm
traffic. `controlled` and `full` get the same arrivals at three times what full depth carries,
`controlled` also eight times. Accuracy is that of the task's test rows; the floor that is certified
is what full depth scores on them less the certificate's bound.
"""
import argparse
import json
import pathlib
import shutil
import tempfile

from servers import CONNECTIONS, badge_serve, capacity, now, outcome, replay, running, spread, unloaded_p50, write_record


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="with a certified exit_calibration.json")
    parser.add_argument("--data", required=True, help="folder of the task")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--slo-factor", type=float, default=4.0, help="SLO over the unloaded median")
    parser.add_argument("--calm", type=float, default=0.3, help="calm traffic as a share of full depth's capacity")
    parser.add_argument("--peaks", type=float, nargs="+", default=[3.0, 8.0], help="bursts over full depth's capacity")
    parser.add_argument("--before", type=float, default=15.0, help="seconds of calm before the burst")
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds of burst")
    parser.add_argument("--after", type=float, default=25.0, help="seconds of calm after it")
    parser.add_argument("--measure-seconds", type=float, default=10.0, help="length of each run that measures a capacity")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=3181)
    parser.add_argument("--figure", type=pathlib.Path, help="SVG of the first controlled burst")
    return parser.parse_args()


class Bench:
    """Servers of one model, one at a time."""

    def __init__(self, args, scratch):
        self.args, self.scratch = args, pathlib.Path(scratch)

    def server(self, *flags):
        args = self.args
        command = badge_serve(args.model, args.precision, args.port, *flags)
        return running(command, args.port, self.scratch / "log")

    def static(self, policy):
        """Unloaded median in milliseconds and capacity of one policy."""
        args = self.args
        with self.server("--policy", policy) as server:
            p50 = unloaded_p50(server.url, args.data, args.measure_seconds)
            return p50, capacity(server.url, args.data, p50, args.measure_seconds)

    def ladder(self, slo_ms):
        """What the controller may choose, from full depth down."""
        with self.server("--slo-ms", slo_ms) as server:
            [model] = server.get("v1/policy")["models"]
        ladder = model["ladder"]
        if len(ladder["levels"]) < 2:
            raise SystemExit(f"the controller has no choice: {json.dumps(ladder.get('fixed'))}")
        return ladder["levels"], model["certificate"]

    def burst(self, flags, trace, slo_ms, seed, out):
        args = self.args
        with self.server(*flags) as server:
            # The engine's speed is known by the time the trace begins, as on a server that has run for a while.
            unloaded_p50(server.url, args.data, 2.0, 20.0)
            return replay(server.url, trace, args.data, slo_ms=slo_ms, seed=seed, connections=CONNECTIONS, out=out)


def trace(args, full, peak):
    total = args.before + args.seconds + args.after
    return (f"step:rate={args.calm * full:.2f},peak={peak * full:.2f},start={args.before},length={args.seconds},"
            f"seconds={total},cv2=1")


def digest(runs, floor_capacity):
    """The figures of the table, over rounds."""
    bursts = [run["summary"]["burst"] for run in runs]
    found = {key: spread([burst[key] for burst in bursts if burst[key] is not None] or [float("nan")])
             for key in ("attainment", "goodput", "mean_depth", "effective_accuracy")}
    for key in ("recovered_seconds", "settled_seconds"):
        values = [burst[key] for burst in bursts if burst.get(key) is not None]
        found[key] = spread(values) if values else None
    found["goodput_over_floor"] = spread([burst["goodput"] / floor_capacity for burst in bursts])
    found["attainment_in_all"] = spread([run["summary"]["attainment"] for run in runs])
    found["refused_share"] = spread([run["summary"]["refused_share"] for run in runs])
    for key in ("p50", "p99", "max"):
        values = [run["summary"]["refusal_ms"][key] for run in runs]
        found[f"refusal_{key}_ms"] = spread(values) if None not in values else None
    found["expired"] = sum(run["summary"]["expired"] for run in runs)
    found["failed"] = sum(sum(run["summary"]["failed"].values()) for run in runs)
    found["lost"] = sum(run["summary"]["lost"] for run in runs)
    return found


def measure(args, scratch):
    bench = Bench(args, scratch)
    p50, full = bench.static("full")
    slo_ms = args.slo_factor * p50
    levels, certificate = bench.ladder(slo_ms)
    floor = levels[-1]
    _, floor_capacity = bench.static(floor["policy"])
    print(f"unloaded {p50:.2f} ms, SLO {slo_ms:.2f} ms; full depth carries {full:.0f}/s, "
          f"the floor {floor['policy']} {floor_capacity:.0f}/s", flush=True)
    kinds = {"controlled": ["--slo-ms", f"{slo_ms:.3f}"], "full": ["--policy", "full"]}
    plan = [(name, peak) for peak in args.peaks for name in kinds if name == "controlled" or peak == args.peaks[0]]
    runs = {key: [] for key in plan}
    for number in range(args.rounds):
        for name, peak in plan:
            keep = args.figure if (name, peak, number) == ("controlled", args.peaks[0], 0) else None
            out = bench.scratch / "run" if keep else None
            report = bench.burst(kinds[name], trace(args, full, peak), slo_ms, number + 1, out)
            runs[name, peak].append(outcome(report))
            if keep:
                shutil.copy(out / "replay.svg", keep)
            burst = report["summary"]["burst"]
            print(f"round {number + 1}: {name} at {peak:g}x: {100 * burst['attainment']:.2f} % in time in the burst, "
                  f"accuracy {100 * (burst['effective_accuracy'] or 0):.1f} %, back after {burst.get('recovered_seconds')} s", flush=True)
    return {
        "unloaded_p50_ms": p50, "slo_ms": slo_ms, "full_capacity": full, "floor_capacity": floor_capacity,
        "ladder": levels, "certificate": certificate, "full_accuracy": full_accuracy(bench),
        "certified_loss": json.loads((args.model / "exit_calibration.json").read_text())["certificate"],
        "bursts": [{"server": name, "peak": peak, "digest": digest(done, floor_capacity), "runs": done}
                   for (name, peak), done in runs.items()],
    }


def full_accuracy(bench):
    """Accuracy of full depth on the same rows, each asked once or more."""
    with bench.server("--policy", "full") as server:
        requests = 4000  # more than the rows of MRPC (1,725) and of BANKING77 (3,080)
        report = replay(server.url, f"poisson:rate={requests * 10},seconds=0.1,cv2=0", bench.args.data, connections=64)
        return report["summary"]["effective_accuracy"]


def main():
    args = arguments()
    certificate = json.loads((args.model / "exit_calibration.json").read_text()).get("certificate")
    if not certificate or certificate.get("confidence") is None:
        raise SystemExit(f"{args.model}: not certified; run `badge calibrate --confidence` on it")
    started = now()
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(args, scratch)
    configuration = {key: value for key, value in vars(args).items() if key not in ("model", "data", "out", "figure", "port")}
    write_record(args.out, "burst", started, configuration, results)


if __name__ == "__main__":
    main()
