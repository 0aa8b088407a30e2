"""Leave once an exit is confident (Shallow-Deep Networks: Kaya, Hong and Dumitras, ICML 2019)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynlib.mechanisms.base import Answers, Mechanism

FALL_BACKS = ("most_confident", "final")


def check_rule(threshold: float, fall_back_to: str) -> None:
    """Raises ValueError for a threshold out of range, or an unknown fall-back."""
    if not 0 < threshold < 1:
        raise ValueError(f"threshold {threshold} is outside (0, 1)")
    if fall_back_to not in FALL_BACKS:
        raise ValueError(f"unknown fall-back {fall_back_to!r}: choose one of {', '.join(FALL_BACKS)}")


def falls_back(name: str, sureness: Tensor) -> Tensor:
    """The exit that answers, int64 ``[n]``: the surest one, or the final one; from ``[exits, n]``."""
    return sureness.argmax(dim=0) if name == "most_confident" else torch.full_like(sureness[0], len(sureness) - 1).long()


@dataclass(frozen=True)
class ConfidenceExit(Mechanism):
    """Leave at the first exit whose largest softmax probability is at least ``threshold``.

    Args:
        threshold: in (0, 1).
        fall_back_to: who answers where no exit is confident: ``"most_confident"``, the exit with the largest probability, as in
            Shallow-Deep Networks; or ``"final"``, the final exit.
    Raises:
        ValueError: threshold out of range, or unknown fall-back.
    """

    name, memoryless = "confidence", True

    threshold: float = 0.9
    fall_back_to: str = "most_confident"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(self.threshold, self.fall_back_to)

    def leaves(self, seen: Answers) -> Tensor:
        return seen.confidence[-1] >= self.threshold

    def fall_back(self, answers: Answers) -> Tensor:
        return falls_back(self.fall_back_to, answers.confidence)


@dataclass(frozen=True)
class ThresholdPerExit(Mechanism):
    """``ConfidenceExit`` with a threshold for each early exit; the final exit answers whoever is left.

    Args:
        thresholds: in (0, 1], one for each early exit.
    Raises:
        ValueError: a threshold out of range; on use, another number of them than the network has early exits.
    """

    name = "thresholds"

    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        for threshold in self.thresholds:
            if not 0 < threshold <= 1:
                raise ValueError(f"threshold {threshold} is outside (0, 1]")

    def leaves(self, seen: Answers) -> Tensor:
        # No confidence reaches infinity: the final exit lets nobody go, it answers for all who are left.
        return seen.confidence[-1] >= (*self.thresholds, torch.inf)[len(seen) - 1]

    def fall_back(self, answers: Answers) -> Tensor:
        return falls_back("final", answers.confidence)

    def check(self, n_exits: int) -> None:
        if n_exits != len(self.thresholds) + 1:
            raise ValueError(f"{len(self.thresholds)} thresholds for {n_exits - 1} early exits: need one for each")
