#!/usr/bin/env python3
"""Writes the lengths in tokens of MRPC's pairs, in the corpus's order, as a JSON list.

    python mrpc_lengths.py --data DIR/MRPC --tokenizer DIR/arctic-embed-s
    python mrpc_lengths.py --data DIR/MRPC --tokenizer DIR/arctic-embed-s --split train --rows 0 \\
        --out ../training-speed/mrpc-train-lengths.json

By default of the first 64 test pairs, into mrpc-lengths.json: batches of 32 of them mix long and short
pairs as requests would. Needs transformers 5.23.0. The files are committed: benchmarks need neither
corpus nor tokeniser.
"""
import argparse
import csv
import json
import pathlib

from transformers import AutoTokenizer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=pathlib.Path, required=True)
parser.add_argument("--tokenizer", required=True)
parser.add_argument("--split", choices=("train", "dev", "test"), default="test")
parser.add_argument("--rows", type=int, default=64, help="the first so many pairs; 0 for all")
parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent / "mrpc-lengths.json")
args = parser.parse_args()
tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
with (args.data / f"{args.split}.tsv").open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:args.rows or None]
lengths = [len(tokenizer(row["sentence1"], row["sentence2"])["input_ids"]) for row in rows]
args.out.write_text(json.dumps(lengths) + "\n")
print(f"{len(lengths)} pairs, {sum(lengths) / len(lengths):.1f} tokens on average, {max(lengths)} at most")
