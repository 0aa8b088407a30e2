"""Leave once exits in a row agree (PABEE: Zhou et al., NeurIPS 2020)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynlib.mechanisms.base import Answers, Mechanism
from dynlib.mechanisms.confidence import falls_back


@dataclass(frozen=True)
class PatienceExit(Mechanism):
    """Leave at the first exit that has answered as the ``patience`` exits before it did; else the final exit answers.

    Args:
        patience: at least 1.
    Raises:
        ValueError: patience below 1.
    """

    name = "patience"

    patience: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patience < 1:
            raise ValueError(f"patience {self.patience}: need a whole number from 1")

    def leaves(self, seen: Answers) -> Tensor:
        if len(seen) <= self.patience:
            return torch.zeros_like(seen.label[-1], dtype=torch.bool)
        return (seen.label[-1 - self.patience :] == seen.label[-1]).all(dim=0)

    def fall_back(self, answers: Answers) -> Tensor:
        return falls_back("final", answers.confidence)
