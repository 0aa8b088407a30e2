"""PGD: projected signed steps from a random start (Madry et al., ICLR 2018)."""

from dataclasses import dataclass

from torch import Tensor

from dynlib.attacks.base import Iterative
from dynlib.attacks.tools import uniform_noise


@dataclass(frozen=True, kw_only=True)
class PGD(Iterative):
    """Projected gradient ascent. Settings of ``Iterative``, and:

    Args:
        random_start: whether to start at a uniformly random point of the ball, else at the image.
    """

    name, display, marker = "pgd", "PGD", "s"

    random_start: bool = True

    @property
    def random(self) -> bool:
        return self.random_start

    def start(self, images: Tensor) -> Tensor:
        if not self.random_start:
            return images.clone()
        return self.project(images + self.eps * uniform_noise(images, self.seed), images)
