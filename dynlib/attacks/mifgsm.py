"""MI-FGSM: signed steps along a momentum of normalised gradients (Dong et al., CVPR 2018)."""

from dataclasses import dataclass

from torch import Tensor

from dynlib.attacks.base import Attack


@dataclass(frozen=True, kw_only=True)
class MIFGSM(Attack):
    """Momentum iterative FGSM, from the image. Settings of ``Attack``, and:

    Args:
        steps: number of gradient steps.
        step_size: by default ``eps / 4``.
        decay: factor of the momentum.
    """

    name, display, marker = "mifgsm", "MI-FGSM", "^"

    steps: int = 10
    step_size: float | None = None
    decay: float = 1.0

    @property
    def rate(self) -> float:
        return self.eps / 4 if self.step_size is None else self.step_size

    def accumulate(self, memory: Tensor, gradient: Tensor) -> Tensor:
        size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
        return self.decay * memory + gradient / size.clamp_min(1e-20)
