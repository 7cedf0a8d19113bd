"""Checks a model directory of ours with `transformers`.

    badge predict --model DIR --policy full --logits --json texts.txt > logits.json
    python reference/check_transformers.py --model DIR --logits logits.json

Through the standard classes, which run none of the directory's code, the backbone must load with
every weight in place, and without a bypass or a missing pooler the deepest exit must give our
logits. Through `modeling_badge.py`, which lies in the directory, every exit must give them.

Exit codes: 0 all agree, 1 something does not, 2 the input cannot be used.
"""

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModel, AutoModelForSequenceClassification, logging


@dataclass
class Check:
    """One comparison: its verdict (None: left out) and the largest absolute difference, if any."""

    name: str
    passed: bool | None
    error: float | None = None
    note: str = ""


class InputError(Exception):
    """Something in the files or flags that a user has to mend."""


def main():
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        checks = run_checks(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    passed = all(check.passed is not False for check in checks)
    if arguments.json:
        # JSON has no NaN: a difference that is no number is written as null, with a note.
        rows = [asdict(check) for check in checks]
        print(json.dumps({"passed": passed, "checks": rows}, indent=2, allow_nan=False))
    else:
        for check in checks:
            verdict = {True: "ok  ", False: "FAIL", None: "-   "}[check.passed]
            error = "" if check.error is None else f"max |difference| {check.error:.2e}"
            print(f"{verdict} {check.name:<28} {error:<26} {check.note}".rstrip())
    return 0 if passed else 1


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--logits", type=Path, required=True, metavar="FILE", help="what `badge predict` wrote"
    )
    parser.add_argument(
        "--texts", type=Path, metavar="FILE", help="the texts that it should answer, for checking"
    )
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="truncation (default: the model's positions)"
    )
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    return parser.parse_args()


def run_checks(arguments):
    config = read_json(arguments.model / "config.json")
    plan = config.get("early_exit")
    if plan is None:
        raise InputError(f'{arguments.model / "config.json"} has no "early_exit"')
    texts, ours = read_predictions(arguments.logits, len(plan["exits"]))
    if arguments.texts is not None and read_texts(arguments.texts) != texts:
        raise InputError(f"{arguments.logits} answers other texts than {arguments.texts} holds")
    max_tokens = arguments.max_tokens or config["max_position_embeddings"]
    inputs = encode(arguments.model / "tokenizer.json", texts, max_tokens)
    checks = []
    if plan["bypass"] is None and plan["pooler"] != "none":
        checks += check_standard(arguments, inputs, ours)
    else:
        reason = "a bypass" if plan["bypass"] else "no pooler"
        checks.append(Check("deepest exit, standard", None, None, f"left out: it has {reason}"))
    checks += check_remote(arguments, inputs, ours, plan)
    return checks


def check_standard(arguments, inputs, ours):
    """`AutoModelForSequenceClassification` without the directory's code: the deepest exit."""
    model, report = load(AutoModelForSequenceClassification, arguments.model, remote=False)
    missing = sorted(report["missing_keys"])
    note = f"missing {missing}" if missing else ""
    checks = [Check("weights, standard", not missing, None, note)]
    found = [model(**one).logits[0] for one in inputs]
    expected = [logits[-1] for logits in ours]
    return checks + [compare("deepest exit, standard", found, expected, arguments.tolerance)]


def check_remote(arguments, inputs, ours, plan):
    """`modeling_badge.py`: every exit; and `AutoModel`: the hidden states that the exits read."""
    model, report = load(AutoModelForSequenceClassification, arguments.model, remote=True)
    wrong = {kind: sorted(map(str, names)) for kind, names in report.items() if names}
    checks = [Check("weights, modeling_badge", not wrong, None, str(wrong) if wrong else "")]
    outputs = [model(**one, output_hidden_states=True) for one in inputs]
    for index, depth in enumerate(plan["exits"]):
        found = [output.exit_logits[index][0] for output in outputs]
        expected = [logits[index] for logits in ours]
        name = f"exit {depth}, modeling_badge"
        checks.append(compare(name, found, expected, arguments.tolerance))
    backbone, report = load(AutoModel, arguments.model, remote=False)
    # A model whose exits read [CLS] itself has no pooler, and `AutoModel` draws a random one.
    missing = [n for n in report["missing_keys"] if plan["pooler"] != "none" or "pooler" not in n]
    note = f"missing {sorted(missing)}" if missing else ""
    checks.append(Check("weights, AutoModel", not missing, None, note))
    found = [backbone(**one).last_hidden_state[0] for one in inputs]
    expected = [output.hidden_states[-1][0] for output in outputs]
    return checks + [compare("hidden states, AutoModel", found, expected, arguments.tolerance)]


def load(kind, directory, remote):
    """The model in f32 for inference, and what the loader says about its weights."""
    try:
        model, report = kind.from_pretrained(
            directory, trust_remote_code=remote, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"transformers cannot load {directory}: {error}") from error
    return model.eval().requires_grad_(False), report


def compare(name, found, expected, tolerance):
    """The largest difference over all texts; one that is not a number fails."""
    worst = 0.0
    for number, (one, other) in enumerate(zip(found, expected, strict=True), 1):
        if one.shape != other.shape:
            note = f"text {number}: {list(one.shape)} here, {list(other.shape)} expected"
            return Check(name, False, None, note)
        difference = (one.double() - other.double()).abs().max().item()
        if not math.isfinite(difference):
            return Check(name, False, None, f"text {number}: not a finite number")
        worst = max(worst, difference)
    return Check(name, worst <= tolerance, worst)


def encode(path, texts, max_tokens):
    """One unpadded input per text, truncated as we truncate: the longer text first."""
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens, strategy="longest_first")
    inputs = []
    for text, pair in texts:
        encoding = tokenizer.encode(text, pair)
        ids, types = torch.tensor([encoding.ids]), torch.tensor([encoding.type_ids])
        mask = torch.ones_like(ids)
        inputs.append({"input_ids": ids, "token_type_ids": types, "attention_mask": mask})
    return inputs


def read_predictions(path, exits):
    """The texts as (text, second text or None), and for each its logits [E][C]."""
    rows = read_json(path).get("predictions")
    if not rows:
        raise InputError(f"{path} holds no predictions")
    texts, logits = [], []
    for number, row in enumerate(rows, 1):
        if "text" not in row or "exit_logits" not in row:
            raise InputError(f'{path}: prediction {number} needs "text" and "exit_logits"')
        if len(row["exit_logits"]) != exits:
            count = len(row["exit_logits"])
            raise InputError(f"{path}: prediction {number} has {count} exits, the plan {exits}")
        texts.append((row["text"], row.get("text_pair")))
        logits.append([torch.tensor(values, dtype=torch.float64) for values in row["exit_logits"]])
    return texts, logits


def read_texts(path):
    """One text per line; a TAB stands before a second text."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if lines[-1] == "":
        lines.pop()
    parts = [line.removesuffix("\r").split("\t") for line in lines]
    return [(part[0], part[1] if len(part) > 1 else None) for part in parts]


def read_json(path):
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold a JSON object")
    return value


if __name__ == "__main__":
    sys.exit(main())
