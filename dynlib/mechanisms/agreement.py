"""Leave once two exits in a row agree and the second is confident: one exit alone decides nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynlib.mechanisms.base import Answers, Mechanism
from dynlib.mechanisms.confidence import check_rule, falls_back


@dataclass(frozen=True)
class AgreementExit(Mechanism):
    """Leave at the first exit that is confident and answers as the exit before it; else the final exit answers.

    The rules of ``ConfidenceExit`` and of ``PatienceExit`` with a patience of 1, both at once.

    Args:
        threshold: of the largest softmax probability, in (0, 1).
    Raises:
        ValueError: threshold out of range.
    """

    name = "agreement"

    threshold: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(self.threshold, "final")

    def leaves(self, seen: Answers) -> Tensor:
        if len(seen) < 2:
            return torch.zeros_like(seen.label[-1], dtype=torch.bool)
        return (seen.confidence[-1] >= self.threshold) & (seen.label[-1] == seen.label[-2])

    def fall_back(self, answers: Answers) -> Tensor:
        return falls_back("final", answers.confidence)
