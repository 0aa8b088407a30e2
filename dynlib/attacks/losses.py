"""What an attack on a multi-exit network maximises: losses over the whole output.

Each loss says how deep the network has to be run for each image, and nothing deeper is computed.
"""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from dynlib.mechanisms import Answers, Mechanism
from dynlib.networks.exits import MultiExitNetwork


class Loss:
    """Base of all losses; ``display``, ``colour`` and ``dash`` are how figures show them."""

    display: ClassVar[str]
    colour: ClassVar[str]
    dash: ClassVar[str]

    def candidates(self, net: MultiExitNetwork) -> list["Loss"]:
        """The losses to attack with; of several, each image keeps the attack that raises the mean cross-entropy most."""
        return [self]

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        """The deepest exit that the gradient of each clean image needs, and the MACs spent to find out: int64 ``[batch]`` each."""
        raise NotImplementedError

    def __call__(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        """Losses ``[batch]`` from the logits ``[depth + 1, batch, classes]`` of the exits that were run."""
        raise NotImplementedError


def everywhere(number: int, images: Tensor) -> Tensor:
    return torch.full((len(images),), number, device=images.device)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The label's logit less the largest other one, ``[exits, batch]`` from logits ``[exits, batch, classes]``."""
    index = labels.expand(len(logits), -1)[..., None]
    return (logits.gather(-1, index) - logits.scatter(-1, index, -torch.inf).amax(dim=-1, keepdim=True))[..., 0]


class OfExits(Loss):
    """Base of the losses that are one number of each exit, put together: the cross-entropy, unless an attack has its own."""

    def of_exits(self, values: Tensor) -> Tensor:
        """From the values ``[depth + 1, batch]`` of the exits that were run to ``[batch]``."""
        raise NotImplementedError

    def __call__(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        exits, batch, _ = logits.shape
        each = F.cross_entropy(logits.flatten(0, 1), labels.repeat(exits), reduction="none")
        return self.of_exits(each.view(exits, batch))


class Deepest(OfExits):
    """The deepest exit that is run; subclasses say which one that is."""

    def of_exits(self, values: Tensor) -> Tensor:
        return values[-1]


@dataclass(frozen=True)
class AtExit(Deepest):
    """One exit: its index, from 0, or -1 for the final one. Figures count exits from 1."""

    colour, dash = "C0", "--"

    exit: int

    @property
    def display(self) -> str:  # type: ignore[override] # by its fields
        return "final exit" if self.exit == -1 else f"exit {self.exit + 1}"

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        if not -net.n_exits <= self.exit < net.n_exits:
            raise ValueError(f"exit {self.exit} is out of range: the network has {net.n_exits} exits")
        return everywhere(self.exit % net.n_exits, images), everywhere(0, images)


@dataclass(frozen=True)
class Taken(Deepest):
    """The exit that answers for the clean image."""

    display, colour, dash = "exit taken", "C1", ":"

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        decision = mechanism.run(net, images)
        return decision.exit, decision.cost


@dataclass(frozen=True)
class Average(OfExits):
    """Mean over all exits."""

    display, colour, dash = "average", "C2", "-"

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        return everywhere(net.n_exits - 1, images), everywhere(0, images)

    def of_exits(self, values: Tensor) -> Tensor:
        return values.mean(dim=0)


@dataclass(frozen=True)
class Answering(Loss):
    """The exit that answers for the adversarial image as it is now: what differentiating the network as deployed climbs."""

    display, colour, dash = "exit answering", "C6", ":"

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        return everywhere(net.n_exits - 1, images), everywhere(0, images)

    def __call__(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        exit, _ = mechanism.answering(Answers.of(logits))
        return F.cross_entropy(logits[exit, torch.arange(len(labels), device=labels.device)], labels, reduction="none")


@dataclass(frozen=True)
class MaxAverage(Loss):
    """For each image the single-exit attack that raises the mean cross-entropy over all exits most."""

    display, colour, dash = "max-average", "C3", "-."

    def candidates(self, net: MultiExitNetwork) -> list[Loss]:
        return [AtExit(k) for k in range(net.n_exits)]


def early_objective(logits: Tensor, labels: Tensor, alpha: float, relu: bool = True, classes: int | None = None) -> Tensor:
    """What the Early Attack minimises beside the distance, ``[batch]``: see ``dynlib.attacks.early`` for the formula.

    Args:
        logits: ``[exits, batch, classes]``.
        labels: what the final exit predicts for the clean images, ``[batch]``.
        alpha, relu, classes: as in ``EarlyAttack``.
    """
    p = logits.softmax(dim=-1)
    own = p.gather(-1, labels.expand(len(p), -1)[..., None])  # [exits, batch, 1]
    lead = own[-1] - p[-1, :, :classes]  # zero for j = y, so y may stay in the sum
    return own[:-1].sum(dim=(0, 2)) - alpha * (lead.relu() if relu else lead).sum(dim=-1)


class TowardsEarly(Loss):
    """Base of what pursues the Early Attack's goal: early exits leave the label, the final exit keeps it.

    Labels are what the final exit predicts for the clean images.
    """

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        if net.n_exits < 2:
            raise ValueError("the network has no early exits")
        return everywhere(net.n_exits - 1, images), everywhere(0, images)


@dataclass(frozen=True)
class Early(TowardsEarly):
    """The published objective, with as much weight on the final exit's lead as on the early exits' probabilities."""

    display, colour, dash = "as published", "C4", "-"

    def __call__(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        return -early_objective(logits, labels, alpha=1.0)


# What speaks for the label at an exit, and the bounds that are enough: early exits are not pushed below the lower one, the final
# exit not above the upper one.
EVIDENCE = {"probability": (0.0, 1.0), "log-probability": (-5.0, 0.0), "margin": (-2.0, 2.0)}
WEIGHTS = ("equal", "confidence", "answering")


@dataclass(frozen=True)
class EarlyVariant(TowardsEarly):
    """The evidence for the label at the final exit, less that at the early exits, which share the final exit's weight.

    Args:
        evidence: in ``EVIDENCE``; the margin is the label's logit less the largest other one.
        weights: of the early exits: ``"equal"``; ``"confidence"``, their largest probability; or ``"answering"``, only the exit
            that answers for the network as deployed (the last early one where the final exit does).
    """

    colour, dash = "C5", "-"

    evidence: str
    weights: str

    @property
    def display(self) -> str:  # type: ignore[override] # by its fields
        return f"{self.evidence}, {self.weights}"

    def __call__(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        low, high = EVIDENCE[self.evidence]
        evidence, weights = self._for(logits, labels), self._weights(logits.detach(), mechanism)
        return weights.sum(dim=0) * evidence[-1].clamp(max=high) - (weights * evidence[:-1].clamp(min=low)).sum(dim=0)

    def _for(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Evidence ``[exits, batch]``."""
        if self.evidence == "margin":
            return margin(logits, labels)
        scores = logits.softmax(dim=-1) if self.evidence == "probability" else logits.log_softmax(dim=-1)
        return scores.gather(-1, labels.expand(len(logits), -1)[..., None])[..., 0]

    def _weights(self, logits: Tensor, mechanism: Mechanism) -> Tensor:
        """Of the early exits, ``[exits - 1, batch]``."""
        if self.weights == "answering":
            last_early = len(logits) - 2
            return F.one_hot(mechanism.answering(Answers.of(logits))[0].clamp(max=last_early), last_early + 1).T.float()
        confidence = logits[:-1].softmax(dim=-1).amax(dim=-1)
        return confidence if self.weights == "confidence" else torch.ones_like(confidence)


LOSSES = {
    "final": AtExit(-1),
    "taken": Taken(),
    "answering": Answering(),
    "average": Average(),
    "max_average": MaxAverage(),
    "early": Early(),
}
EARLY_VARIANTS = {f"early={e}/{w}": EarlyVariant(e, w) for e, w in product(EVIDENCE, WEIGHTS)}


def get_loss(name: str) -> Loss:
    """A loss by name: one of ``LOSSES``, one of ``EARLY_VARIANTS``, or ``"exit=k"`` for the exit with index k.

    Raises:
        ValueError: unknown name.
    """
    start, _, number = name.partition("=")
    if start == "exit" and number.isdecimal():
        return AtExit(int(number))
    known = LOSSES | EARLY_VARIANTS
    if name not in known:
        raise ValueError(f"unknown loss {name!r}: choose one of {', '.join(known)} or exit=k")
    return known[name]
