"""The multi-exit encoder as plain functions over a dictionary of tensors.

A second opinion on `modeling_badge.py`: it takes nothing from `transformers`, reads the
checkpoint's names itself and computes one line after the other. `make_golden.py` asserts that both
agree.

Letters: B samples, T tokens, D hidden, H heads, K = D / H, C classes.
"""

import math

import torch
from torch.nn import functional

ACTIVATIONS = {
    "gelu": functional.gelu,
    "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    "identity": lambda x: x,
    "leaky_relu": functional.leaky_relu,
    "mish": functional.mish,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": functional.relu,
    "sigmoid": torch.sigmoid,
    "swish": functional.silu,
    "tanh": torch.tanh,
}

BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "dense": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "norm": "output.LayerNorm",
}
ALBERT_LAYER = {
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "dense": "attention.dense",
    "attention_norm": "attention.LayerNorm",
    "widen": "ffn",
    "narrow": "ffn_output",
    "norm": "full_layer_layer_norm",
}


def attention(query, key, value, heads, attention_mask):
    """Scaled dot-product attention of [B, T, H K] rows, padding masked: [B, T, H K]."""
    b, t, width = query.shape
    split = lambda rows: rows.view(b, t, heads, -1).transpose(1, 2)
    scores = split(query) @ split(key).transpose(2, 3) / math.sqrt(width // heads)  # [B, H, T, T]
    scores = scores.masked_fill(attention_mask[:, None, None, :] == 0, -math.inf)
    context = scores.softmax(-1) @ split(value)  # [B, H, T, K]
    return context.transpose(1, 2).reshape(b, t, width)


class StraightLine:
    """One checkpoint: its tensors by name, and the contents of its `config.json`."""

    def __init__(self, tensors, config):
        self.tensors, self.config = tensors, config
        self.family = config["model_type"]

    def forward(self, input_ids, token_type_ids, attention_mask):
        """The embeddings, every block's output, and the logits of every exit by its block."""
        plan = self.config["early_exit"]
        x = embeddings = self.embed(input_ids, token_type_ids)  # [B, T, D]
        blocks, logits = [], {}
        for m in range(self.config["num_hidden_layers"]):
            block_input = x
            for layer, names in self.layers(m):
                x, block_sum = self.layer(layer, names, x, attention_mask)
            blocks.append(x)
            if m + 1 in plan["exits"]:
                features = x[:, 0]  # [B, D]
                if plan["bypass"]:
                    features = self.bypass(m, block_input[:, 0], block_sum[:, 0])
                logits[m] = self.exit(m, features)
        return embeddings, blocks, logits

    def embed(self, input_ids, token_type_ids):
        name = f"{self.family}.embeddings"
        table = lambda kind: self.tensors[f"{name}.{kind}_embeddings.weight"]
        words = table("word")[input_ids] + table("token_type")[token_type_ids]
        x = self.norm(f"{name}.LayerNorm", words + table("position")[: input_ids.shape[1]])
        if self.family == "albert":
            x = self.linear("albert.encoder.embedding_hidden_mapping_in", x)
        return x

    def layers(self, m):
        """The layers that block m runs, as (prefix, names inside it)."""
        if self.family == "bert":
            return [(f"bert.encoder.layer.{m}", BERT_LAYER)]
        depth, groups = self.config["num_hidden_layers"], self.config["num_hidden_groups"]
        group = f"albert.encoder.albert_layer_groups.{m * groups // depth}.albert_layers"
        return [(f"{group}.{i}", ALBERT_LAYER) for i in range(self.config["inner_group_num"])]

    def layer(self, prefix, names, x, attention_mask):
        """One transformer layer: its output, and the sum that its last LayerNorm reads."""
        name = {role: f"{prefix}.{suffix}" for role, suffix in names.items()}
        attention_sum = self.attention_sum(name, x, attention_mask)
        attended = self.norm(name["attention_norm"], attention_sum)
        block_sum = self.feed_forward_sum(name, attended)
        return self.norm(name["norm"], block_sum), block_sum

    def attention_sum(self, name, x, attention_mask):
        """What the attention's LayerNorm reads; `name` maps roles to the names of modules."""
        roles = (self.linear(name[role], x) for role in ("query", "key", "value"))
        context = attention(*roles, self.config["num_attention_heads"], attention_mask)
        return x + self.linear(name["dense"], context)

    def feed_forward_sum(self, name, attended):
        """What the layer's last LayerNorm reads."""
        activation = ACTIVATIONS[self.config["hidden_act"]]
        widened = activation(self.linear(name["widen"], attended))  # [B, T, F]
        return attended + self.linear(name["narrow"], widened)

    def bypass(self, m, block_input, block_sum):
        plan = self.config["early_exit"]["bypass"]
        inner = ACTIVATIONS[plan["activation"]](self.linear(f"bypasses.{m}.down", block_input))
        total = block_sum + self.linear(f"bypasses.{m}.up", inner)
        if plan["layer_norm"] == "own":
            return self.norm(f"bypasses.{m}.LayerNorm", total)
        prefix, names = self.layers(m)[-1]
        return self.norm(f"{prefix}.{names['norm']}", total)

    def exit(self, m, features):
        deepest = m + 1 == self.config["num_hidden_layers"]
        kind = self.config["early_exit"]["pooler"]
        if kind == "own" and not deepest:
            features = torch.tanh(self.linear(f"exits.{m}.pooler", features))
        elif kind != "none":
            pooler = "albert.pooler" if self.family == "albert" else "bert.pooler.dense"
            features = torch.tanh(self.linear(pooler, features))
        return self.linear("classifier" if deepest else f"exits.{m}.classifier", features)

    def linear(self, name, x):
        bias = self.tensors.get(f"{name}.bias")
        return functional.linear(x, self.tensors[f"{name}.weight"], bias)

    def norm(self, name, x):
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return functional.layer_norm(x, weight.shape, weight, bias, self.config["layer_norm_eps"])
