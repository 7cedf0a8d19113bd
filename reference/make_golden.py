"""Makes the golden files of `fixtures/parity`, which the Rust tests compare themselves with.

Every case is a tiny random model with odd, all-different sizes, whose biases and LayerNorm weights
are random too, so that neither a transposition nor a forgotten term can pass. The model computes in
f64 from weights that are exact in f32, and the results are rounded to f32: what is stored is right
to the last bit of f32. `README.md` describes the tensors and the tolerances.

    python reference/make_golden.py            writes fixtures/parity and prints f32's errors
"""

import argparse
import importlib.util
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    logging,
)

from straight_line import StraightLine

ROOT = Path(__file__).resolve().parent.parent
MODELING = ROOT / "crates/badge-core/src/checkpoint/modeling_badge.py"

SIZES = {
    "vocab_size": 99,
    "hidden_size": 24,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "pad_token_id": 0,
    "initializer_range": 0.02,
}
REMOTE_CLASS = "modeling_badge.BadgeForSequenceClassification"
AUTO_MAP = {"AutoModelForSequenceClassification": REMOTE_CLASS}

STEPS = 5
OPTIMIZER = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}
WEIGHT_DECAY = 0.01
GRADIENT_NORM_MAX = 1.0
NO_DECAY = ("bias", "LayerNorm.weight")

# What an f32 implementation is allowed, by kind of quantity; `README.md` gives the reasons.
# PyTorch's own f32 run must stay below half of it, else a case is ill-conditioned: change its seed.
TOLERANCES = {
    "embeddings": 2e-6,
    "block": 1e-5,
    "exit": 5e-6,
    "long": 5e-6,
    "loss": 5e-6,
    "gradient": 1e-5,
    "step.loss": 1e-5,
    "step.gradient_norm": 2e-5,
    "after": 1e-5,
    "after.key.bias": 1.1 * STEPS * OPTIMIZER["lr"],
}


@dataclass
class Case:
    """One model: what differs from SIZES, its exits, and how it is trained."""

    name: str
    family: str
    seed: int
    overrides: dict
    exits: list
    pooler: str = "shared"
    bypass: dict | None = None
    problem: str = "single_label_classification"
    classes: int = 5
    loss_weights: str = "uniform"
    source_layout: str | None = None

    def config(self):
        """The `config.json` of the directory."""
        standard = f"{self.family.capitalize()}ForSequenceClassification"
        dropout = "classifier_dropout_prob" if self.family == "albert" else "classifier_dropout"
        return {
            "model_type": self.family,
            "architectures": [standard],
            "auto_map": AUTO_MAP,
            **SIZES,
            dropout: 0.0,
            **self.overrides,
            "problem_type": self.problem,
            "id2label": {str(c): f"LABEL_{c}" for c in range(self.classes)},
            "label2id": {f"LABEL_{c}": c for c in range(self.classes)},
            "early_exit": {
                "version": 1,
                "exits": self.exits,
                "pooler": self.pooler,
                "bypass": self.bypass,
                "exit_dropout": 0.0,
            },
        }


def bypass(rank, activation, bias, layer_norm):
    return {"rank": rank, "activation": activation, "bias": bias, "layer_norm": layer_norm}


CASES = [
    Case(
        name="albert",
        family="albert",
        seed=101,
        overrides={
            "embedding_size": 11,
            "num_hidden_layers": 5,
            "num_hidden_groups": 1,
            "inner_group_num": 1,
            "hidden_act": "gelu_new",
        },
        exits=[1, 2, 3, 4, 5],
    ),
    Case(
        name="albert_groups",
        family="albert",
        seed=102,
        overrides={
            "embedding_size": 11,
            "num_hidden_layers": 4,
            "num_hidden_groups": 2,
            "inner_group_num": 2,
            "hidden_act": "gelu_new",
        },
        exits=[1, 2, 3, 4],
        bypass=bypass(9, "tanh", True, "shared"),
        problem="regression",
        classes=1,
    ),
    Case(
        name="bert_gelu",
        family="bert",
        seed=203,
        overrides={"num_hidden_layers": 3, "hidden_act": "gelu"},
        exits=[1, 2, 3],
        bypass=bypass(9, "gelu", False, "own"),
        loss_weights="linear",
    ),
    Case(
        name="bert_relu",
        family="bert",
        seed=104,
        overrides={"num_hidden_layers": 2, "hidden_act": "relu"},
        exits=[1, 2],
        pooler="none",
        problem="multi_label_classification",
    ),
    Case(
        name="elasticbert",
        family="bert",
        seed=105,
        overrides={"num_hidden_layers": 4, "hidden_act": "gelu"},
        exits=[1, 3, 4],
        pooler="own",
        source_layout="elasticbert",
    ),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "fixtures/parity", metavar="DIR")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    modeling = load_modeling()
    for case in CASES:
        directory = out / case.name
        directory.mkdir(parents=True, exist_ok=True)
        tensors, golden = make_case(modeling, case, directory)
        errors = f32_errors(modeling, case, tensors, golden)
        check_standard_class(case, directory, golden)
        check_round_trip(directory, golden)
        check_errors(case, errors)


def load_modeling():
    """The module `modeling_badge`, from the file that model directories get a copy of."""
    spec = importlib.util.spec_from_file_location("modeling_badge", MODELING)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_case(modeling, case, directory):
    """Writes one case; returns the initial weights and the golden tensors in f64."""
    generator = torch.Generator().manual_seed(case.seed)
    model = build(modeling, case)
    randomise(model, generator)
    tensors = {name: value.clone().contiguous() for name, value in model.state_dict().items()}
    write_json(directory / "config.json", case.config())
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    if case.source_layout == "elasticbert":
        write_elasticbert_source(case, tensors, directory / "source", generator)
    batch, long_ids = make_batch(case, generator)
    golden = run(build(modeling, case, tensors).double(), case, batch, long_ids)
    check_straight_line(tensors, case, batch, long_ids, golden)
    # The labels keep their kind: class numbers are i64, targets are f32.
    stored = {
        name: value.contiguous() if value.dtype == torch.int64 else value.float().contiguous()
        for name, value in golden.items()
    }
    save_file(stored, directory / "golden.safetensors", metadata={"format": "pt"})
    return tensors, golden


def build(modeling, case, tensors=None):
    """The model of a case, with these weights where some are given."""
    configuration = {"albert": AlbertConfig, "bert": BertConfig}[case.family]
    config = configuration.from_dict(case.config())
    model = modeling.BadgeForSequenceClassification(config)
    if tensors is not None:
        model.load_state_dict(tensors)
    return model.train()


@torch.no_grad()
def randomise(model, generator):
    """Draws every parameter anew: no bias is 0, no LayerNorm weight is 1, no W_up is 0."""
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if "norm" in name.lower() and name.endswith("weight"):
            value.copy_(1.0 + 0.2 * noise)
        elif "embeddings" in name:
            value.copy_(0.5 * noise)
        elif name.endswith("bias"):
            value.copy_(0.2 * noise)
        else:
            value.copy_(noise / value.shape[1] ** 0.5)


def make_batch(case, generator):
    """Three rows of lengths 7, 5 and 3, the first two of them pairs; and one of 512 tokens."""
    # Token 0 is padding: its embedding gets no gradient in `transformers`, so no text holds it.
    draw = lambda *shape: torch.randint(5, SIZES["vocab_size"], shape, generator=generator)
    lengths, second_starts, width = [7, 5, 3], [4, 3, 3], 7
    input_ids = torch.zeros(3, width, dtype=torch.int64)
    token_type_ids, attention_mask = torch.zeros_like(input_ids), torch.zeros_like(input_ids)
    for row, (length, start) in enumerate(zip(lengths, second_starts)):
        input_ids[row, :length] = draw(length)
        token_type_ids[row, start:length] = 1
        attention_mask[row, :length] = 1
    if case.problem == "regression":
        labels = torch.randn(3, generator=generator)
    elif case.problem == "multi_label_classification":
        labels = torch.randint(0, 2, (3, case.classes), generator=generator).float()
    else:
        labels = torch.randint(0, case.classes, (3,), generator=generator)
    batch = {
        "input_ids": input_ids,
        "token_type_ids": token_type_ids,
        "attention_mask": attention_mask,
        "labels": labels,
    }
    return batch, draw(1, 512)


def run(model, case, batch, long_ids):
    """The ladder, in the model's precision: embeddings to the loss, gradients, five steps."""
    blocks = [depth - 1 for depth in case.exits]
    golden = dict(batch)
    golden["long.input_ids"] = long_ids
    with torch.no_grad():
        long_logits = model(long_ids).exit_logits
    golden |= {f"long.exit.{m}.logits": value for m, value in zip(blocks, long_logits)}

    call = {**batch, "loss_weights": case.loss_weights}
    output = model(**call, output_hidden_states=True)
    output.loss.backward()
    golden["embeddings"] = output.hidden_states[0]
    for m, hidden in enumerate(output.hidden_states[1:]):
        golden[f"block.{m}.hidden"] = hidden
    golden |= {f"exit.{m}.logits": value for m, value in zip(blocks, output.exit_logits)}
    golden["loss"] = output.loss.reshape(1)
    golden["loss_weights"] = loss_weights(case)
    for name, value in model.named_parameters():
        if value.grad is not None:
            golden[f"gradient.{name}"] = value.grad.clone()
    golden |= steps(model, call)
    return {name: value.detach() for name, value in golden.items()}


def loss_weights(case):
    """The factor of each exit's loss, in plan order."""
    count = len(case.exits)
    if case.loss_weights == "uniform":
        return torch.ones(count)
    return torch.arange(1, count + 1) * 2 / (count * (count + 1))


def steps(model, call):
    """Five AdamW steps on the same batch, the gradient clipped to norm 1 before each."""
    named = list(model.named_parameters())
    spared = lambda name: any(part in name for part in NO_DECAY)
    groups = [
        {"params": [p for n, p in named if not spared(n)], "weight_decay": WEIGHT_DECAY},
        {"params": [p for n, p in named if spared(n)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, foreach=False, **OPTIMIZER)
    golden = {}
    for k in range(1, STEPS + 1):
        optimizer.zero_grad(set_to_none=True)
        loss = model(**call).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM_MAX)
        optimizer.step()
        golden[f"step.{k}.loss"] = loss.detach().reshape(1)
        golden[f"step.{k}.gradient_norm"] = norm.reshape(1)
    return golden | {f"after.{name}": value.detach().clone() for name, value in named}


def write_elasticbert_source(case, tensors, directory, generator):
    """The same backbone as ElasticBERT publishes it: own prefix, a pooler for every layer."""
    poolers = {
        f"bert.pooler.dense.{part}": case.exits[-1] - 1 for part in ("weight", "bias")
    } | {
        f"exits.{depth - 1}.pooler.{part}": depth - 1
        for depth in case.exits[:-1]
        for part in ("weight", "bias")
    }
    source = {}
    for name, value in tensors.items():
        if name in poolers:
            part = name.rsplit(".", 1)[1]
            source[f"elasticbert.encoder.pooler.{poolers[name]}.dense.{part}"] = value.clone()
        elif name.startswith("bert."):
            source["elastic" + name] = value.clone()
    for m in range(case.overrides["num_hidden_layers"]):
        for part, shape in (("weight", (24, 24)), ("bias", (24,))):
            name = f"elasticbert.encoder.pooler.{m}.dense.{part}"
            if name not in source:
                source[name] = 0.2 * torch.randn(shape, generator=generator)
    depth = case.overrides["num_hidden_layers"]
    config = {
        "model_type": "elasticbert",
        "architectures": ["ElasticBertForPreTraining"],
        **SIZES,
        **case.overrides,
        "max_output_layers": depth,
        "num_output_layers": depth,
    }
    directory.mkdir(exist_ok=True)
    write_json(directory / "config.json", config)
    save_file(source, directory / "model.safetensors", metadata={"format": "pt"})


def check_straight_line(tensors, case, batch, long_ids, golden):
    """`modeling_badge.py` agrees with an independent computation to f64's precision."""
    doubles = {name: value.double() for name, value in tensors.items()}
    plain = StraightLine(doubles, case.config())
    ones, zeros = torch.ones_like(long_ids), torch.zeros_like(long_ids)
    embeddings, blocks, logits = plain.forward(
        batch["input_ids"], batch["token_type_ids"], batch["attention_mask"]
    )
    expected = {"embeddings": embeddings}
    expected |= {f"block.{m}.hidden": hidden for m, hidden in enumerate(blocks)}
    expected |= {f"exit.{m}.logits": value for m, value in logits.items()}
    _, _, logits = plain.forward(long_ids, zeros, ones)
    expected |= {f"long.exit.{m}.logits": value for m, value in logits.items()}
    for name, value in expected.items():
        torch.testing.assert_close(golden[name], value, rtol=1e-11, atol=1e-11, msg=name)


def check_standard_class(case, directory, golden):
    """Without a bypass, the standard class gives the deepest exit's logits."""
    if case.bypass or case.pooler == "none":
        return
    kinds = {"albert": AlbertForSequenceClassification, "bert": BertForSequenceClassification}
    model = kinds[case.family].from_pretrained(directory).double().eval()
    inputs = {name: golden[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    depth = case.exits[-1]
    same = lambda found, name: torch.testing.assert_close(found, golden[name], msg=name)
    same(output.logits, f"exit.{depth - 1}.logits")
    same(output.hidden_states[-1], f"block.{depth - 1}.hidden")


def check_round_trip(directory, golden):
    """The directory loads with remote code, every name in place, and gives every exit's logits."""
    with tempfile.TemporaryDirectory(prefix="badge_") as name:
        copy = Path(name) / "model"
        shutil.copytree(directory, copy)
        shutil.copy(MODELING, copy)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            copy, trust_remote_code=True, output_loading_info=True
        )
    wrong = {kind: names for kind, names in report.items() if names}
    assert not wrong, f"{directory.name}: {wrong}"
    inputs = {name: golden[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    with torch.no_grad():
        found = model.double().eval()(**inputs).exit_logits
    expected = [value for name, value in golden.items() if name.startswith("exit.")]
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other)


def f32_errors(modeling, case, tensors, golden):
    """The largest deviation of PyTorch's own f32 run from the golden values, by kind."""
    batch = {name: golden[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    labels = golden["labels"]
    batch["labels"] = labels if labels.dtype == torch.int64 else labels.float()
    single = run(build(modeling, case, tensors), case, batch, golden["long.input_ids"])
    errors = {}
    for name, value in single.items():
        kind = kind_of(name)
        if kind is None:
            continue
        error = (value.double() - golden[name]).abs().max().item()
        if kind in ("gradient", "step.gradient_norm"):
            error /= max(1.0, golden[name].abs().max().item())
        errors[kind] = max(errors.get(kind, 0.0), error)
    return errors


def kind_of(name):
    """The entry of TOLERANCES for a golden tensor; None for an input."""
    first, last = name.split(".")[0], name.split(".")[-1]
    if name == "long.input_ids" or first in ("input_ids", "token_type_ids", "attention_mask"):
        return None
    if first in ("labels", "loss_weights"):
        return None
    if first == "step":
        return f"step.{last}"
    if first == "after" and name.endswith("key.bias"):
        return "after.key.bias"
    return first


def check_errors(case, errors):
    print(f"{case.name}: PyTorch in f32 against the golden values (allowed)")
    for kind, tolerance in TOLERANCES.items():
        print(f"  {kind:<20} {errors[kind]:.1e} ({tolerance:.1e})")
        assert errors[kind] < tolerance / 2, f"{case.name}: {kind} is ill-conditioned"


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
