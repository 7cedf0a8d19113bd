"""Makes the golden files of `fixtures/methods`: every training method on tiny models.

Each model is a directory with `config.json` and `model.safetensors`; beside them lies one golden
file per method. What is computed, and under which names, stands in `fixtures/methods/README.md`;
seeds, precision and optimiser are those of `make_golden.py`. Before anything is written the
closed forms that follow from the definitions are asserted.

    python reference/make_methods_golden.py     writes fixtures/methods and prints f32's errors
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file

import methods_checks as checks
from make_golden import GRADIENT_NORM_MAX, NO_DECAY, OPTIMIZER, ROOT, WEIGHT_DECAY, write_json
from method_model import MethodModel, layout
from straight_line import ACTIVATIONS
from training_methods import (
    Alternating,
    GlobalPastFuture,
    GradientEquilibrium,
    Joint,
    LearningToExit,
    SecondStage,
    Single,
    WithLearningToExit,
)

STEPS = 3
SIZES = {
    "vocab_size": 19,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 11,
    "max_position_embeddings": 7,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "pad_token_id": 0,
    "initializer_range": 0.02,
}
FAMILIES = {
    "albert": {
        "embedding_size": 5,
        "num_hidden_groups": 1,
        "inner_group_num": 1,
        "hidden_act": "gelu_new",
        "classifier_dropout_prob": 0.0,
    },
    "bert": {"hidden_act": "gelu", "classifier_dropout": 0.0},
}

# What an f32 implementation is allowed; PyTorch's own f32 run must stay below half of it.
TOLERANCES = {
    "exit": 5e-6,
    "loss": 5e-6,
    "gradient": 1e-5,
    "step.loss": 1e-5,
    "step.gradient_norm": 2e-5,
    "after": 1e-5,
    "after.key.bias": 1.1 * STEPS * OPTIMIZER["lr"],
}

UNIFORM, LINEAR = Joint("uniform"), Joint("linear")
COINS = [[1, 1], [0, 1], [1, 0]]


@dataclass
class Model:
    """One model directory: what differs from SIZES, and the methods that train it."""

    name: str
    seed: int
    methods: dict
    blocks: int = 3
    exits: list = field(default_factory=lambda: [1, 2, 3])
    pooler: str = "shared"
    bypass: dict | None = None
    extra: dict = field(default_factory=dict)  # further keys of `early_exit`
    classes: int = 3
    activations: bool = False

    @property
    def family(self):
        return self.name.split("_")[0]

    def config(self):
        """The `config.json` of the directory."""
        problem = "regression" if self.classes == 1 else "single_label_classification"
        return {
            "model_type": self.family,
            "architectures": [f"{self.family.capitalize()}ForSequenceClassification"],
            **SIZES,
            "num_hidden_layers": self.blocks,
            **FAMILIES[self.family],
            "problem_type": problem,
            "id2label": {str(c): f"LABEL_{c}" for c in range(self.classes)},
            "label2id": {f"LABEL_{c}": c for c in range(self.classes)},
            "early_exit": {
                "version": 1,
                "exits": self.exits,
                "pooler": self.pooler,
                "bypass": self.bypass,
                "exit_dropout": 0.0,
                **self.extra,
            },
        }


def bypass(placement, activation, bias=False, layer_norm="own"):
    return {
        "rank": 3,
        "activation": activation,
        "bias": bias,
        "layer_norm": layer_norm,
        "placement": placement,
    }


PLAIN = {
    "joint_uniform": UNIFORM,
    "joint_linear": LINEAR,
    "two_stage_ce": SecondStage("ce"),
    "two_stage_kl": SecondStage("kl"),
    "two_stage_kl_temperature": SecondStage("kl", 2.5),
    "two_stage_reverse_kl": SecondStage("reverse_kl", 2.5),
    "alternating": Alternating(),
    "gradient_equilibrium": GradientEquilibrium(),
}
LOOK_BOTH_WAYS = {
    "global_past_future": GlobalPastFuture(),
    "global_past_future_freezing": GlobalPastFuture(COINS),
}
LEARN_TO_EXIT = {
    "joint_uniform": WithLearningToExit(UNIFORM),
    "alternating": WithLearningToExit(Alternating()),
    "two_stage_ce": WithLearningToExit(SecondStage("ce")),
    "head_alone": LearningToExit(),
}
JOINT = {"joint_uniform": UNIFORM}
BOTTLENECK = {"exit_head": {"kind": "mha_bottleneck", "rank": 6, "heads": 2}}
FASTBERT = {"exit_head": {"kind": "mha_fastbert", "dim": 6, "heads": 2}}
GPF, LTE = {"global_past_future": True}, {"lte": True}

MODELS = [
    Model("bert", 301, PLAIN),
    Model("albert", 302, PLAIN, blocks=4, exits=[1, 3, 4], pooler="own"),
    Model("bert_mha_bottleneck", 303, JOINT, extra=BOTTLENECK),
    Model("albert_mha_bottleneck", 304, JOINT, extra=BOTTLENECK),
    Model("bert_mha_fastbert", 305, JOINT, pooler="none", extra=FASTBERT),
    Model("albert_mha_fastbert", 306, JOINT, pooler="none", extra=FASTBERT),
    Model("bert_gpf", 307, LOOK_BOTH_WAYS, extra=GPF),
    Model("albert_gpf", 308, LOOK_BOTH_WAYS, extra=GPF),
    Model(
        "bert_bypass_block",
        309,
        JOINT | {"alternating": Alternating(), "two_stage_ce": SecondStage("ce")},
        bypass=bypass("block", "gelu"),
        activations=True,
    ),
    Model("bert_bypass_mhsa", 310, JOINT, bypass=bypass("mhsa", "tanh"), activations=True),
    Model("bert_bypass_ffn", 311, JOINT, bypass=bypass("ffn", "relu"), activations=True),
    Model("albert_bypass_block", 312, JOINT, bypass=bypass("block", "swish", bias=True)),
    Model(
        "albert_bypass_mhsa", 313, JOINT, bypass=bypass("mhsa", "leaky_relu", True, "shared")
    ),
    Model("albert_bypass_ffn", 314, JOINT, bypass=bypass("ffn", "identity", False, "shared")),
    Model("bert_lte", 315, LEARN_TO_EXIT, extra=LTE),
    Model("albert_lte", 316, LEARN_TO_EXIT, extra=LTE, classes=1),
]
# `bert` cut off after two blocks and `albert` after three, with the exit there alone.
SINGLES = {"bert": 2, "albert": 3}
BYPASS_ACTIVATIONS = ["gelu", "relu", "swish", "tanh", "identity", "leaky_relu"]
ACTIVATED = tuple(f"{activation}." for activation in BYPASS_ACTIVATIONS)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "fixtures/methods", metavar="DIR")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    checks.check_parameter_counts()
    errors = dict.fromkeys(TOLERANCES, 0.0)
    for model in MODELS:
        make_model(model, out, errors)
    print("PyTorch in f32 against the golden values, worst case (allowed)")
    for kind, tolerance in TOLERANCES.items():
        print(f"  {kind:<20} {errors[kind]:.1e} ({tolerance:.1e})")


def make_model(model, out, errors):
    generator = torch.Generator().manual_seed(model.seed)
    config = model.config()
    tensors = draw(layout(config), generator)
    batch = make_batch(model, generator)
    checks.check_model(config, doubles(tensors), doubles(batch), model.methods)
    write_model(out / model.name, config, tensors)
    for name, method in model.methods.items():
        write_method(out / model.name / f"{name}.safetensors", method, (config, tensors), batch)
        update_errors(f"{model.name} {name}", method, (config, tensors), batch, errors)
    if model.activations:
        golden = every_activation(config, doubles(tensors), doubles(batch))
        single = every_activation(config, tensors, batch)
        compare(f"{model.name} activations", golden, single, errors)
        save(dict(batch) | golden, out / model.name / "activations.safetensors")
    if model.name in SINGLES:
        make_single(model, tensors, batch, out, errors)


def make_single(model, tensors, batch, out, errors):
    """The same weights cut off after some blocks, the exit there alone."""
    depth = SINGLES[model.name]
    short = Model(f"{model.name}_single_{depth}", 0, {}, depth, [depth], model.pooler)
    config = short.config()
    cut = checks.truncated(tensors, layout(config), depth)
    checks.check_single(config, model.config(), doubles(tensors), doubles(batch), depth)
    write_model(out / short.name, config, cut)
    write_method(out / short.name / "single.safetensors", Single(), (config, cut), batch)
    update_errors(short.name, Single(), (config, cut), batch, errors)


def draw(shapes, generator):
    """Random weights: no bias is 0, no LayerNorm weight is 1."""
    tensors = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if "norm" in name.lower() and name.endswith("weight"):
            tensors[name] = 1.0 + 0.2 * noise
        elif "embeddings" in name:
            tensors[name] = 0.5 * noise
        elif name.endswith("bias"):
            tensors[name] = 0.2 * noise
        else:
            tensors[name] = noise / shape[1] ** 0.5
    return tensors


def make_batch(model, generator):
    """Four rows of lengths 6, 4, 5 and 2, the first and third of them pairs."""
    lengths, second_starts, width = [6, 4, 5, 2], [3, 4, 2, 2], 6
    input_ids = torch.zeros(len(lengths), width, dtype=torch.int64)
    token_type_ids, attention_mask = torch.zeros_like(input_ids), torch.zeros_like(input_ids)
    for row, (length, start) in enumerate(zip(lengths, second_starts)):
        tokens = torch.randint(5, SIZES["vocab_size"], (length,), generator=generator)
        input_ids[row, :length] = tokens
        token_type_ids[row, start:length] = 1
        attention_mask[row, :length] = 1
    if model.classes == 1:
        labels = torch.randn(len(lengths), generator=generator)
    else:
        labels = torch.randint(0, model.classes, (len(lengths),), generator=generator)
    return {
        "input_ids": input_ids,
        "token_type_ids": token_type_ids,
        "attention_mask": attention_mask,
        "labels": labels,
    }


def write_model(directory, config, tensors):
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", config)
    save(tensors, directory / "model.safetensors")


def write_method(path, method, model, batch):
    config, tensors = model
    golden = run(method, config, doubles(tensors), doubles(batch))
    checks.check_frozen(method, config, tensors, golden)
    save(dict(batch) | golden, path)


def save(tensors, path):
    """Numbers of classes and coins stay i64, all else is rounded to f32."""
    stored = {
        name: value.contiguous() if value.dtype == torch.int64 else value.float().contiguous()
        for name, value in tensors.items()
    }
    save_file(stored, path, metadata={"format": "pt"})


def doubles(tensors):
    return {n: v if v.dtype == torch.int64 else v.double() for n, v in tensors.items()}


def run(method, config, tensors, batch):
    """In the precision of `tensors`: all that the first step computes, then every step."""
    learned = {
        name: value.clone().requires_grad_(method.learns(config, name))
        for name, value in tensors.items()
    }
    model = MethodModel(learned, config)
    golden = first_pass(method, model, batch)
    named = [(name, value) for name, value in learned.items() if value.requires_grad]
    golden |= {f"gradient.{n}": v.grad.clone() for n, v in named if v.grad is not None}
    golden |= optimise(method, model, named, batch)
    golden |= {f"after.{name}": value.detach().clone() for name, value in named}
    return golden


def first_pass(method, model, batch):
    """Logits, terms and gradients of step 0."""
    total, terms, outputs = method.loss(model, batch, 0)
    if isinstance(method, GradientEquilibrium):
        for hidden in outputs.hidden.values():
            hidden.retain_grad()
    total.backward()
    golden = {f"exit.{m}.logits": z for m, z in outputs.logits.items()}
    golden |= {"loss": total} | terms
    golden |= {f"exit.{m}.gate": g for m, g in outputs.gates.items()}
    if model.config["early_exit"].get("lte"):
        golden |= {f"exit.{m}.uncertainty": u for m, u in model.uncertainty(outputs).items()}
    if isinstance(method, GradientEquilibrium):
        hidden = outputs.hidden.items()
        golden |= {f"block.{m}.hidden_gradient": h.grad.clone() for m, h in hidden}
    if isinstance(method, SecondStage) and method.kind != "ce":
        golden["temperature"] = torch.tensor(method.temperature)
    if isinstance(method, GlobalPastFuture) and method.coins is not None:
        golden["freeze.coins"] = torch.tensor(method.coins)
    scalar = lambda v: v.reshape(1) if v.dim() == 0 else v
    return {name: scalar(value.detach()) for name, value in golden.items()}


def optimise(method, model, named, batch):
    """AdamW steps on the same batch, the gradient clipped to norm 1 before each."""
    spared = lambda name: any(part in name for part in NO_DECAY)
    groups = [
        {"params": [p for n, p in named if not spared(n)], "weight_decay": WEIGHT_DECAY},
        {"params": [p for n, p in named if spared(n)], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups, foreach=False, **OPTIMIZER)
    golden = {}
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        total, _, _ = method.loss(model, batch, step)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in named], GRADIENT_NORM_MAX)
        optimizer.step()
        golden[f"step.{step + 1}.loss"] = total.detach().reshape(1)
        golden[f"step.{step + 1}.gradient_norm"] = norm.reshape(1)
    return golden


def every_activation(config, tensors, batch):
    """Logits and the bypasses' gradients under the uniform sum, for each activation of Table 5."""
    golden = {}
    for activation in BYPASS_ACTIVATIONS:
        assert activation in ACTIVATIONS
        early_exit = config["early_exit"]
        bent = early_exit | {"bypass": early_exit["bypass"] | {"activation": activation}}
        learned = {n: v.clone().requires_grad_(True) for n, v in tensors.items()}
        model = MethodModel(learned, config | {"early_exit": bent})
        total, _, outputs = UNIFORM.loss(model, batch, 0)
        total.backward()
        golden[f"{activation}.loss"] = total.detach().reshape(1)
        for m, logits in outputs.logits.items():
            golden[f"{activation}.exit.{m}.logits"] = logits.detach()
        for name, value in learned.items():
            if name.startswith("bypasses."):
                golden[f"{activation}.gradient.{name}"] = value.grad
    return golden


def update_errors(what, method, model, batch, errors):
    """PyTorch's own f32 run against the golden values; ill-conditioned cases end here."""
    config, tensors = model
    golden = run(method, config, doubles(tensors), doubles(batch))
    compare(what, golden, run(method, config, tensors, batch), errors)


def compare(what, golden, single, errors):
    for name, value in single.items():
        kind = kind_of(name)
        if kind is None:
            continue
        error = (value.double() - golden[name]).abs().max().item()
        if kind in ("gradient", "step.gradient_norm"):
            error /= max(1.0, golden[name].abs().max().item())
        assert error < TOLERANCES[kind] / 2, f"{what} {name} is ill-conditioned: {error:.1e}"
        errors[kind] = max(errors[kind], error)


def kind_of(name):
    """The entry of TOLERANCES for a golden tensor; None for what is given."""
    if name.startswith(ACTIVATED):
        name = name.split(".", 1)[1]
    first, last = name.split(".")[0], name.split(".")[-1]
    if first in ("temperature", "freeze"):
        return None
    if first == "step":
        return f"step.{last}"
    if last == "hidden_gradient":
        return "gradient"
    if first == "after" and name.endswith("key.bias"):
        return "after.key.bias"
    return first


if __name__ == "__main__":
    main()
