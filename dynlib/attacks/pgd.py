"""PGD: projected signed steps from a random start (Madry et al., ICLR 2018)."""

from dataclasses import dataclass

from torch import Tensor

from dynlib.attacks.base import Attack, uniform_noise


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient ascent. Settings of ``Attack``, and:

    Args:
        steps: number of gradient steps.
        step_size: by default ``eps / 4``.
        random_start: whether to start at a uniformly random point of the ball, else at the image.
    """

    name, display, marker = "pgd", "PGD", "s"

    steps: int = 10
    step_size: float | None = None
    random_start: bool = True

    @property
    def rate(self) -> float:
        return self.eps / 4 if self.step_size is None else self.step_size

    def start(self, images: Tensor) -> Tensor:
        if not self.random_start:
            return images.clone()
        return self.project(images + self.eps * uniform_noise(images, self.seed), images)
