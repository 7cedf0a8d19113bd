#!/usr/bin/env python3
"""Writes mrpc-lengths.json: the lengths in tokens of the first 64 MRPC test pairs.

    python mrpc_lengths.py --data DIR/MRPC --tokenizer DIR/arctic-embed-s

The order is the corpus's own, so batches of 32 mix long and short pairs as requests would. Needs
transformers 5.23.0. The file is committed: benchmarks need neither corpus nor tokeniser.
"""
import argparse
import csv
import json
import pathlib

from transformers import AutoTokenizer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=pathlib.Path, required=True)
parser.add_argument("--tokenizer", required=True)
args = parser.parse_args()
tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
with (args.data / "test.tsv").open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:64]
lengths = [len(tokenizer(row["sentence1"], row["sentence2"])["input_ids"]) for row in rows]
target = pathlib.Path(__file__).resolve().parent / "mrpc-lengths.json"
target.write_text(json.dumps(lengths) + "\n")
print(f"{len(lengths)} pairs, {sum(lengths) / len(lengths):.1f} tokens on average, {max(lengths)} at most")
