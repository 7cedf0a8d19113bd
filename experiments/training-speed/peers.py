#!/usr/bin/env python3
"""BADGE's training beside PyTorch's, in turns on one machine.

    python peers.py step  --shape albert-base --out records/step-albert-base.json
    python peers.py epoch --shape albert-base --lengths-file mrpc-train-lengths.json --out records/epoch-albert-base.json

One joint step: the sum of the cross-entropies of twelve exits, one after each block, and AdamW; random
weights, ids and labels of the same sizes on both sides, dropout off. `step` repeats one batch of equal
lengths. `epoch` walks once through rows of ragged lengths: PyTorch pads every batch to its longest row
and masks the rest, with rows in random order as a data loader gives them (`pytorch`) and, beside it,
with rows of like length together as BADGE trains (`pytorch-grouped`); BADGE computes no padding.

Each measurement is a process of its own, so that its peak memory is its own. Engines take turns within
each of --rounds rounds, so that a machine that slows down slows all of them; a ratio is formed within
each round, and its median, lowest and highest are kept. BADGE clips gradients and PyTorch does not.

Needs (pinned): torch 2.15.0, transformers 5.23.0.
"""
import argparse
import hashlib
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
BADGE = os.environ.get("BADGE", str(HERE / "../../target/release/badge"))
SHAPES = ("albert-base", "bert-base", "12x384")
PRECISIONS = ("f32", "bf16")
# As BADGE orders an epoch: rows of like length together within stretches of so many batches.
STRETCH_BATCHES = 50


def config_of(shape):
    from transformers import AlbertConfig, BertConfig

    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if shape == "albert-base":
        return AlbertConfig(hidden_size=768, embedding_size=128, num_attention_heads=12, intermediate_size=3072,
                            hidden_act="gelu_new", **off)
    if shape == "bert-base":
        return BertConfig(**off)
    return BertConfig(hidden_size=384, num_attention_heads=12, intermediate_size=1536, **off)


def batches_of(args):
    """Lengths of the rows of every batch, in the order in which they are trained on."""
    if args.worker != "epoch":
        return [[args.length] * args.batch]
    generator = random.Random(args.seed)
    lengths = json.loads(pathlib.Path(args.lengths_file).read_text())[:args.rows]
    generator.shuffle(lengths)
    if args.order == "grouped":
        size = args.batch * STRETCH_BATCHES
        lengths = [n for i in range(0, len(lengths), size) for n in sorted(lengths[i:i + size], reverse=True)]
    batches = [lengths[i:i + args.batch] for i in range(0, len(lengths), args.batch)]
    generator.shuffle(batches)
    return batches


def resident_peak():
    """The most memory that this process had, in bytes, as `badge bench train` reads it."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def pytorch(args):
    """What one process of PyTorch measures, as `badge bench train` names it."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import AlbertModel, BertModel

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    config = config_of(args.shape)
    model = (AlbertModel if args.shape == "albert-base" else BertModel)(config, add_pooling_layer=False).train()
    exits = torch.nn.ModuleList([torch.nn.Linear(config.hidden_size, 2) for _ in range(config.num_hidden_layers)])
    optimizer = torch.optim.AdamW([*model.parameters(), *exits.parameters()], 1e-6)

    def step(lengths):
        longest = max(lengths)
        ids = torch.randint(5, config.vocab_size, (len(lengths), longest))
        labels = torch.arange(len(lengths)) % 2
        mask = None
        if min(lengths) < longest:
            mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            states = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states[1:]
            loss = sum(cross_entropy(head(state[:, 0]), labels) for head, state in zip(exits, states))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start

    batches = batches_of(args)
    for _ in range(3):
        step(max(batches, key=max))
    times, rounds = [], []
    for _ in range(args.runs):
        taken = [step(batch) for batch in batches]
        times += taken
        rounds.append(sum(taken))
    tokens = sum(map(sum, batches))
    return {
        "tokens": tokens, "batches": len(batches), "median_ms": 1e3 * statistics.median(times), "min_ms": 1e3 * min(times),
        "round_seconds": statistics.median(rounds), "tokens_per_second": tokens / statistics.median(rounds),
        "resident_peak": resident_peak(),
    }


def in_a_process(command):
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def measure(engine, precision, args, lengths_file):
    """One row of one engine, by a process of its own."""
    size = ["--lengths-file", lengths_file] if args.what == "epoch" else ["--length", args.length]
    if engine == "badge":
        report = in_a_process([BADGE, "bench", "train", "--shape", args.shape, "--precision", precision,
                               "--batch", args.batch, *size, "--threads", args.threads, "--runs", args.runs,
                               "--seed", args.seed, "--json", "--quiet"])
        return report["rows"][0]
    order = "grouped" if engine == "pytorch-grouped" else "random"
    return in_a_process([sys.executable, __file__, args.what, "--worker", args.what, "--shape", args.shape,
                         "--precision", precision, "--order", order, "--batch", args.batch, *size,
                         "--threads", args.threads, "--runs", args.runs, "--seed", args.seed, "--rows", args.rows])


def ratios(found, engines, precisions):
    """PyTorch's time and memory against ours, formed round by round."""
    rows = []
    for precision in precisions:
        ours = found[("badge", precision)]
        for engine in engines[1:]:
            theirs = found[(engine, precision)]
            # Per token: the last batch of an epoch and its order differ, the rows do not.
            speed = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(ours, theirs)]
            memory = [a["resident_peak"] / b["resident_peak"] for a, b in zip(ours, theirs)]
            rows.append({"precision": precision, "against": engine,
                         "speed": statistics.median(speed), "lowest": min(speed), "highest": max(speed),
                         "memory": statistics.median(memory)})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("step", "epoch"))
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--out", help="the record to be written")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--lengths-file", help="JSON list of the lengths of an epoch's rows, in tokens")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the epoch at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, help="steps, or epochs, of a process (default: 8 steps, 1 epoch)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--worker", choices=("step", "epoch"), help=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=PRECISIONS, help=argparse.SUPPRESS)
    parser.add_argument("--order", choices=("random", "grouped"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.runs = args.runs or (8 if args.what == "step" else 1)
    if args.what == "epoch" and not args.lengths_file:
        parser.error("epoch needs --lengths-file")
    if args.worker:
        print(json.dumps(pytorch(args)))
        return
    if not args.out:
        parser.error("--out is missing")
    run(args)


def run(args):
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    engines = ["badge", "pytorch"] + (["pytorch-grouped"] if args.what == "epoch" else [])
    out = pathlib.Path(args.out)
    lengths_file = args.lengths_file
    if args.what == "epoch":
        lengths = json.loads(pathlib.Path(args.lengths_file).read_text())[:args.rows]
        lengths_file = out.with_suffix(".lengths")
        lengths_file.write_text(json.dumps(lengths))
    found = {(engine, precision): [] for precision in args.precisions for engine in engines}
    try:
        for number in range(args.rounds):
            # The other way round every second time: whoever comes first does not always do so.
            turns = [(e, p) for p in args.precisions for e in engines]
            for engine, precision in turns if number % 2 == 0 else reversed(turns):
                row = measure(engine, precision, args, lengths_file)
                found[(engine, precision)].append(row)
                print(f"round {number + 1} of {args.rounds}: {engine} {precision} {row['median_ms']:.0f} ms a step, "
                      f"{row['tokens_per_second']:.0f} tokens/s, {row['resident_peak'] / 2**20:.0f} MiB", flush=True)
    finally:
        if args.what == "epoch":
            lengths_file.unlink()
    import torch
    import transformers
    machine = in_a_process([BADGE, "bench", "kernels", "--peaks-only", "--json", "--quiet"])
    digest = hashlib.sha256(pathlib.Path(args.lengths_file).read_bytes()).hexdigest() if args.lengths_file else None
    record = {
        "experiment": f"training {args.what}", "shape": args.shape, "started": started,
        "configuration": {k: v for k, v in vars(args).items()
                          if k not in ("out", "worker", "precision", "order", "what", "shape", "lengths_file")},
        "lengths_sha256": digest,
        "commit": subprocess.run(["git", "-C", str(HERE), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "machine": machine["machine"], "peaks": machine["peaks"], "system": platform.release(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "rows": [{"engine": engine, "precision": precision,
                  "median_ms": statistics.median(r["median_ms"] for r in rows),
                  "min_ms": min(r["min_ms"] for r in rows),
                  "round_seconds": statistics.median(r["round_seconds"] for r in rows),
                  "tokens_per_second": statistics.median(r["tokens_per_second"] for r in rows),
                  "resident_peak": statistics.median(r["resident_peak"] for r in rows),
                  "share_of_peak": statistics.median(r["share_of_peak"] for r in rows) if rows[0].get("share_of_peak") else None,
                  "rounds": rows} for (engine, precision), rows in found.items()],
        "ratios": ratios(found, engines, args.precisions),
    }
    out.write_text(json.dumps(record, indent=1) + "\n")
    for row in record["ratios"]:
        print(f"{row['precision']:>5} against {row['against']}: {row['speed']:.2f}x ({row['lowest']:.2f} to {row['highest']:.2f}), "
              f"memory {row['memory']:.2f}")


if __name__ == "__main__":
    main()
