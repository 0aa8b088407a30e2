"""MI-FGSM: signed steps along a momentum of normalised gradients (Dong et al., CVPR 2018)."""

from dataclasses import dataclass

from torch import Tensor

from dynlib.attacks.base import Iterative


@dataclass(frozen=True, kw_only=True)
class MIFGSM(Iterative):
    """Momentum iterative FGSM, from the image. Settings of ``Iterative``, and:

    Args:
        decay: factor of the momentum, at least 0.
    Raises:
        ValueError: a setting out of range.
    """

    name, display, marker = "mifgsm", "MI-FGSM", "^"

    decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.decay >= 0:
            raise ValueError(f"decay {self.decay} is negative")

    def accumulate(self, memory: Tensor, gradient: Tensor) -> Tensor:
        size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
        return self.decay * memory + gradient / size.clamp_min(1e-20)
