"""The loss of every training method, from the definitions.

A method is an object with `loss(model, batch, step)`, which gives the total, its terms by name and
the forward pass, and `learns(config, name)`, which says whether the parameter learns at all. Steps
count from 0.
"""

import torch
from torch.nn import functional


class Method:
    """What methods have in common: every parameter learns."""

    def learns(self, config, name):
        return True


class Joint(Method):
    """All exits together: the plain sum, or weights m / Σ m."""

    def __init__(self, weights):
        self.weights = weights

    def loss(self, model, batch, step):
        outputs = model.forward(batch)
        losses = exit_losses(outputs, batch)
        total = sum(w * loss for w, loss in zip(self.factors(len(losses)), losses.values()))
        return total, terms(losses), outputs

    def factors(self, count):
        if self.weights == "uniform":
            return [1.0] * count
        return [2 * m / (count * (count + 1)) for m in range(1, count + 1)]


class Single(Method):
    """The deepest exit alone; the first of two stages, and each of the single runs."""

    def loss(self, model, batch, step):
        outputs = model.forward(batch)
        loss = list(exit_losses(outputs, batch).values())[-1]
        return loss, {}, outputs


class Alternating(Method):
    """Even steps: the deepest exit. Odd steps: the plain sum."""

    def loss(self, model, batch, step):
        method = Single() if step % 2 == 0 else Joint("uniform")
        return method.loss(model, batch, step)


class SecondStage(Method):
    """Only what belongs to the exits before the deepest learns: from labels or from that exit."""

    def __init__(self, kind, temperature=1.0):
        self.kind, self.temperature = kind, temperature

    def learns(self, config, name):
        intermediate = [depth - 1 for depth in config["early_exit"]["exits"][:-1]]
        own = [f"{kind}.{m}." for kind in ("exits", "bypasses") for m in intermediate]
        return name.startswith(("lte.", *own))

    def loss(self, model, batch, step):
        outputs = model.forward(batch)
        losses = self.losses(outputs, batch)
        return sum(losses.values()), terms(losses), outputs

    def losses(self, outputs, batch):
        *intermediate, deepest = outputs.logits
        if self.kind == "ce":
            losses = exit_losses(outputs, batch)
            return {m: losses[m] for m in intermediate}
        teacher = (outputs.logits[deepest].detach() / self.temperature).log_softmax(-1)
        losses = {}
        for m in intermediate:
            student = (outputs.logits[m] / self.temperature).log_softmax(-1)
            p, q = (teacher, student) if self.kind == "kl" else (student, teacher)
            divergence = (p.exp() * (p - q)).sum(-1).mean()
            losses[m] = self.temperature**2 * divergence
        return losses


class GradientEquilibrium(Method):
    """The plain sum, its gradient rescaled at every junction."""

    def loss(self, model, batch, step):
        exits = [depth - 1 for depth in model.config["early_exit"]["exits"]]

        def junction(m, hidden):
            left = len(exits) - exits.index(m)  # exits from this one on
            shared = Rescale.apply(hidden, 1 / left)
            return shared, Rescale.apply(shared, left - 1)

        outputs = model.forward(batch, junction)
        losses = exit_losses(outputs, batch)
        return sum(losses.values()), terms(losses), outputs


class Rescale(torch.autograd.Function):
    """GR(x, c): x forwards, c times the gradient backwards."""

    @staticmethod
    def forward(context, x, factor):
        context.factor = factor
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return context.factor * gradient, None


class GlobalPastFuture(Joint):
    """Linear weights on the exits and the imitation of deeper states; low blocks may be frozen."""

    def __init__(self, coins=None):
        """`coins[step][m]`: 1 where block m's output is detached in that step."""
        super().__init__("linear")
        self.coins = coins

    def loss(self, model, batch, step):
        def junction(m, hidden):
            if self.coins is not None and m < len(self.coins[step]) and self.coins[step][m]:
                hidden = hidden.detach()
            return hidden, hidden

        outputs = model.forward(batch, junction)
        losses = exit_losses(outputs, batch)
        task = sum(w * loss for w, loss in zip(self.factors(len(losses)), losses.values()))
        imitation = self.imitation(outputs)
        named = terms(losses) | {"loss.task": task, "loss.imitation": imitation}
        return (task + imitation) / 2, named, outputs

    def imitation(self, outputs):
        exits = list(outputs.pooled)
        per_exit = []
        for place, m in enumerate(exits[:-1]):
            rows = [
                1 - functional.cosine_similarity(outputs.pooled[j].detach(), outputs.imitated[m, j])
                for j in exits[place + 1 :]
            ]
            per_exit.append(torch.cat(rows).mean())
        return sum(per_exit) / len(per_exit)


class WithLearningToExit:
    """A method and the head that learns to exit, trained together."""

    def __init__(self, method):
        self.method = method

    def learns(self, config, name):
        return self.method.learns(config, name)

    def loss(self, model, batch, step):
        total, named, outputs = self.method.loss(model, batch, step)
        head = head_loss(model, batch, outputs)
        return total + head, named | {"loss.lte": head}, outputs


class LearningToExit(Method):
    """The head alone, on a model that does not change."""

    def learns(self, config, name):
        return name.startswith("lte.")

    def loss(self, model, batch, step):
        outputs = model.forward(batch)
        return head_loss(model, batch, outputs), {}, outputs


def head_loss(model, batch, outputs):
    """The mean squared error of the head over all exits and rows."""
    found = torch.stack(list(model.uncertainty(outputs).values()))  # [E, B]
    logits = torch.stack(list(outputs.logits.values())).detach()  # [E, B, C]
    if batch["labels"].dtype == torch.int64:
        target = (logits.argmax(-1) != batch["labels"]).to(found.dtype)
    else:
        target = torch.tanh(logits[:, :, 0] - batch["labels"]).abs()
    return ((found - target) ** 2).mean()


def exit_losses(outputs, batch):
    """The mean loss of each exit over the batch, by block: cross-entropy or squared error."""
    target = batch["labels"]
    if target.dtype == torch.int64:
        return {m: functional.cross_entropy(z, target) for m, z in outputs.logits.items()}
    return {m: ((z[:, 0] - target) ** 2).mean() for m, z in outputs.logits.items()}


def terms(losses):
    return {f"loss.exit.{m}": loss for m, loss in losses.items()}
