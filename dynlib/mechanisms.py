"""Mechanisms: how a dynamic network turns its exits into one answer, and how it really skips the rest.

A new mechanism is one class with ``leaves`` and ``fall_back``.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dynlib.networks.exits import MultiExitNetwork

FALL_BACKS = ("most_confident", "final")


class Decision(NamedTuple):
    """What a dynamic network as deployed does with each image; int64 ``[batch]`` each, but for ``logits``.

    ``label`` is the answer, ``exit`` the exit that gave it, ``depth`` the deepest exit that was run, and so what the answer cost.
    The two differ only where no exit was confident and an earlier exit's answer was taken at full cost.
    ``logits`` ``[batch, classes]`` are those of ``exit``.
    """

    label: Tensor
    exit: Tensor
    depth: Tensor
    logits: Tensor


class Mechanism:
    """Base of all exit mechanisms: an image leaves at the first exit that says so, else ``fall_back`` chooses among all exits."""

    def leaves(self, logits: Tensor) -> Tensor:
        """For logits ``[..., classes]`` of an exit: which images leave there, bool ``[...]``."""
        raise NotImplementedError

    def fall_back(self, logits: Tensor) -> Tensor:
        """For logits ``[exits, batch, classes]`` of images that no exit let go: the exit that answers, int64 ``[batch]``."""
        raise NotImplementedError

    def decide(self, logits: Tensor) -> Decision:
        """The decisions, from logits ``[exits, batch, classes]`` of all exits."""
        leaves = self.leaves(logits)
        left = leaves.any(dim=0)
        first = leaves.int().argmax(dim=0)
        exit = torch.where(left, first, self.fall_back(logits))
        depth = torch.where(left, first, len(logits) - 1)
        answers = logits[exit, torch.arange(logits.shape[1], device=logits.device)]
        return Decision(answers.argmax(dim=-1), exit, depth, answers)

    @torch.no_grad()
    def infer(self, net: MultiExitNetwork, images: Tensor) -> Decision:
        """The same decisions, computed as deployed: images that have left are computed no further.

        Args:
            net: a network in evaluation mode.
            images: ``[batch, 3, 32, 32]`` in [0, 1].
        """
        waiting, features = torch.arange(len(images), device=images.device), images
        seen, order, decisions = None, [], []
        for k in range(net.n_exits):
            features = net.segment(k, features)
            logits = net.classify(k, features)[None]
            seen = logits if seen is None else torch.cat([seen, logits])
            leaves = self.leaves(seen[k]) if k < net.n_exits - 1 else torch.ones_like(waiting, dtype=torch.bool)
            order.append(waiting[leaves])
            decisions.append(self.decide(seen[:, leaves]))  # earlier exits held these images back, so this is their decision
            waiting, features, seen = waiting[~leaves], features[~leaves], seen[:, ~leaves]
            if len(waiting) == 0:
                break
        back = torch.cat(order).argsort()
        return Decision(*(torch.cat(column)[back] for column in zip(*decisions, strict=True)))


@dataclass(frozen=True)
class ConfidenceExit(Mechanism):
    """Leave at the first exit whose largest softmax probability is at least ``threshold`` (Shallow-Deep Networks).

    Args:
        threshold: in (0, 1).
        fall_back_to: who answers where no exit is confident: ``"most_confident"``, the exit with the largest probability, as in
            Shallow-Deep Networks; or ``"final"``, the final exit.
    Raises:
        ValueError: threshold out of range, or unknown fall-back.
    """

    threshold: float = 0.9
    fall_back_to: str = "most_confident"

    def __post_init__(self):
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold {self.threshold} is outside (0, 1)")
        if self.fall_back_to not in FALL_BACKS:
            raise ValueError(f"unknown fall-back {self.fall_back_to!r}: choose one of {', '.join(FALL_BACKS)}")

    def leaves(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1).amax(dim=-1) >= self.threshold

    def fall_back(self, logits: Tensor) -> Tensor:
        if self.fall_back_to == "final":
            return torch.full((logits.shape[1],), len(logits) - 1, device=logits.device)
        return logits.softmax(dim=-1).amax(dim=-1).argmax(dim=0)


class Deployed(nn.Module):
    """A network and its mechanism as an ordinary classifier: images to the answering exit's logits ``[batch, classes]``.

    It runs every exit so that the answer can be differentiated; ``Mechanism.infer`` is the way to save computation.
    """

    def __init__(self, net: MultiExitNetwork, mechanism: Mechanism):
        super().__init__()
        self.net, self.mechanism = net, mechanism

    def forward(self, images: Tensor) -> Tensor:
        return self.mechanism.decide(self.net(images)).logits
