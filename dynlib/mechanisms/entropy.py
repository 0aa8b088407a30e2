"""Leave once an exit is certain: its softmax has little entropy (BranchyNet: Teerapittayanon, McDanel and Kung, ICPR 2016)."""

from dataclasses import dataclass

from torch import Tensor

from dynlib.mechanisms.base import Answers, Mechanism
from dynlib.mechanisms.confidence import check_rule, falls_back


@dataclass(frozen=True)
class EntropyExit(Mechanism):
    """Leave at the first exit whose entropy is at most ``threshold``, as a share of the largest possible entropy.

    Args:
        threshold: in (0, 1).
        fall_back_to: who answers where no exit is certain: ``"most_confident"``, here the exit of least entropy, or ``"final"``.
    Raises:
        ValueError: threshold out of range, or unknown fall-back.
    """

    name, memoryless = "entropy", True

    threshold: float
    fall_back_to: str = "final"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(self.threshold, self.fall_back_to)

    def leaves(self, seen: Answers) -> Tensor:
        return seen.entropy[-1] <= self.threshold

    def fall_back(self, answers: Answers) -> Tensor:
        return falls_back(self.fall_back_to, -answers.entropy)
