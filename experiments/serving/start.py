#!/usr/bin/env python3
"""How long `badge serve` takes from its start until it is ready: `start.py --model DIR --out RECORD`.

The clock runs from before the process is made until `/health` first says 200. The first start may
find the weights on disk alone; it is kept apart.
"""
import argparse
import pathlib
import tempfile

from servers import badge_serve, now, running, spread, write_record

PRECISIONS = ("f32", "bf16", "int8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--starts", type=int, default=11)
    parser.add_argument("--port", type=int, default=3180)
    args = parser.parse_args()
    started, results = now(), {}
    with tempfile.TemporaryDirectory() as scratch:
        for precision in PRECISIONS:
            times = []
            for _ in range(args.starts + 1):
                with running(badge_serve(args.model, precision, args.port), args.port, f"{scratch}/log") as server:
                    times.append(server.ready_seconds)
            results[precision] = {"first_seconds": times[0], "seconds": spread(times[1:])}
            print(f"{precision}: ready after {results[precision]['seconds']['median']:.3f} s", flush=True)
    weights = (args.model / "model.safetensors").stat().st_size
    configuration = {"model": args.model.name, "weights_bytes": weights, "starts": args.starts}
    write_record(args.out, "start", started, configuration, results)


if __name__ == "__main__":
    main()
