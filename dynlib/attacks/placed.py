"""Losses at some of a network's exits: a *place*, which says at which of them, and a *criterion*, the number of each exit.

Each loss says how deep the network has to be run for each image, and nothing deeper is computed.
"""

from dataclasses import dataclass, field
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
        """The losses to attack with; of several, each image keeps the attack that raises the criterion's mean most."""
        return [self]

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        """The deepest exit that the gradient of each clean image needs, and the MACs spent to find out: int64 ``[batch]`` each."""
        raise NotImplementedError

    def run(self, net: MultiExitNetwork, images: Tensor, depth: int) -> tuple[Tensor, Tensor, Tensor]:
        """The network run for its gradient: what the loss is taken of, logits ``[depth + 1, batch, classes]``, the last features.

        Here the loss is taken of the logits.
        """
        features, each = images, []
        for k in range(depth + 1):
            features = net.segment(k, features)
            each.append(net.classify(k, features))
        logits = torch.stack(each)
        return logits, logits, features

    def __call__(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        """Losses ``[batch]`` from the logits ``[depth + 1, batch, classes]`` of the exits that were run."""
        raise NotImplementedError


def everywhere(number: int, images: Tensor) -> Tensor:
    return torch.full((len(images),), number, device=images.device)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The label's logit less the largest other one, ``[exits, batch]`` from logits ``[exits, batch, classes]``."""
    index = labels.expand(len(logits), -1)[..., None]
    return (logits.gather(-1, index) - logits.scatter(-1, index, -torch.inf).amax(dim=-1, keepdim=True))[..., 0]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """``[exits, batch]`` from logits ``[exits, batch, classes]``."""
    exits, batch, _ = logits.shape
    return F.cross_entropy(logits.flatten(0, 1), labels.repeat(exits), reduction="none").view(exits, batch)


def lead_of_another(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest other logit less the label's, ``[exits, batch]``: it pulls where cross-entropy is too sure to have a gradient."""
    return -margin(logits, labels)


CRITERIA = {"cross-entropy": cross_entropy, "margin": lead_of_another}


@dataclass(frozen=True)
class Placed(Loss):
    """Base of the losses with a criterion, one of ``CRITERIA``; figures name it where it is not the cross-entropy."""

    place: ClassVar[str]

    criterion: str = field(default="cross-entropy", kw_only=True)

    @property
    def display(self) -> str:  # type: ignore[override] # depends on the criterion
        return self.place if self.criterion == "cross-entropy" else f"{self.place}, {self.criterion}"

    def of_each(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The criterion of each exit, ``[exits, batch]``."""
        return CRITERIA[self.criterion](logits, labels)


class OfExits(Placed):
    """Base of the losses that put the numbers of all exits that are run together, whatever they are."""

    def of_exits(self, values: Tensor) -> Tensor:
        """From the values ``[depth + 1, batch]`` of the exits that were run to ``[batch]``."""
        raise NotImplementedError

    def __call__(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        return self.of_exits(self.of_each(logits, labels))


class Deepest(OfExits):
    """The deepest exit that is run; subclasses say which one that is."""

    def of_exits(self, values: Tensor) -> Tensor:
        return values[-1]


@dataclass(frozen=True)
class AtExit(Deepest):
    """One exit: its index, from 0, or -1 for the final one. Figures count exits from 1."""

    colour, dash = "C4", "--"

    exit: int

    @property
    def place(self) -> str:  # type: ignore[override] # depends on the exit
        return "final exit" if self.exit == -1 else f"exit {self.exit + 1}"

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        if not -net.n_exits <= self.exit < net.n_exits:
            raise ValueError(f"exit {self.exit} is out of range: the network has {net.n_exits} exits")
        return everywhere(self.exit % net.n_exits, images), everywhere(0, images)


@dataclass(frozen=True)
class Taken(Deepest):
    """The exit that answers for the clean image."""

    place, colour, dash = "exit taken", "C5", "-"

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        decision = mechanism.run(net, images)
        return decision.exit, decision.cost


@dataclass(frozen=True)
class Average(OfExits):
    """Mean over all exits."""

    place, colour, dash = "average", "C0", "-"

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        return everywhere(net.n_exits - 1, images), everywhere(0, images)

    def of_exits(self, values: Tensor) -> Tensor:
        return values.mean(dim=0)


@dataclass(frozen=True)
class Ensemble(Placed):
    """All exits as one: the criterion of the mean of their logits, so that they are pushed to one wrong class together.

    The ensemble in logits of Dong et al. (CVPR 2018); ``Average`` is theirs in loss.
    """

    place, colour, dash = "mean of the logits", "C0", "--"  # in the hue of the average

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        return everywhere(net.n_exits - 1, images), everywhere(0, images)

    def __call__(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        return self.of_each(logits.mean(dim=0, keepdim=True), labels)[0]


@dataclass(frozen=True)
class Answering(Placed):
    """The exit that answers for the adversarial image as it is now: what differentiating the network as deployed climbs."""

    place, colour, dash = "exit answering", "C6", ":"

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        return everywhere(net.n_exits - 1, images), everywhere(0, images)

    def __call__(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        exit, _ = mechanism.answering(Answers.of(logits))
        return self.of_each(logits, labels).gather(0, exit[None])[0]


@dataclass(frozen=True)
class MaxAverage(Placed):
    """For each image the single-exit attack that raises the criterion's mean over all exits most."""

    place, colour, dash = "max-average", "C7", "-."

    def candidates(self, net: MultiExitNetwork) -> list[Loss]:
        return [AtExit(k, criterion=self.criterion) for k in range(net.n_exits)]
