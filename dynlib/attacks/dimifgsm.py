"""DI-MI-FGSM: MI-FGSM on randomly resized and padded images (Xie et al., CVPR 2019)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dynlib.attacks.mifgsm import MIFGSM


@dataclass(frozen=True, kw_only=True)
class DIMIFGSM(MIFGSM):
    """MI-FGSM with diverse inputs, which transfers better. Settings of ``MIFGSM``, and:

    Args:
        diversity: probability that a step sees the images resized, in [0, 1].
        smallest: the smallest side that they are shrunk to, in pixels, from 1 to below their own; zeros fill up at a random place.
    Raises:
        ValueError: a setting out of range; ``smallest`` is compared with the images' side when they come.
    """

    name, display, marker = "dimifgsm", "DI-MI-FGSM", "v"

    diversity: float = 0.7
    smallest: int = 26

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.diversity <= 1:
            raise ValueError(f"diversity {self.diversity} is outside [0, 1]")
        if self.smallest < 1:
            raise ValueError(f"smallest side {self.smallest}: need at least 1")

    @property
    def random(self) -> bool:
        return self.diversity > 0

    def view(self, adversarial: Tensor, step: int) -> Tensor:
        full = adversarial.shape[-1]
        if self.smallest >= full:
            raise ValueError(f"smallest side {self.smallest} is outside 1 to {full - 1}")
        # One draw a step for all images, so that an image's result does not depend on the others in its batch.
        generator = torch.Generator().manual_seed(10_000 * self.seed + step)
        if torch.rand((), generator=generator) >= self.diversity:
            return adversarial

        def draw(low: int, high: int) -> int:
            return int(torch.randint(low, high, (), generator=generator))

        side = draw(self.smallest, full)
        room = full - side
        left, top = draw(0, room + 1), draw(0, room + 1)
        small = F.interpolate(adversarial, size=(side, side), mode="nearest")
        return F.pad(small, (left, room - left, top, room - top))
