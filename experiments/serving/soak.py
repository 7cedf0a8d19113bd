#!/usr/bin/env python3
"""A server under steady load for long: is its memory flat?

    soak.py --model CERTIFIED --data FOLDER --minutes 60 --out records/soak.json

Poisson traffic at --share of what full depth carries, on a server with an SLO. Its resident memory
is read once a second. The trend is a line through the means of twenty equal parts after --settle
seconds, with a 95 % interval; it is flat where the interval holds zero, or where a day of the
trend's upper end would add less than --grain MiB.
"""
import argparse
import math
import pathlib
import statistics
import tempfile
import threading
import time

from servers import badge_serve, capacity, now, outcome, replay, running, unloaded_p50, write_record

PARTS = 20
# Student's t, 97.5 %, for a line through twenty points.
T_QUANTILE = 2.101


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--data", required=True, help="folder of the task")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--share", type=float, default=0.8)
    parser.add_argument("--slo-factor", type=float, default=10.0, help="SLO over the unloaded median")
    parser.add_argument("--settle", type=float, default=60.0)
    parser.add_argument("--grain", type=float, default=16.0)
    parser.add_argument("--port", type=int, default=3183)
    return parser.parse_args()


def trend(seconds, bytes_):
    """Slope in bytes a second and half the width of its 95 % interval, from the means of equal parts."""
    size = len(seconds) // PARTS
    if size == 0:
        return None
    parts = [slice(at * size, (at + 1) * size) for at in range(PARTS)]
    x = [statistics.fmean(seconds[part]) for part in parts]
    y = [statistics.fmean(bytes_[part]) for part in parts]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    square = sum((a - mean_x) ** 2 for a in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / square
    rest = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y))
    return slope, T_QUANTILE * math.sqrt(rest / (PARTS - 2) / square)


def sample(server, ended, samples):
    start = time.monotonic()
    while not ended.wait(1.0):
        samples.append((round(time.monotonic() - start, 2), server.resident_bytes()))


def main():
    args, started = arguments(), now()
    with tempfile.TemporaryDirectory() as scratch:
        log = pathlib.Path(scratch) / "log"
        with running(badge_serve(args.model, args.precision, args.port, "--policy", "full"), args.port, log) as server:
            p50 = unloaded_p50(server.url, args.data)
            rate = args.share * capacity(server.url, args.data, p50)
        slo_ms = args.slo_factor * p50
        with running(badge_serve(args.model, args.precision, args.port, "--slo-ms", f"{slo_ms:.3f}"), args.port, log) as server:
            samples, ended = [], threading.Event()
            watch = threading.Thread(target=sample, args=(server, ended, samples))
            watch.start()
            report = replay(server.url, f"poisson:rate={rate:.2f},seconds={60 * args.minutes:.0f}", args.data, slo_ms=slo_ms)
            ended.set()
            watch.join()
    later = [(at, size) for at, size in samples if at >= args.settle]
    found = trend(*map(list, zip(*later))) if later else None
    day = 86_400 / 2**20
    flat = None if found is None else found[0] - found[1] <= 0 or (found[0] + found[1]) * day < args.grain
    results = {
        "rate": rate, "slo_ms": slo_ms, "flat": flat,
        "slope_mib_per_day": found and {"value": found[0] * day, "half_interval": found[1] * day},
        "resident_mib": {"first": samples[0][1] / 2**20, "last": samples[-1][1] / 2**20, "most": max(s for _, s in samples) / 2**20},
        "samples": {"seconds": [at for at, _ in samples], "bytes": [size for _, size in samples]}, "run": outcome(report),
    }
    configuration = {key: value for key, value in vars(args).items() if key not in ("model", "data", "out", "port")}
    write_record(args.out, "soak", started, configuration, results)
    print(f"{report['summary']['offered']} requests, {100 * report['summary']['attainment']:.2f} % in time; memory "
          f"{results['resident_mib']['first']:.1f} MiB to {results['resident_mib']['last']:.1f} MiB, flat: {flat}")


if __name__ == "__main__":
    main()
