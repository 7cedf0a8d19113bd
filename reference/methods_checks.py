"""What must hold of the methods by their definitions, asserted before golden files are written.

Each check computes the same thing a second way: closed forms, brute force, another layout.
"""

import math

import torch
from torch.nn import functional

from method_model import MethodModel, bypass_layout, head_layout, layout, linear, parameters
from straight_line import StraightLine
from training_methods import (
    GlobalPastFuture,
    GradientEquilibrium,
    Joint,
    SecondStage,
    Single,
    exit_losses,
    head_loss,
)


def same(found, expected, what):
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11, msg=what)


def check_parameter_counts():
    """The paper's 26k and 98k, and FastBERT's classifier, at D = 768."""
    bypass = {"rank": 16, "bias": False, "layer_norm": "own"}
    assert parameters(bypass_layout("b", 768, bypass)) == 26_112
    bottleneck = {"kind": "mha_bottleneck", "rank": 32, "heads": 2}
    assert parameters(head_layout("h", 768, bottleneck)) == 98_304
    for n, count in ((128, 181_250), (32, 29_954)):
        head = head_layout("h", 768, {"kind": "mha_fastbert", "dim": n, "heads": 2})
        assert parameters(head | linear("c", 2, n)) == count


def check_model(config, tensors, batch, methods):
    """All that applies to a model and the methods that train it."""
    plan = config["early_exit"]
    kinds = {type(method) for method in methods.values()}
    placement = (plan["bypass"] or {}).get("placement", "block")
    if placement == "block" and not plan.get("exit_head") and not plan.get("global_past_future"):
        check_plain(config, tensors, batch)
    if plan.get("exit_head"):
        check_attention_exit(config, tensors, batch)
    if plan.get("lte"):
        check_learning_to_exit(config, tensors, batch)
    if plan["bypass"]:
        check_bypass_of_zero(config, tensors, batch)
        check_next_block_ignores_bypass(config, tensors, batch)
    if GradientEquilibrium in kinds:
        check_average(config, tensors, batch)
    if SecondStage in kinds:
        check_divergences(config, tensors, batch)
    if GlobalPastFuture in kinds:
        check_past_future(config, tensors, batch)


def check_plain(config, tensors, batch):
    """Without what the methods add the model is the one that agrees with `transformers`."""
    inputs = (batch[name] for name in ("input_ids", "token_type_ids", "attention_mask"))
    _, hidden, logits = StraightLine(tensors, config).forward(*inputs)
    outputs = MethodModel(tensors, config).forward(batch)
    for m, value in enumerate(hidden):
        same(outputs.hidden[m], value, f"block {m}")
    assert list(logits) == list(outputs.logits)
    for m, value in logits.items():
        same(outputs.logits[m], value, f"exit {m}")


def check_attention_exit(config, tensors, batch):
    """One sample and one head at a time, the padding cut away instead of masked."""
    outputs = MethodModel(tensors, config).forward(batch)
    head = config["early_exit"]["exit_head"]
    for m, rows in outputs.exit_rows.items():
        get = lambda role, part: tensors.get(f"exits.{m}.mha.{role}.{part}", torch.tensor(0.0))
        affine = lambda role, x: x @ get(role, "weight").T + get(role, "bias")
        for sample, length in enumerate(batch["attention_mask"].sum(1).tolist()):
            x = rows[sample, :length]
            if head["kind"] == "mha_fastbert":
                x = torch.tanh(affine("input", x))
            query, key, value = affine("query", x[0]), affine("key", x), affine("value", x)
            context = []
            for part in torch.arange(len(query)).chunk(head["heads"]):
                scores = key[:, part] @ query[part] / len(part) ** 0.5
                context.append(scores.softmax(0) @ value[:, part])
            features = affine("output", torch.cat(context))
            if head["kind"] == "mha_fastbert":
                features = torch.tanh(affine("dense", features))
            else:
                features = MethodModel(tensors, config).dense_pool(m, features)
            same(outputs.pooled[m][sample], features, f"exit {m}, sample {sample}")


def check_learning_to_exit(config, tensors, batch):
    """The targets are of both kinds, and the loss is the plain mean over exits and rows."""
    model = MethodModel(tensors, config)
    outputs = model.forward(batch)
    errors, targets = [], []
    for m, logits in outputs.logits.items():
        for row, answer in enumerate(logits.tolist()):
            label = batch["labels"][row].item()
            if len(answer) == 1:
                target = abs(math.tanh(answer[0] - label))
            else:
                target = 0.0 if answer.index(max(answer)) == label else 1.0
                margin = sorted(answer)[-1] - sorted(answer)[-2]
                assert margin > 0.01, "a label hangs on rounding"
            pooled = outputs.pooled[m][row] @ tensors["lte.weight"][0] + tensors["lte.bias"][0]
            errors.append((torch.sigmoid(pooled) - target) ** 2)
            targets.append(target)
    assert max(targets) - min(targets) > 0.5
    same(head_loss(model, batch, outputs), sum(errors) / len(errors), "learning to exit")


def check_bypass_of_zero(config, tensors, batch):
    """With W_up = 0 and a copied LayerNorm, H'_m = H_m."""
    model = MethodModel(dict(tensors), config)
    plan = config["early_exit"]["bypass"]
    replaced = "attention_norm" if plan["placement"] == "mhsa" else "norm"
    for m in (depth - 1 for depth in config["early_exit"]["exits"]):
        for part in ("weight", "bias"):
            up = f"bypasses.{m}.up.{part}"
            if up in tensors:
                model.tensors[up] = torch.zeros_like(tensors[up])
            if plan["layer_norm"] == "own":
                copied = tensors[f"{model.last_layer(m)[replaced]}.{part}"]
                model.tensors[f"bypasses.{m}.LayerNorm.{part}"] = copied
    outputs = model.forward(batch)
    for m, rows in outputs.exit_rows.items():
        assert torch.equal(rows, outputs.hidden[m]), f"exit {m} sees a bypass that is not there"


def check_next_block_ignores_bypass(config, tensors, batch):
    """H_m does not depend on a bypass, of whichever block; the exits do."""
    other = {n: v + 1 if n.startswith("bypasses.") else v for n, v in tensors.items()}
    one = MethodModel(tensors, config).forward(batch)
    two = MethodModel(other, config).forward(batch)
    for m, hidden in one.hidden.items():
        assert torch.equal(hidden, two.hidden[m])
    for m, logits in one.logits.items():
        assert not torch.equal(logits, two.logits[m])


def check_average(config, tensors, batch):
    """Every block's output and the embeddings get the average over the exits that they feed."""
    exits = [depth - 1 for depth in config["early_exit"]["exits"]]
    learned = {name: value.clone().requires_grad_() for name, value in tensors.items()}
    model = MethodModel(learned, config)
    total, _, rescaled = GradientEquilibrium().loss(model, batch, 0)
    own = [v for n, v in learned.items() if n.startswith(("exits.", "classifier"))]
    states = lambda outputs: [outputs.embeddings, *outputs.hidden.values()]
    found = torch.autograd.grad(total, states(rescaled) + own, retain_graph=True)

    outputs = model.forward(batch)
    losses = exit_losses(outputs, batch)
    each = {
        j: torch.autograd.grad(losses[j], states(outputs), retain_graph=True, allow_unused=True)
        for j in exits
    }
    for place in range(len(states(outputs))):
        # Place 0 is the embeddings; block k stands at k + 1 and feeds the exits after it.
        fed = [each[j][place] for j in exits if j >= place - 1]
        same(found[place], sum(fed) / len(fed), f"average at place {place}")
    joint = torch.autograd.grad(sum(losses.values()), own)
    for one, other in zip(found[len(states(outputs)) :], joint, strict=True):
        same(one, other, "an exit's own parameters")


def check_divergences(config, tensors, batch):
    """PyTorch's `kl_div` takes the student's logarithms first; a model imitates itself at 0."""
    outputs = MethodModel(tensors, config).forward(batch)
    *intermediate, deepest = outputs.logits
    teacher = outputs.logits[deepest]
    for temperature in (1.0, 2.5):
        soft = lambda z: (z / temperature).log_softmax(-1)
        forward = SecondStage("kl", temperature).losses(outputs, batch)
        backward = SecondStage("reverse_kl", temperature).losses(outputs, batch)
        for m in intermediate:
            pair = soft(outputs.logits[m]), soft(teacher)
            kl = lambda p, q: functional.kl_div(p, q, reduction="batchmean", log_target=True)
            same(forward[m], temperature**2 * kl(*pair), f"KL of exit {m}")
            same(backward[m], temperature**2 * kl(*reversed(pair)), f"reverse KL of exit {m}")
            assert not torch.allclose(forward[m], backward[m])


def check_past_future(config, tensors, batch):
    """Against stacked weights [D, 2 C] as the method's authors keep them; no future at the end."""
    exits = [depth - 1 for depth in config["early_exit"]["exits"]]
    model = MethodModel(tensors, config)
    outputs = model.forward(batch)
    deepest, classes = exits[-1], len(config["id2label"])
    assert torch.equal(outputs.future[deepest], torch.zeros_like(outputs.past[deepest]))
    expected = 2 * outputs.gates[deepest] * outputs.past[deepest]
    assert torch.equal(outputs.logits[deepest], expected)

    classifier = lambda k: "classifier" if k == deepest else f"exits.{k}.classifier"
    both = lambda k, part: torch.cat(
        [tensors[f"{name}.{part}"] for name in (classifier(k), f"gpf.gate_features.{k}")]
    )
    stacked = torch.stack([both(k, "weight").T for k in exits])  # [E, D, 2 C]
    bias = torch.stack([both(k, "bias") for k in exits])  # [E, 2 C]
    for place, m in enumerate(exits):
        states = [outputs.pooled[k] for k in exits[: place + 1]]
        states += [outputs.imitated[m, j] for j in exits[place + 1 :]]
        rows = torch.stack(states, 1).unsqueeze(2)  # [B, E, 1, D]
        projected = rows.matmul(stacked).squeeze(2) + bias  # [B, E, 2 C]
        past = projected[:, : place + 1, :classes].sum(1)
        future = projected[:, place + 1 :, :classes].sum(1)
        features = torch.tanh(projected[:, : place + 1, classes:].mean(1))
        gate = torch.sigmoid(model.linear("gpf.gate", features))
        same(outputs.logits[m], 2 * gate * past + (2 - 2 * gate) * future, f"exit {m}")
    check_only_the_current_state_learns(config, tensors, batch, exits)


def check_only_the_current_state_learns(config, tensors, batch, exits):
    """The deepest exit's loss reaches the first state only through the blocks after it."""
    outputs = MethodModel(tensors, config).forward(batch)
    states = {k: v.detach().clone().requires_grad_() for k, v in outputs.pooled.items()}
    outputs.pooled = states
    MethodModel(tensors, config).look_both_ways(outputs)
    loss = exit_losses(outputs, batch)[exits[-1]]
    *earlier, last = torch.autograd.grad(loss, list(states.values()), allow_unused=True)
    assert all(gradient is None for gradient in earlier)
    assert last.abs().max() > 0


def check_single(config, full, tensors, batch, depth):
    """A model cut off after block m learns as the whole one does from exit m's loss alone."""
    grown = {name: value.clone().requires_grad_() for name, value in tensors.items()}
    outputs = MethodModel(grown, full).forward(batch)
    exit_losses(outputs, batch)[depth - 1].backward()
    cut = truncated(tensors, layout(config), depth)
    cut = {name: value.clone().requires_grad_() for name, value in cut.items()}
    total, _, _ = Single().loss(MethodModel(cut, config), batch, 0)
    total.backward()
    gradients = {name: value.grad for name, value in grown.items()}
    for name, gradient in truncated(gradients, layout(config), depth).items():
        same(cut[name].grad, gradient, name)


def truncated(tensors, shapes, depth):
    """The tensors of a model cut off after `depth` blocks: that exit becomes the deepest."""
    exit_name = f"exits.{depth - 1}"
    renamed = {"classifier": f"{exit_name}.classifier"}
    if f"{exit_name}.pooler.weight" in tensors:
        renamed |= dict.fromkeys(("albert.pooler", "bert.pooler.dense"), f"{exit_name}.pooler")
    cut = {}
    for name in shapes:
        module, part = name.rsplit(".", 1)
        cut[name] = tensors[f"{renamed.get(module, module)}.{part}"]
    return cut


def check_frozen(method, config, tensors, golden):
    """What does not learn has neither gradient nor a value after the steps; the rest has one."""
    for name in tensors:
        learns = method.learns(config, name)
        assert learns == (f"after.{name}" in golden), name
        assert learns or f"gradient.{name}" not in golden, name
    if isinstance(method, SecondStage):
        learned = [name for name in tensors if method.learns(config, name)]
        assert learned and all(name.startswith(("exits.", "bypasses.")) for name in learned)
