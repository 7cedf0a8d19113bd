"""Makes a random ALBERT-base and BERT-base as the hub publishes them, for tests at full size.

    python reference/make_full_size.py --out DIR

writes DIR/albert-base (47 MB) and DIR/bert-base (440 MB): `config.json`, `model.safetensors` with
the pre-training heads that a fine-tuning must leave aside, and a synthetic `tokenizer.json` whose
vocabulary has the model's size. Nothing of it is meant to be committed.
"""

import argparse
import itertools
import string
from pathlib import Path

import torch
from transformers import AlbertConfig, AlbertForPreTraining, BertConfig, BertForPreTraining, logging

from wordpiece import special_tokens, write_tokenizer

ALBERT_BASE = AlbertConfig(
    vocab_size=30000,
    embedding_size=128,
    hidden_size=768,
    num_hidden_layers=12,
    num_hidden_groups=1,
    inner_group_num=1,
    num_attention_heads=12,
    intermediate_size=3072,
    hidden_act="gelu_new",
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    classifier_dropout_prob=0.1,
)
BERT_BASE = BertConfig(vocab_size=30522)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=301)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    models = {
        "albert-base": (AlbertForPreTraining, ALBERT_BASE),
        "bert-base": (BertForPreTraining, BERT_BASE),
    }
    for name, (kind, config) in models.items():
        directory = arguments.out / name
        torch.manual_seed(arguments.seed)
        model = kind(config)
        model.save_pretrained(directory)
        write_tokenizer(vocabulary(config.vocab_size), directory / "tokenizer.json")
        print(f"{directory}: {sum(value.numel() for value in model.parameters()):,} parameters")


def vocabulary(size):
    """Special tokens, characters, their continuations, then words of made-up syllables."""
    characters = [c for c in string.printable if not c.isspace() and not c.isupper()]
    tails = ["##" + c for c in string.ascii_lowercase + string.digits]
    syllables = [c + v for c in "bcdfghjklmnprstvwz" for v in ("a", "e", "i", "o", "u", "an", "er")]
    pairs = ("".join(pair) for pair in itertools.product(syllables, repeat=2))
    triples = ("".join(triple) for triple in itertools.product(syllables, repeat=3))
    tokens = itertools.chain(special_tokens(), characters, tails, syllables, pairs, triples)
    # Syllables may run together to the same word in two ways; `fromkeys` keeps the first.
    return list(itertools.islice(dict.fromkeys(itertools.islice(tokens, 2 * size)), size))


if __name__ == "__main__":
    main()
