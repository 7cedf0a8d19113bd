"""Multi-exit BERT and ALBERT classifiers with block-wise bypasses, for `transformers`.

This file lies beside the weights, so that the directory answers at every exit:

    model = AutoModelForSequenceClassification.from_pretrained(directory, trust_remote_code=True)
    output = model(**tokenizer("some text", return_tensors="pt"))
    output.logits        # the deepest exit, [B, C]
    output.exit_logits   # every exit in plan order, a tuple of [B, C]

The plan is `early_exit` in `config.json`. A block m (from 0) is one step of the stack: a BERT
layer, or one pass over an ALBERT layer group with all its inner layers. With x its input, F_m the
sum that its last LayerNorm reads and H_m = LN(F_m) its output, an exit reads H_m, or with a bypass
H'_m = LN(F_m + g(x W_down) W_up). Blocks never see a bypass: block m + 1 reads H_m.
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


@dataclass
class MultiExitOutput(ModelOutput):
    """What a `SequenceClassifierOutput` holds, and the logits of every exit."""

    loss: Optional[torch.FloatTensor] = None
    logits: Optional[torch.FloatTensor] = None
    exit_logits: Optional[Tuple[torch.FloatTensor, ...]] = None
    hidden_states: Optional[Tuple[torch.FloatTensor, ...]] = None


class Bypass(nn.Module):
    """LN(F + g(x W_down) W_up), with a LayerNorm of its own or the block's."""

    def __init__(self, config, plan):
        super().__init__()
        width, rank, bias = config.hidden_size, plan["rank"], plan["bias"]
        # `transformers` calls the identity "linear".
        activation = "linear" if plan["activation"] == "identity" else plan["activation"]
        self.down = nn.Linear(width, rank, bias=bias)
        self.activation = ACT2FN[activation]
        self.up = nn.Linear(rank, width, bias=bias)
        owns_norm = plan["layer_norm"] == "own"
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps) if owns_norm else None

    def forward(self, block_input, feed_forward_sum, block_norm):
        norm = block_norm if self.LayerNorm is None else self.LayerNorm
        return norm(feed_forward_sum + self.up(self.activation(self.down(block_input))))


class Exit(nn.Module):
    """The weights of an exit before the deepest one, whose weights have the standard names."""

    def __init__(self, config, owns_pooler):
        super().__init__()
        width = config.hidden_size
        self.pooler = nn.Linear(width, width) if owns_pooler else None
        self.classifier = nn.Linear(width, config.num_labels)


class BlockTrace:
    """What the exits read of one forward pass: one entry per block, in the order they ran."""

    def __init__(self):
        self.inputs, self.sums, self.norms, self.outputs = [], [], [], []

    def record_input(self, _block, arguments):
        self.inputs.append(arguments[0])  # [B, T, D]

    def record_norm(self, norm, arguments, output):
        self.sums.append(arguments[0])
        self.norms.append(norm)
        self.outputs.append(output)


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
        owns_pooler = plan["pooler"] == "own"
        self.exits = nn.ModuleDict(
            {str(m): Exit(config, owns_pooler) for m in self.exit_blocks[:-1]}
        )
        bypassed = self.exit_blocks if plan["bypass"] else []
        self.bypasses = nn.ModuleDict({str(m): Bypass(config, plan["bypass"]) for m in bypassed})
        self.dropout = nn.Dropout(plan["exit_dropout"])
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
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
        exit_logits = tuple(self.exit_logits(m, trace) for m in self.exit_blocks)
        if output_hidden_states is None:
            output_hidden_states = getattr(self.config, "output_hidden_states", False)
        output = MultiExitOutput(
            loss=None if labels is None else self.loss(exit_logits, labels, loss_weights),
            logits=exit_logits[-1],
            exit_logits=exit_logits,
            hidden_states=(trace.inputs[0], *trace.outputs) if output_hidden_states else None,
        )
        return output.to_tuple() if return_dict is False else output

    @contextmanager
    def traced(self):
        """Records, while it is open, what passes through each block and its last LayerNorm."""
        encoder, trace = self.base_model.encoder, BlockTrace()
        if self.config.model_type == "albert":
            blocks = list(encoder.albert_layer_groups)
            norms = [group.albert_layers[-1].full_layer_layer_norm for group in blocks]
        else:
            blocks = list(encoder.layer)
            norms = [layer.output.LayerNorm for layer in blocks]
        handles = [block.register_forward_pre_hook(trace.record_input) for block in blocks]
        handles += [norm.register_forward_hook(trace.record_norm) for norm in norms]
        try:
            yield trace
        finally:
            for handle in handles:
                handle.remove()

    def exit_logits(self, m, trace):
        """The logits [B, C] of the exit after block m, which reads the [CLS] row alone."""
        if str(m) in self.bypasses:
            block_input, block_sum = trace.inputs[m][:, 0], trace.sums[m][:, 0]  # [B, D]
            features = self.bypasses[str(m)](block_input, block_sum, trace.norms[m])
        else:
            features = trace.outputs[m][:, 0]  # [B, D]
        deepest = m == self.exit_blocks[-1]
        if self.plan["pooler"] == "own" and not deepest:
            features = torch.tanh(self.exits[str(m)].pooler(features))
        elif self.plan["pooler"] != "none":
            pooler = self.base_model.pooler  # ALBERT's is a bare Linear, BERT's holds one.
            features = torch.tanh(getattr(pooler, "dense", pooler)(features))
        classifier = self.classifier if deepest else self.exits[str(m)].classifier
        return classifier(self.dropout(features))

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
    if plan["pooler"] not in ("shared", "own", "none"):
        raise ValueError(f'early_exit.pooler is "{plan["pooler"]}": expected shared, own or none')
    return plan
