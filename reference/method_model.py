"""The multi-exit encoder with all that a training method may add to it, as plain functions.

Beside the plain exits of `StraightLine`: bypasses in three placements, two exits with attention,
global past-future and the learning-to-exit head. `fixtures/methods/README.md` gives the formulas
and the names of the tensors; `layout` here lists them once more.

Letters: B samples, T tokens, D hidden, C labels, E exits, r rank.
"""

from dataclasses import dataclass, field

import torch

from straight_line import ACTIVATIONS, ALBERT_LAYER, BERT_LAYER, StraightLine, attention


def layout(config):
    """The shape of every tensor of a model directory, by name."""
    d, plan = config["hidden_size"], config["early_exit"]
    shapes = backbone_layout(config)
    head, deepest = plan.get("exit_head"), config["num_hidden_layers"] - 1
    pooler = "albert.pooler" if config["model_type"] == "albert" else "bert.pooler.dense"
    if plan["pooler"] != "none":
        shapes |= linear(pooler, d, d)
    width = head["dim"] if head and head["kind"] == "mha_fastbert" else d
    for m in (depth - 1 for depth in plan["exits"]):
        if plan["pooler"] == "own" and m != deepest:
            shapes |= linear(f"exits.{m}.pooler", d, d)
        classifier = "classifier" if m == deepest else f"exits.{m}.classifier"
        shapes |= linear(classifier, labels(config), width)
        shapes |= head_layout(f"exits.{m}.mha", d, head)
        shapes |= bypass_layout(f"bypasses.{m}", d, plan["bypass"])
    if plan.get("global_past_future"):
        shapes |= past_future_layout(d, labels(config), [depth - 1 for depth in plan["exits"]])
    if plan.get("lte"):
        shapes |= linear("lte", 1, width)
    return shapes


def backbone_layout(config):
    d, f = config["hidden_size"], config["intermediate_size"]
    family = config["model_type"]
    e = config["embedding_size"] if family == "albert" else d
    tables = {
        "word": config["vocab_size"],
        "position": config["max_position_embeddings"],
        "token_type": config["type_vocab_size"],
    }
    stem = f"{family}.embeddings"
    shapes = {f"{stem}.{kind}_embeddings.weight": (rows, e) for kind, rows in tables.items()}
    shapes |= norm(f"{stem}.LayerNorm", e)
    if family == "albert":
        shapes |= linear("albert.encoder.embedding_hidden_mapping_in", d, e)
        roles, stem = ALBERT_LAYER, "albert.encoder.albert_layer_groups"
        prefixes = [
            f"{stem}.{group}.albert_layers.{inner}"
            for group in range(config["num_hidden_groups"])
            for inner in range(config["inner_group_num"])
        ]
    else:
        roles = BERT_LAYER
        prefixes = [f"bert.encoder.layer.{m}" for m in range(config["num_hidden_layers"])]
    for prefix in prefixes:
        for role in ("query", "key", "value", "dense"):
            shapes |= linear(f"{prefix}.{roles[role]}", d, d)
        shapes |= linear(f"{prefix}.{roles['widen']}", f, d)
        shapes |= linear(f"{prefix}.{roles['narrow']}", d, f)
        shapes |= norm(f"{prefix}.{roles['attention_norm']}", d)
        shapes |= norm(f"{prefix}.{roles['norm']}", d)
    return shapes


def bypass_layout(name, d, bypass):
    if bypass is None:
        return {}
    r = bypass["rank"]
    shapes = linear(f"{name}.down", r, d, bypass["bias"])
    shapes |= linear(f"{name}.up", d, r, bypass["bias"])
    return shapes | (norm(f"{name}.LayerNorm", d) if bypass["layer_norm"] == "own" else {})


def head_layout(name, d, head):
    if head is None:
        return {}
    if head["kind"] == "mha_bottleneck":
        shapes = {f"{name}.{role}.weight": (head["rank"], d) for role in ("query", "key", "value")}
        return shapes | linear(f"{name}.output", d, head["rank"], bias=False)
    n = head["dim"]
    shapes = linear(f"{name}.input", n, d)
    for role in ("query", "key", "value", "output", "dense"):
        shapes |= linear(f"{name}.{role}", n, n)
    return shapes


def past_future_layout(d, c, exits):
    shapes = linear("gpf.gate", c, c)
    for m in exits:
        shapes |= linear(f"gpf.gate_features.{m}", c, d)
    for m in exits[1:]:
        shapes |= linear(f"gpf.future.{m}", d, d)
    return shapes


def linear(name, outputs, inputs, bias=True):
    shapes = {f"{name}.weight": (outputs, inputs)}
    return shapes | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name, size):
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def labels(config):
    return len(config["id2label"])


def parameters(shapes):
    """How many numbers tensors of these shapes hold."""
    return sum(torch.Size(shape).numel() for shape in shapes.values())


@dataclass
class Block:
    """What one block computes on the way: all [B, T, D]."""

    input: torch.Tensor
    last_layer_input: torch.Tensor
    attention_sum: torch.Tensor
    attended: torch.Tensor
    feed_forward_sum: torch.Tensor
    hidden: torch.Tensor


@dataclass
class Outputs:
    """What a forward pass leaves; dictionaries are by block m, from 0."""

    embeddings: torch.Tensor = None
    hidden: dict = field(default_factory=dict)
    exit_rows: dict = field(default_factory=dict)  # what an exit reads, [B, T, D]
    pooled: dict = field(default_factory=dict)  # what its classifier reads, [B, D or n]
    logits: dict = field(default_factory=dict)
    gates: dict = field(default_factory=dict)  # g of global past-future, [B, C]
    past: dict = field(default_factory=dict)
    future: dict = field(default_factory=dict)
    imitated: dict = field(default_factory=dict)  # by (m, j): chat_{m,j}, [B, D]


def straight_on(block, hidden):
    """The junction of most methods: the exit and the next block read what block m wrote."""
    return hidden, hidden


class MethodModel(StraightLine):
    """One checkpoint: its tensors by name, and the contents of its `config.json`."""

    def forward(self, batch, junction=straight_on):
        """Every exit's logits. `junction(m, H_m)` gives what exit m and what block m + 1 read."""
        plan, mask = self.config["early_exit"], batch["attention_mask"]
        outputs = Outputs()
        x = outputs.embeddings = self.embed(batch["input_ids"], batch["token_type_ids"])
        for m in range(self.config["num_hidden_layers"]):
            block = self.block(m, x, mask)
            outputs.hidden[m] = x = block.hidden
            if m + 1 not in plan["exits"]:
                continue
            rows, x = junction(m, block.hidden)
            if plan["bypass"]:
                assert rows is block.hidden, "a junction has no meaning for a bypass"
                rows = self.bypassed(m, block)
            outputs.exit_rows[m] = rows
            outputs.pooled[m] = self.pool(m, rows, mask)
            if not plan.get("global_past_future"):
                outputs.logits[m] = self.classify(m, outputs.pooled[m])
        if plan.get("global_past_future"):
            self.look_both_ways(outputs)
        return outputs

    def block(self, m, x, mask):
        block_input, layers = x, self.layers(m)
        for prefix, names in layers[:-1]:
            x, _ = self.layer(prefix, names, x, mask)
        name = self.last_layer(m)
        attention_sum = self.attention_sum(name, x, mask)
        attended = self.norm(name["attention_norm"], attention_sum)
        feed_forward_sum = self.feed_forward_sum(name, attended)
        hidden = self.norm(name["norm"], feed_forward_sum)
        return Block(block_input, x, attention_sum, attended, feed_forward_sum, hidden)

    def last_layer(self, m):
        prefix, names = self.layers(m)[-1]
        return {role: f"{prefix}.{suffix}" for role, suffix in names.items()}

    def bypassed(self, m, block):
        """H'_m of every row, for each placement of the bypass."""
        plan, name = self.config["early_exit"]["bypass"], self.last_layer(m)
        placement = plan.get("placement", "block")
        replaced = "attention_norm" if placement == "mhsa" else "norm"
        closing = f"bypasses.{m}.LayerNorm" if plan["layer_norm"] == "own" else name[replaced]
        inner = ACTIVATIONS[plan["activation"]]
        part = lambda role, v: self.linear(f"bypasses.{m}.{role}", v)
        bend = lambda v: part("up", inner(part("down", v)))
        if placement == "block":
            return self.norm(closing, block.feed_forward_sum + bend(block.input))
        if placement == "ffn":
            return self.norm(closing, block.feed_forward_sum + bend(block.attended))
        attended = self.norm(closing, block.attention_sum + bend(block.last_layer_input))
        return self.norm(name["norm"], self.feed_forward_sum(name, attended))

    def pool(self, m, rows, mask):
        """What the classifier of exit m reads."""
        head = self.config["early_exit"].get("exit_head")
        if head is None:
            return self.dense_pool(m, rows[:, 0])
        part = lambda role, v: self.linear(f"exits.{m}.mha.{role}", v)
        if head["kind"] == "mha_fastbert":
            rows = torch.tanh(part("input", rows))  # [B, T, n]
        roles = (part(role, rows) for role in ("query", "key", "value"))
        features = part("output", attention(*roles, head["heads"], mask))[:, 0]
        if head["kind"] == "mha_fastbert":
            return torch.tanh(part("dense", features))
        return self.dense_pool(m, features)

    def dense_pool(self, m, features):
        kind, deepest = self.config["early_exit"]["pooler"], self.config["num_hidden_layers"] - 1
        if kind == "none":
            return features
        name = "albert.pooler" if self.family == "albert" else "bert.pooler.dense"
        if kind == "own" and m != deepest:
            name = f"exits.{m}.pooler"
        return torch.tanh(self.linear(name, features))

    def classify(self, m, pooled):
        deepest = m + 1 == self.config["num_hidden_layers"]
        return self.linear("classifier" if deepest else f"exits.{m}.classifier", pooled)

    def look_both_ways(self, outputs):
        """Global past-future: exit m sums what all depths say, deeper ones as it imagines them."""
        exits = list(outputs.pooled)
        for place, m in enumerate(exits):
            state = {k: outputs.pooled[k].detach() for k in exits[:place]} | {m: outputs.pooled[m]}
            past = sum(self.classify(k, state[k]) for k in state)
            features = sum(self.linear(f"gpf.gate_features.{k}", state[k]) for k in state)
            gate = torch.tanh(features / len(state))
            gate = torch.sigmoid(self.linear("gpf.gate", gate))
            future = torch.zeros_like(past)
            for j in exits[place + 1 :]:
                imitated = torch.tanh(self.linear(f"gpf.future.{j}", outputs.pooled[m]))
                outputs.imitated[m, j] = imitated
                future = future + self.classify(j, imitated)
            outputs.past[m], outputs.future[m], outputs.gates[m] = past, future, gate
            outputs.logits[m] = 2 * gate * past + (2 - 2 * gate) * future

    def uncertainty(self, outputs):
        """The learning-to-exit head: by block, the probability [B] to go on."""
        return {m: torch.sigmoid(self.linear("lte", c))[:, 0] for m, c in outputs.pooled.items()}
