"""FGSM: one signed step to the border of the ball (Goodfellow, Shlens and Szegedy, ICLR 2015)."""

from dataclasses import dataclass

from dynlib.attacks.base import Attack


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    __doc__ = (Attack.__doc__ or "").replace("gradient ascent", "single gradient step")

    name, display, marker = "fgsm", "FGSM", "o"
