#!/usr/bin/env python3
"""Writes a full-size multi-exit model with random weights, for speed alone.

    python make_model.py --shape albert-base --out runs/albert-base
    python make_model.py --shape 12x384 --out runs/12x384

A Hugging Face directory that BADGE, `transformers`, ONNX Runtime and OpenVINO load: the backbone and
the deepest exit under the usual names, twelve exits with bypasses of rank 16 beside them. It has no
tokeniser, as benchmarks make their own ids, unless --tokenizer names a directory to take one from, which
then decides how many words are embedded. Needs torch 2.15.0, transformers 5.23.0, safetensors 0.8.0.
"""
import argparse
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file
from transformers import (AlbertConfig, AlbertForSequenceClassification, BertConfig, BertForSequenceClassification)

SHAPES = {
    "albert-base": (AlbertForSequenceClassification, AlbertConfig(
        hidden_size=768, embedding_size=128, num_attention_heads=12, intermediate_size=3072, hidden_act="gelu_new")),
    "bert-base": (BertForSequenceClassification, BertConfig()),
    "12x384": (BertForSequenceClassification, BertConfig(
        hidden_size=384, num_attention_heads=12, intermediate_size=1536)),
}
RANK = 16


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", type=pathlib.Path, help="directory with tokenizer.json")
    args = parser.parse_args()
    torch.manual_seed(2023)
    kind, config = SHAPES[args.shape]
    if args.tokenizer:
        config.vocab_size = json.loads((args.tokenizer / "config.json").read_text())["vocab_size"]
    kind(config).save_pretrained(args.out, safe_serialization=True)
    weights = args.out / "model.safetensors"
    tensors = load_file(weights)
    blocks, hidden = config.num_hidden_layers, config.hidden_size
    for block in range(blocks):
        if block + 1 < blocks:
            tensors[f"exits.{block}.classifier.weight"] = torch.randn(2, hidden) * 0.02
            tensors[f"exits.{block}.classifier.bias"] = torch.zeros(2)
        tensors[f"bypasses.{block}.down.weight"] = torch.randn(RANK, hidden) * 0.02
        tensors[f"bypasses.{block}.up.weight"] = torch.randn(hidden, RANK) * 0.02
        tensors[f"bypasses.{block}.LayerNorm.weight"] = torch.ones(hidden)
        tensors[f"bypasses.{block}.LayerNorm.bias"] = torch.zeros(hidden)
    save_file(tensors, weights, metadata={"format": "pt"})
    if args.tokenizer:
        shutil.copy(args.tokenizer / "tokenizer.json", args.out)
    description = json.loads((args.out / "config.json").read_text())
    description["early_exit"] = {
        "version": 1, "exits": list(range(1, blocks + 1)), "pooler": "shared",
        "bypass": {"rank": RANK, "activation": "gelu"},
    }
    (args.out / "config.json").write_text(json.dumps(description, indent=2) + "\n")


if __name__ == "__main__":
    main()
