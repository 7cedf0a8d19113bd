#!/usr/bin/env python3
"""BADGE's engine beside PyTorch, ONNX Runtime and OpenVINO, in turns on one machine.

    python peers.py latency    --model DIR --name albert-base --out records/latency-albert-base.json
    python peers.py throughput --model DIR --name albert-base --lengths-file mrpc-lengths.json --out records/throughput-albert-base.json

DIR is a Hugging Face directory that both sides load: the same weights, the same inputs' sizes.
Engines take turns: in each of --rounds rounds every engine measures every point, so that a machine
that slows down slows all of them. A point is the median over rounds of each round's median; a
ratio is formed within each round, and its median, lowest and highest are kept. Peers run as their
documentation advises: one session per thread count, sequential execution, static settings for
latency; int8 of ONNX Runtime is its dynamic quantisation, per channel.

Needs (pinned): torch 2.15.0, transformers 5.23.0, onnx 1.23.2, onnxruntime 1.31.1,
openvino 2026.4.1, numpy.
"""
import argparse
import hashlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
BADGE = os.environ.get("BADGE", str(HERE / "../../target/release/badge"))
# (engine, precision) of every peer; ours are measured in the same three precisions.
PEERS = [("onnxruntime", "f32"), ("onnxruntime", "int8"), ("openvino", "f32"), ("openvino", "bf16"),
         ("pytorch", "f32"), ("pytorch", "bf16")]
RIVALS = {"f32": [("onnxruntime", "f32"), ("openvino", "f32"), ("pytorch", "f32")],
          "bf16": [("openvino", "bf16"), ("pytorch", "bf16")],
          "int8": [("onnxruntime", "int8")]}


def export(folder, directory, with_types=False):
    """Writes the model as ONNX, plain and quantised; `with_types` for texts in pairs."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(directory).float().eval()
    model.config._attn_implementation = "eager"

    class Logits(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, ids, mask, types=None):
            return self.inner(input_ids=ids, attention_mask=mask, token_type_ids=types).logits

    plain, int8 = folder / "model.onnx", folder / "int8.onnx"
    ids = torch.randint(5, model.config.vocab_size, (1, 64))
    inputs = {"ids": ids, "mask": torch.ones_like(ids)}
    if with_types:
        inputs["types"] = torch.zeros_like(ids)
    torch.onnx.export(Logits(model), tuple(inputs.values()), str(plain), input_names=list(inputs), output_names=["logits"],
                      dynamic_axes={name: {0: "b", 1: "t"} for name in inputs}, opset_version=17, dynamo=False)
    # Without this step weights that several layers share (ALBERT's) stay f32 unnoticed.
    prepared = folder / "prepared.onnx"
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    quantize_dynamic(str(prepared), str(int8), weight_type=QuantType.QInt8, per_channel=True,
                     extra_options={"DefaultTensorType": 1})
    return model.config.vocab_size, plain, int8


def peer(engine, precision, threads, directory, plain, int8):
    """A function that classifies one batch (ids, mask)."""
    if engine == "pytorch":
        import torch
        from transformers import AutoModelForSequenceClassification

        torch.set_num_threads(threads)
        model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
        model.config._attn_implementation = "sdpa"
        model = model.to(torch.float32 if precision == "f32" else torch.bfloat16)

        def call(ids, mask):
            with torch.inference_mode():
                return model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits
        return call
    if engine == "onnxruntime":
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        path = plain if precision == "f32" else int8
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda ids, mask: session.run(None, {"ids": ids, "mask": mask})
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(core.read_model(plain), "CPU", {
        "INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    return lambda ids, mask: request.infer([ids, mask])


def timed(call, runs):
    """Median and minimum of `runs` calls after two warm-ups, in milliseconds."""
    call(), call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times), min(times)


def badge(*flags):
    """The rows of one `badge bench` call."""
    done = subprocess.run([BADGE, "bench", *map(str, flags), "--json", "--quiet"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


class Table:
    """Medians by (engine, precision, threads, point), one per round."""

    def __init__(self):
        self.rounds = {}

    def add(self, key, value):
        self.rounds.setdefault(key, []).append(value)

    def rows(self, unit):
        return [{"engine": e, "precision": p, "threads": t, "point": x, unit: statistics.median(v), "rounds": v}
                for (e, p, t, x), v in sorted(self.rounds.items())]

    def ratios(self, faster):
        """Ours against the best rival of each precision, formed round by round."""
        found = []
        for (engine, precision, threads, point), ours in sorted(self.rounds.items()):
            rivals = [self.rounds.get((e, p, threads, point)) for e, p in RIVALS.get(precision, [])]
            if engine != "badge" or not rivals or None in rivals:
                continue
            per_round = [faster(mine, list(theirs)) for mine, *theirs in zip(ours, *rivals)]
            found.append({"precision": precision, "threads": threads, "point": point,
                          "ratio": statistics.median(per_round), "lowest": min(per_round), "highest": max(per_round)})
        return found


def latency(args, sizes, sessions):
    table = Table()
    rng = np.random.default_rng(2023)
    for number in range(args.rounds):
        for threads in args.threads:
            for engine, precision in PEERS:
                call = sessions(engine, precision, threads)
                for length in args.lengths:
                    ids = rng.integers(5, sizes, (1, length))
                    median, _ = timed(lambda: call(ids, np.ones_like(ids)), args.runs)
                    table.add((engine, precision, threads, length), median)
                del call
                time.sleep(0.05)  # worker threads of peers spin for a while after a call
            for precision in ("f32", "bf16", "int8"):
                report = badge("latency", "--model", args.model, "--precision", precision, "--threads", threads,
                               "--lengths", ",".join(map(str, args.lengths)), "--runs", args.runs)
                for row in report["rows"]:
                    table.add(("badge", precision, threads, row["length"]), row["median_ms"])
        print(f"round {number + 1} of {args.rounds} done", flush=True)
    return table.rows("median_ms"), table.ratios(lambda mine, theirs: min(theirs) / mine)


def throughput(args, sizes, sessions):
    table = Table()
    rng = np.random.default_rng(2023)
    lengths = json.loads(pathlib.Path(args.lengths_file).read_text())
    batches = [lengths[i:i + args.batch] for i in range(0, len(lengths), args.batch)]
    tokens = sum(lengths)
    for number in range(args.rounds):
        for threads in args.threads:
            for engine, precision in PEERS:
                call = sessions(engine, precision, threads)
                padded = []
                for batch in batches:
                    ids = rng.integers(5, sizes, (len(batch), max(batch)))
                    mask = (np.arange(max(batch)) < np.array(batch)[:, None]).astype(np.int64)
                    padded.append((ids, mask))
                for ids, mask in padded:
                    call(ids, mask)
                start = time.perf_counter()
                for ids, mask in padded:
                    call(ids, mask)
                table.add((engine, precision, threads, args.batch), tokens / (time.perf_counter() - start))
                del call
                time.sleep(0.05)
            for precision in ("f32", "bf16", "int8"):
                report = badge("throughput", "--model", args.model, "--precision", precision, "--threads", threads,
                               "--batch", args.batch, "--lengths-file", args.lengths_file, "--rounds", 1)
                for row in report["rows"]:
                    table.add(("badge", precision, threads, args.batch), row["tokens_per_second"])
        print(f"round {number + 1} of {args.rounds} done", flush=True)
    return table.rows("tokens_per_second"), table.ratios(lambda mine, theirs: mine / max(theirs))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("latency", "throughput"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True, help="what the record calls the model")
    parser.add_argument("--out", required=True)
    parser.add_argument("--lengths-file", help="JSON list of the lengths of the throughput samples, in tokens")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with tempfile.TemporaryDirectory() as scratch:
        run(args, pathlib.Path(scratch), started)


def run(args, folder, started):
    vocabulary, plain, int8 = export(folder, args.model)

    def sessions(engine, precision, threads):
        return peer(engine, precision, threads, args.model, plain, int8)

    measure = latency if args.what == "latency" else throughput
    rows, ratios = measure(args, vocabulary, sessions)
    import onnxruntime
    import openvino
    import torch
    record = {
        "experiment": f"engine {args.what}", "model": args.name, "started": started,
        # Files by name: folders are of one machine.
        "configuration": {k: pathlib.Path(v).name if k == "lengths_file" and v else v
                          for k, v in vars(args).items() if k not in ("model", "out")},
        "model_sha256": hashlib.sha256((pathlib.Path(args.model) / "model.safetensors").read_bytes()).hexdigest(),
        "commit": subprocess.run(["git", "-C", str(HERE), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "machine": badge("kernels", "--peaks-only")["machine"], "system": platform.release(),
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "openvino": openvino.__version__},
        "rows": rows, "ratios": ratios,
    }
    pathlib.Path(args.out).write_text(json.dumps(record, indent=1) + "\n")
    for row in ratios:
        print(f"{row['precision']:>5} {row['threads']} threads, point {row['point']:>4}: "
              f"{row['ratio']:.2f}x ({row['lowest']:.2f} to {row['highest']:.2f})")


if __name__ == "__main__":
    main()
