"""Multi-exit BERT and ALBERT classifiers with block-wise bypasses, for `transformers`.

This file lies beside the weights, so that the directory answers at every exit:

    model = AutoModelForSequenceClassification.from_pretrained(directory, trust_remote_code=True)
    output = model(**tokenizer("some text", return_tensors="pt"))
    output.logits        # the deepest exit, [B, C]
    output.exit_logits   # every exit in plan order, a tuple of [B, C]

The plan is `early_exit` in `config.json`. A block m (from 0) is one step of the stack: a BERT
layer, or one pass over an ALBERT layer group with all its inner layers. With x its input, F_m the
sum that its last LayerNorm reads and H_m = LN(F_m) its output, an exit reads H_m, or with a bypass
H'_m = LN(F_m + g(x W_down) W_up). Blocks never see a bypass: block m + 1 reads H_m. Bypasses may
also go around the attention or the feed-forward alone, exits may read all rows through attention,
and with Global Past-Future an exit weighs earlier states against imitations of deeper ones. A
learning-to-exit head changes no exit's answer and is left aside.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Optional, Tuple

import torch
from torch import nn
from torch.nn import functional
from transformers import AlbertModel, BertModel, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.utils import ModelOutput

BACKBONES = {"albert": AlbertModel, "bert": BertModel}
KNOWN_KEYS = {
    "version",
    "exits",
    "pooler",
    "bypass",
    "exit_head",
    "global_past_future",
    "lte",
    "exit_dropout",
    "max_length",
}


@dataclass
class MultiExitOutput(ModelOutput):
    """What a `SequenceClassifierOutput` holds, and the logits of every exit."""

    loss: Optional[torch.FloatTensor] = None
    logits: Optional[torch.FloatTensor] = None
    exit_logits: Optional[Tuple[torch.FloatTensor, ...]] = None
    hidden_states: Optional[Tuple[torch.FloatTensor, ...]] = None


class Bypass(nn.Module):
    """What the exit reads of a block whose part (all of it, attention or feed-forward) is bypassed.

    Its LayerNorm, its own or the block's, closes the sum that the bypass adds to.
    """

    def __init__(self, config, plan):
        super().__init__()
        width, rank, bias = config.hidden_size, plan["rank"], plan["bias"]
        # `transformers` calls the identity "linear".
        activation = "linear" if plan["activation"] == "identity" else plan["activation"]
        self.placement = plan.get("placement", "block")
        self.down = nn.Linear(width, rank, bias=bias)
        self.activation = ACT2FN[activation]
        self.up = nn.Linear(rank, width, bias=bias)
        owns_norm = plan["layer_norm"] == "own"
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps) if owns_norm else None

    def forward(self, step):
        """[B, D] from the [CLS] rows of one step of the stack."""
        if self.placement == "block":
            return self.close(step.input, step.sum, step.norm)
        if self.placement == "ffn":
            return self.close(step.attended, step.sum, step.norm)
        # The feed-forward runs again, for this exit alone.
        closed = self.close(step.layer_input, step.attention_sum, step.attention_norm)
        return step.feed_forward(closed[:, None])[:, 0]

    def close(self, source, total, replaced_norm):
        norm = replaced_norm if self.LayerNorm is None else self.LayerNorm
        return norm(total[:, 0] + self.up(self.activation(self.down(source[:, 0]))))


class ExitAttention(nn.Module):
    """Attention of [CLS] over all rows of H_m, without residual or LayerNorm."""

    def __init__(self, config, plan):
        super().__init__()
        width, self.heads = config.hidden_size, plan["heads"]
        fastbert = plan["kind"] == "mha_fastbert"
        inner = plan["dim"] if fastbert else plan["rank"]
        outer = inner if fastbert else width
        self.input = nn.Linear(width, inner) if fastbert else None
        source = inner if fastbert else width
        self.query = nn.Linear(source, inner, bias=fastbert)
        self.key = nn.Linear(source, inner, bias=fastbert)
        self.value = nn.Linear(source, inner, bias=fastbert)
        self.output = nn.Linear(inner, outer, bias=fastbert)
        self.dense = nn.Linear(inner, inner) if fastbert else None

    def forward(self, rows, attention_mask):
        if self.input is not None:
            rows = torch.tanh(self.input(rows))
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T or 1, k]
            for part in (self.query(rows[:, :1]), self.key(rows), self.value(rows))
        )
        mask = None if attention_mask is None else attention_mask[:, None, None].bool()
        context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        output = self.output(context[:, :, 0].flatten(1))
        return output if self.dense is None else torch.tanh(self.dense(output))


class Exit(nn.Module):
    """The weights of an exit but those that have standard names, as the deepest's classifier."""

    def __init__(self, config, plan, is_deepest):
        super().__init__()
        width, head = config.hidden_size, plan.get("exit_head")
        if head:
            self.mha = ExitAttention(config, head)
        if is_deepest:
            return
        if plan["pooler"] == "own":
            self.pooler = nn.Linear(width, width)
        self.classifier = nn.Linear(classifier_width(config, plan), config.num_labels)


class PastFuture(nn.Module):
    """Global Past-Future: imitations of deeper states, and the gate between past and future."""

    def __init__(self, config, blocks):
        super().__init__()
        width, labels = config.hidden_size, config.num_labels
        self.future = nn.ModuleDict({str(m): nn.Linear(width, width) for m in blocks[1:]})
        self.gate_features = nn.ModuleDict({str(m): nn.Linear(width, labels) for m in blocks})
        self.gate = nn.Linear(labels, labels)

    def forward(self, blocks, states, classifiers):
        """Logits of every exit from their pooled states, [B, D] each."""
        logits, past, features = [], 0.0, 0.0
        for seen, (block, state) in enumerate(zip(blocks, states), start=1):
            past = past + classifiers[block](state)
            features = features + self.gate_features[str(block)](state)
            gate = torch.sigmoid(self.gate(torch.tanh(features / seen)))
            imitations = {j: torch.tanh(self.future[str(j)](state)) for j in blocks[seen:]}
            future = sum(classifiers[j](imitation) for j, imitation in imitations.items())
            logits.append(2 * gate * past + (2 - 2 * gate) * future)
        return tuple(logits)


class Step:
    """What the exit of one step of the stack may read, [B, T, D] each, and the layer it ended in."""

    def __init__(self, block_input):
        self.input = self.layer_input = block_input
        self.attention_sum = self.attended = self.sum = self.output = None
        self.attention_norm = self.norm = self.layer = None

    def feed_forward(self, attended):
        """The rest of the block behind its attention, on other rows."""
        if hasattr(self.layer, "feed_forward_chunk"):
            return self.layer.feed_forward_chunk(attended)
        return self.norm(self.layer.ff_chunk(attended) + attended)


class BlockTrace:
    """What the exits read of one forward pass: one step per block, in the order they ran."""

    def __init__(self):
        self.steps = []

    def begin(self, _block, arguments):
        self.steps.append(Step(arguments[0]))

    def enter_layer(self, layer, arguments):
        self.steps[-1].layer, self.steps[-1].layer_input = layer, arguments[0]

    def record_attention(self, norm, arguments, output):
        step = self.steps[-1]
        step.attention_norm, step.attention_sum, step.attended = norm, arguments[0], output

    def record_norm(self, norm, arguments, output):
        step = self.steps[-1]
        step.norm, step.sum, step.output = norm, arguments[0], output


class BadgeForSequenceClassification(PreTrainedModel):
    """A backbone, exits after some of its blocks, and a bypass in front of each exit if planned."""

    # Older releases have the fused attention for BERT alone.
    _supports_sdpa = AlbertModel._supports_sdpa and BertModel._supports_sdpa

    def __init__(self, config):
        super().__init__(config)
        self.plan = plan = checked_plan(config)
        self.num_labels = config.num_labels
        # Blocks count from 0 in names, depths from 1 in the plan.
        self.exit_blocks = [depth - 1 for depth in plan["exits"]]
        backbone = BACKBONES[config.model_type]
        pools = plan["pooler"] != "none"
        # `base_model` of `transformers` finds the backbone by this name, as do the weights.
        self.base_model_prefix = config.model_type
        setattr(self, self.base_model_prefix, backbone(config, add_pooling_layer=pools))
        deepest = self.exit_blocks[-1]
        self.exits = nn.ModuleDict(
            {str(m): Exit(config, plan, m == deepest) for m in self.exit_blocks}
        )
        self.gpf = PastFuture(config, self.exit_blocks) if plan.get("global_past_future") else None
        bypassed = self.exit_blocks if plan["bypass"] else []
        self.bypasses = nn.ModuleDict({str(m): Bypass(config, plan["bypass"]) for m in bypassed})
        self.dropout = nn.Dropout(plan["exit_dropout"])
        self.classifier = nn.Linear(classifier_width(config, plan), config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        labels=None,
        output_hidden_states=None,
        return_dict=None,
        loss_weights="uniform",
        **_ignored,
    ):
        with self.traced() as trace:
            self.base_model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                token_type_ids=token_type_ids,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
            )
        states = [self.dropout(self.state(m, trace, attention_mask)) for m in self.exit_blocks]
        exit_logits = self.exit_logits(states)
        if output_hidden_states is None:
            output_hidden_states = getattr(self.config, "output_hidden_states", False)
        output = MultiExitOutput(
            loss=None if labels is None else self.loss(exit_logits, labels, loss_weights),
            logits=exit_logits[-1],
            exit_logits=exit_logits,
            hidden_states=trace_states(trace) if output_hidden_states else None,
        )
        return output.to_tuple() if return_dict is False else output

    @contextmanager
    def traced(self):
        """Records, while it is open, what passes through each block and its last LayerNorm."""
        encoder, trace = self.base_model.encoder, BlockTrace()
        if self.config.model_type == "albert":
            blocks = list(encoder.albert_layer_groups)
            layers = [group.albert_layers[-1] for group in blocks]
            attention_norms = [layer.attention.LayerNorm for layer in layers]
            norms = [layer.full_layer_layer_norm for layer in layers]
        else:
            blocks = layers = list(encoder.layer)
            attention_norms = [layer.attention.output.LayerNorm for layer in layers]
            norms = [layer.output.LayerNorm for layer in layers]
        handles = [block.register_forward_pre_hook(trace.begin) for block in blocks]
        handles += [layer.register_forward_pre_hook(trace.enter_layer) for layer in layers]
        handles += [norm.register_forward_hook(trace.record_attention) for norm in attention_norms]
        handles += [norm.register_forward_hook(trace.record_norm) for norm in norms]
        try:
            yield trace
        finally:
            for handle in handles:
                handle.remove()

    def state(self, m, trace, attention_mask):
        """What the classifier of the exit after block m reads: [B, W]."""
        step = trace.steps[m]
        if self.plan.get("exit_head"):
            features = self.exits[str(m)].mha(step.output, attention_mask)
        elif str(m) in self.bypasses:
            features = self.bypasses[str(m)](step)
        else:
            features = step.output[:, 0]
        if self.plan["pooler"] == "none":
            return features
        if self.plan["pooler"] == "own" and m != self.exit_blocks[-1]:
            return torch.tanh(self.exits[str(m)].pooler(features))
        pooler = self.base_model.pooler  # ALBERT's is a bare Linear, BERT's holds one.
        return torch.tanh(getattr(pooler, "dense", pooler)(features))

    def exit_logits(self, states):
        """The logits [B, C] of every exit in plan order."""
        deepest = self.exit_blocks[-1]
        classifiers = {m: self.exits[str(m)].classifier for m in self.exit_blocks[:-1]}
        classifiers[deepest] = self.classifier
        if self.gpf is not None:
            return self.gpf(self.exit_blocks, states, classifiers)
        return tuple(classifiers[m](state) for m, state in zip(self.exit_blocks, states))

    def loss(self, exit_logits, labels, weights="uniform"):
        """The joint loss: the sum of the exits' losses, or their mean weighted by 1, 2, ..., E."""
        losses = torch.stack([self.exit_loss(logits, labels) for logits in exit_logits])  # [E]
        if weights == "uniform":
            return losses.sum()
        if weights != "linear":
            raise ValueError(f'loss_weights is "{weights}": choose "uniform" or "linear"')
        ranks = torch.arange(1, len(losses) + 1, dtype=losses.dtype, device=losses.device)
        return (ranks / ranks.sum() * losses).sum()

    def exit_loss(self, logits, labels):
        kind = self.config.problem_type
        if kind == "regression" or (kind is None and self.num_labels == 1):
            return functional.mse_loss(logits.view(-1), labels.view(-1).to(logits.dtype))
        if kind == "multi_label_classification" or (kind is None and labels.is_floating_point()):
            return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        return functional.cross_entropy(logits, labels.view(-1))


def classifier_width(config, plan):
    """Inputs of every exit's classifier."""
    return (plan.get("exit_head") or {}).get("dim", config.hidden_size)


def trace_states(trace):
    """The embeddings and the output of every block."""
    return (trace.steps[0].input, *(step.output for step in trace.steps))


def checked_plan(config):
    """The `early_exit` entry of the configuration, once it is known to be one we understand."""
    plan = getattr(config, "early_exit", None)
    if plan is None:
        raise ValueError('config.json has no "early_exit": this is no multi-exit model')
    if plan.get("version") != 1:
        raise ValueError(f'early_exit.version is {plan.get("version")}: this file reads version 1')
    if config.model_type not in BACKBONES:
        raise ValueError(f'model_type is "{config.model_type}": expected one of {set(BACKBONES)}')
    exits, depth = plan["exits"], config.num_hidden_layers
    if not exits or exits != sorted(set(exits)) or exits[0] < 1 or exits[-1] != depth:
        raise ValueError(f"early_exit.exits is {exits}: expected ascending depths up to {depth}")
    unknown = set(plan) - KNOWN_KEYS
    if unknown:
        raise ValueError(f"early_exit has keys that this file does not know: {sorted(unknown)}")
    if plan["pooler"] not in ("shared", "own", "none"):
        raise ValueError(f'early_exit.pooler is "{plan["pooler"]}": expected shared, own or none')
    return plan
