"""Fine-tunes a 12-exit BERT on MRPC with PyTorch, as `badge train --method joint` does.

    python reference/peer_train.py --backbone DIR --data DIR/MRPC --precision f32 bf16 --threads 2

The recipe is ours: an exit after every block (shared pooler, dropout, linear), the plain sum of
cross-entropies, AdamW without decay, the gradient clipped to norm 1, a tenth of the steps to warm
up and then linear decay, batches padded to their longest row. PyTorch is used at its best: rows of
like length together, fused attention, fused AdamW; `bf16` is autocast. Each precision runs in a
process of its own, so that its peak memory is its own.

Standard output gets one JSON line per epoch: seconds of training alone, loss, tokens, the score
(mean of accuracy and F1) of every exit on all rows of `dev.tsv`, with `--test` on `test.tsv` too;
and the process' peak memory so far. `memory_before_mib` is what it held before the model was read.
"""

import argparse
import csv
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import BertModel, logging

STRETCH_BATCHES = 50  # how many batches' worth of shuffled rows are sorted by length at a time


def main():
    arguments = parse_arguments()
    if len(arguments.precision) > 1:
        for precision in arguments.precision:
            command = [sys.executable, __file__, *without_precision(sys.argv[1:])]
            subprocess.run([*command, "--precision", precision], check=True)
        return
    train(arguments, arguments.precision[0])


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="train.tsv and dev.tsv of MRPC"
    )
    parser.add_argument("--precision", nargs="+", choices=["f32", "bf16"], default=["f32", "bf16"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument(
        "--order", choices=["like-length", "random"], default="like-length", help="of the rows"
    )
    parser.add_argument("--steps-max", type=int, metavar="N", help="end an epoch after N steps")
    parser.add_argument("--no-eval", action="store_true", help="time alone, no scores")
    parser.add_argument("--test", action="store_true", help="score test.tsv after the last epoch")
    return parser.parse_args()


def without_precision(arguments):
    """The command line less `--precision` and its values."""
    start = arguments.index("--precision") if "--precision" in arguments else len(arguments)
    end = start + 1
    while end < len(arguments) and arguments[end] in ("f32", "bf16"):
        end += 1
    return arguments[:start] + arguments[end:]


class MultiExitBert(nn.Module):
    """A classifier after every block, behind one pooler."""

    def __init__(self, directory):
        super().__init__()
        self.bert = BertModel.from_pretrained(
            directory, add_pooling_layer=True, attn_implementation="sdpa", dtype=torch.float32
        )
        config = self.bert.config
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        linear = lambda: nn.Linear(config.hidden_size, 2)
        self.classifiers = nn.ModuleList(linear() for _ in range(config.num_hidden_layers))
        for classifier in self.classifiers:
            nn.init.normal_(classifier.weight, std=config.initializer_range)
            nn.init.zeros_(classifier.bias)

    def forward(self, **inputs):
        """The logits of every exit, [E, B, 2]."""
        # The backbone's own call would run the pooler once more on the last block's output.
        embeddings_and_blocks = self.bert(**inputs, output_hidden_states=True).hidden_states
        rows = torch.stack([hidden[:, 0] for hidden in embeddings_and_blocks[1:]])  # [E, B, D]
        pooled = self.dropout(torch.tanh(self.bert.pooler.dense(rows)))
        return torch.stack([c(one) for c, one in zip(self.classifiers, pooled)])


def train(arguments, precision):
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    before = peak_mib()
    splits = {name: read(arguments, name) for name in ("train", "dev")}
    if arguments.test:
        splits["test"] = read(arguments, "test")
    model = MultiExitBert(arguments.backbone).to(arguments.device)
    optimizer = torch.optim.AdamW(model.parameters(), arguments.lr, weight_decay=0.0, fused=True)
    batches = -(-len(splits["train"]) // arguments.batch)
    per_epoch = min(batches, arguments.steps_max or batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, linear_schedule(per_epoch * arguments.epochs)
    )
    fixed = {
        "engine": "pytorch",
        "version": torch.__version__,
        "machine": torch.cuda.get_device_name() if arguments.device == "cuda" else cpu_name(),
        "threads": arguments.threads,
        "precision": precision,
        "order": arguments.order,
        "batch": arguments.batch,
        "memory_before_mib": before,
    }
    for epoch in range(1, arguments.epochs + 1):
        row = one_epoch(arguments, precision, model, (optimizer, schedule), splits, epoch)
        # Scores come after the memory has been read: it is training's.
        row["peak_memory_mib"] = peak_mib(arguments.device)
        if not arguments.no_eval:
            row["dev"] = scores(arguments, precision, model, splits["dev"])
        if arguments.test and epoch == arguments.epochs:
            row["test"] = scores(arguments, precision, model, splits["test"])
        print(json.dumps(fixed | row), flush=True)


def one_epoch(arguments, precision, model, optimization, splits, epoch):
    """Trains; gives what is printed of the epoch."""
    optimizer, schedule = optimization
    order = batch_order(splits["train"], arguments, epoch)[: arguments.steps_max]
    model.train()
    losses, tokens, padded = [], 0, 0
    start = time.perf_counter()
    for rows in order:
        examples = [splits["train"][row] for row in rows]
        inputs, labels = collate(examples, arguments.device)
        with autocast(arguments.device, precision):
            logits = model(**inputs)
        loss = sum(functional.cross_entropy(one.float(), labels) for one in logits)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        tokens += sum(len(ids) for ids, _, _ in examples)
        padded += inputs["input_ids"].numel()
    mean_loss = torch.stack(losses).mean().item()  # waits for a GPU to finish
    seconds = time.perf_counter() - start
    return {
        "epoch": epoch,
        "steps": len(order),
        "seconds": round(seconds, 3),
        "loss": mean_loss,
        "tokens": tokens,
        "padded_tokens": padded,
        "tokens_per_second": round(tokens / seconds, 1),
    }


def linear_schedule(total):
    """A tenth of all steps up, then down to zero: the factor of the peak rate."""
    warmup = round(0.1 * total)

    def factor(step):
        if step < warmup:
            return step / warmup
        return max(0, total - step) / max(1, total - warmup)

    return factor


def batch_order(examples, arguments, epoch):
    """Every row once; rows of like length together, as `transformers` and `badge` group them."""
    generator = torch.Generator().manual_seed(arguments.seed * 1000 + epoch)
    rows = torch.randperm(len(examples), generator=generator).tolist()
    if arguments.order == "like-length":
        stretch = STRETCH_BATCHES * arguments.batch
        stretches = (rows[at : at + stretch] for at in range(0, len(rows), stretch))
        longest_first = lambda part: sorted(part, key=lambda row: -len(examples[row][0]))
        rows = [row for part in stretches for row in longest_first(part)]
    batches = [rows[at : at + arguments.batch] for at in range(0, len(rows), arguments.batch)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def collate(examples, device):
    """Ids, segments and mask padded to the longest row; labels [B]."""
    longest = max(len(ids) for ids, _, _ in examples)
    pad = lambda values: values + [0] * (longest - len(values))
    inputs = {
        "input_ids": [pad(ids) for ids, _, _ in examples],
        "token_type_ids": [pad(types) for _, types, _ in examples],
        "attention_mask": [pad([1] * len(ids)) for ids, _, _ in examples],
    }
    tensors = {name: torch.tensor(rows).to(device) for name, rows in inputs.items()}
    return tensors, torch.tensor([label for _, _, label in examples]).to(device)


def autocast(device, precision):
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


@torch.no_grad()
def scores(arguments, precision, model, examples):
    """The mean of accuracy and F1 of every exit, their mean and their best."""
    model.eval()
    order = sorted(range(len(examples)), key=lambda row: len(examples[row][0]))
    found, labels = [], []
    for at in range(0, len(order), 32):
        inputs, target = collate([examples[r] for r in order[at : at + 32]], arguments.device)
        with autocast(arguments.device, precision):
            found.append(model(**inputs).argmax(-1))
        labels.append(target)
    found, labels = torch.cat(found, 1), torch.cat(labels)
    exits = []
    for answers in found:
        hits = (answers * labels).sum().item()
        f1 = 2 * hits / max(1, answers.sum().item() + labels.sum().item())
        exits.append(((answers == labels).double().mean().item() + f1) / 2)
    return {"exits": exits, "average": sum(exits) / len(exits), "best": max(exits)}


def read(arguments, name):
    """(ids, segments, label) of every row, cut to the longest input, the longer text first."""
    tokenizer = Tokenizer.from_file(str(arguments.backbone / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(arguments.max_length, strategy="longest_first")
    with open(arguments.data / f"{name}.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    pairs = [(row["sentence1"], row["sentence2"]) for row in rows]
    encodings = tokenizer.encode_batch(pairs)
    return [(e.ids, e.type_ids, int(row["label"])) for e, row in zip(encodings, rows)]


def peak_mib(device="cpu"):
    """The most memory that the process, or the GPU for it, has held so far."""
    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1)


def cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
