"""Makes `fixtures/formats` and `fixtures/tokenizer`: the same things written in different ways.

`fixtures/formats` holds one tiny BERT, its weights exact in f16, in five layouts that are met in
the wild; `expected.safetensors` says what each of them must compute. `fixtures/tokenizer` holds a
tiny WordPiece tokenizer, and what the `tokenizers` library makes of pairs that are too long.

    python reference/make_formats.py
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModel, BertConfig, BertForPreTraining, logging

from wordpiece import special_tokens, write_tokenizer

ROOT = Path(__file__).resolve().parent.parent
SIZES = {
    "vocab_size": 31,
    "hidden_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 13,
    "hidden_act": "gelu",
    "max_position_embeddings": 17,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "pad_token_id": 0,
}

TEXTS = [
    ("the cat sat", "a dog ran"),
    ("the cat sat on the red mat", "a dog ran"),
    ("the cat", "a dog ran over the old stone bridge"),
    ("the cat sat on the mat and the dog sat on the cat", "the dog ran and the cat ran"),
    ("the dog ran and the cat ran", "the cat sat on the mat and the dog sat on the cat"),
    ("one two three four five six", "six five four three two one"),
    ("one two three four five", "six five four three two one"),
    ("one two three four five six", "five four three two one"),
    ("", "the cat sat on the mat and the dog sat on the cat"),
    ("the cat sat on the mat and the dog sat on the cat", ""),
    ("", ""),
    ("the cat", None),
    ("the cat sat on the mat and the dog sat on the cat and ran", None),
    ("", None),
    ("   \t the   cat \n ", "  a\u00a0dog  "),
    ("The CAT Sat.", "A DOG; ran!"),
    ("caf\u00e9 na\u00efve", "r\u00e9sum\u00e9"),
    ("cafe\u0301", "caf\u00e9"),
    ("\u732b sat on \u57ab\u5b50", "dog \u8dd1"),
    ("\U0001f63a the cat", "dog \U0001f436\U0001f436"),
    ("unbelievable catdog", "dogcat ratatouille"),
    ("it's a cat's mat, isn't it?", "(yes) - no: no!"),
    ("12 cats, 345 dogs", "6789"),
    ("\u00dfstra\u00dfe", "\u0130stanbul"),
    ("a" * 120, "b"),
    ("a b c d e f g h i j k l m n o p", "q r s t u v w x y z"),
    ("zero\u200bwidth", "soft\u00adhyphen"),
    ("null\u0000byte", "bell\u0007"),
    ("[CLS] the cat [SEP]", "[MASK] dog"),
    ("\u0645\u0631\u062d\u0628\u0627 cat", "\u041a\u043e\u0448\u043a\u0430 dog"),
    ("cat", "cat cat cat cat cat cat cat cat cat cat cat cat cat cat cat cat"),
    ("dog dog dog dog dog dog dog dog dog dog dog dog dog dog dog", "dog"),
]
WORDS = (
    "the a on and over it is cat dog mat sat ran red old stone bridge one two three four five six "
    "seven eight nine ten yes no ##s ##at ##og ##dog ##cat ##able"
).split()
MAX_TOKENS = (8, 12, 16)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "fixtures", metavar="DIR")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    make_formats(out / "formats")
    make_tokenizer(out / "tokenizer")


def make_formats(out):
    tensors = draw_weights()
    layouts = {
        "no_prefix": write_no_prefix,
        "gamma_beta": write_gamma_beta,
        "sharded": write_sharded,
        "pytorch_bin": write_pytorch_bin,
        "half": write_half,
    }
    expected = write_expected(tensors, out)
    for name, write in layouts.items():
        directory = out / name
        directory.mkdir(parents=True, exist_ok=True)
        config = {"model_type": "bert", "architectures": ["BertForPreTraining"], **SIZES}
        if name == "half":
            config["dtype"] = config["torch_dtype"] = "float16"
        write_json(directory / "config.json", config)
        write(tensors, directory)
        check(directory, expected)


def draw_weights():
    """A random pre-training BERT, every number of which f16 holds exactly."""
    model = BertForPreTraining(BertConfig(**SIZES))
    generator = torch.Generator().manual_seed(201)
    tensors = {}
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        scale = 1.0 + 0.2 * noise if name.endswith("LayerNorm.weight") else 0.4 * noise
        tensors[name] = scale.half().float()
    return tensors


def write_no_prefix(tensors, directory):
    """A bare encoder: no `bert.` in front, no pre-training heads."""
    bare = {n.removeprefix("bert."): v for n, v in tensors.items() if n.startswith("bert.")}
    save_file(bare, directory / "model.safetensors", metadata={"format": "pt"})


def write_gamma_beta(tensors, directory):
    """As converted from TensorFlow: other LayerNorm names, heads, and a stored buffer."""
    old = {}
    for name, value in tensors.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        old[name.replace("LayerNorm.bias", "LayerNorm.beta")] = value
    old["bert.embeddings.position_ids"] = position_ids()
    save_file(old, directory / "model.safetensors", metadata={"format": "pt"})


def write_sharded(tensors, directory):
    """Two files and an index that says which tensor is in which."""
    names = sorted(tensors)
    shards = {
        "model-00001-of-00002.safetensors": names[: len(names) // 2],
        "model-00002-of-00002.safetensors": names[len(names) // 2 :],
    }
    for file, held in shards.items():
        part = {name: tensors[name] for name in held}
        save_file(part, directory / file, metadata={"format": "pt"})
    total = sum(value.numel() * value.element_size() for value in tensors.values())
    index = {
        "metadata": {"total_size": total},
        "weight_map": {name: file for file, held in shards.items() for name in held},
    }
    write_json(directory / "model.safetensors.index.json", index)


def write_pytorch_bin(tensors, directory):
    """A pickled state dict, with the buffer that older releases stored."""
    state = {**tensors, "bert.embeddings.position_ids": position_ids()}
    torch.save(state, directory / "pytorch_model.bin")


def write_half(tensors, directory):
    half = {name: value.half() for name, value in tensors.items()}
    save_file(half, directory / "model.safetensors", metadata={"format": "pt"})


def position_ids():
    return torch.arange(SIZES["max_position_embeddings"])[None]


def write_expected(tensors, out):
    """The input, and the last block's output [B, T, D] and the pooled [CLS] [B, D], from f64."""
    model = BertForPreTraining(BertConfig(**SIZES))
    model.load_state_dict(tensors, strict=False)
    generator = torch.Generator().manual_seed(202)
    input_ids = torch.randint(1, SIZES["vocab_size"], (2, 5), generator=generator)
    input_ids[1, 3:] = 0
    inputs = {
        "input_ids": input_ids,
        "token_type_ids": torch.tensor([[0, 0, 0, 1, 1], [0, 0, 1, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    }
    with torch.no_grad():
        output = model.bert.double().eval()(**inputs)
    expected = {"last_hidden": output.last_hidden_state, "pooled": output.pooler_output}
    stored = inputs | {name: value.float() for name, value in expected.items()}
    out.mkdir(parents=True, exist_ok=True)
    save_file(stored, out / "expected.safetensors", metadata={"format": "pt"})
    return inputs, expected


def check(directory, expected):
    """`transformers` reads the same model out of the directory."""
    inputs, outputs = expected
    model = AutoModel.from_pretrained(directory, dtype=torch.float64).eval()
    with torch.no_grad():
        found = model(**inputs)
    torch.testing.assert_close(found.last_hidden_state, outputs["last_hidden"])
    torch.testing.assert_close(found.pooler_output, outputs["pooled"])


def make_tokenizer(out):
    out.mkdir(parents=True, exist_ok=True)
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tails = ["##" + letter for letter in letters]
    marks = list(".,;:!?'()-")
    # "a" is a word and a letter; it has one number.
    vocabulary = list(dict.fromkeys(special_tokens() + WORDS + letters + tails + marks))
    path = out / "tokenizer.json"
    write_tokenizer(vocabulary, path)
    rows = []
    for max_tokens in MAX_TOKENS:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.enable_truncation(max_tokens, strategy="longest_first")
        for text, pair in TEXTS:
            encoding = tokenizer.encode(text, pair)
            assert len(encoding.ids) <= max_tokens
            rows.append(
                {
                    "text": text,
                    "text_pair": pair,
                    "max_tokens": max_tokens,
                    "ids": encoding.ids,
                    "type_ids": encoding.type_ids,
                }
            )
    # One row per line keeps the file readable and its differences small.
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=True) for row in rows)
    (out / "encodings.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
