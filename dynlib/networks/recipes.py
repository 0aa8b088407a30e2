"""How to train: schedules of the learning rate, and the recipes of each kind of network.

The full recipe is that of Shallow-Deep Networks (Kaya, Hong and Dumitras, ICML 2019); the short one is for CPUs.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace


def stepwise(progress: float) -> float:
    """A tenth after each of 35, 60 and 85 % of the training."""
    return 0.1 ** sum(progress >= milestone for milestone in (0.35, 0.60, 0.85))


def one_cycle(progress: float) -> float:
    """Linear warm-up over the first quarter, then a cosine to zero."""
    return progress / 0.25 if progress < 0.25 else (1 + math.cos(math.pi * (progress - 0.25) / 0.75)) / 2


def restarted(progress: float) -> float:
    """One cycle over the first three fifths, then a warm restart (Loshchilov and Hutter, ICLR 2017): a cosine from 1 to zero."""
    return one_cycle(progress / 0.6) if progress < 0.6 else (1 + math.cos(math.pi * (progress - 0.6) / 0.4)) / 2


def constant(progress: float) -> float:
    return 1.0


@dataclass(frozen=True)
class Recipe:
    """How to train.

    ``schedule`` maps progress in [0, 1) to a factor of the learning rate, ``weight_decay`` None is that of Shallow-Deep Networks
    (5e-4 for VGG-16, 1e-4 for the others), ``ramp`` is the share of the training over which the weights of the joint loss grow,
    ``clip`` bounds the gradient's norm.
    """

    epochs: int
    learning_rate: float
    schedule: Callable[[float], float]
    optimiser: str = "sgd"
    weight_decay: float | None = None
    batch: int = 128
    ramp: float = 1.0
    clip: float = math.inf
    images: int | None = None

    def describe(self) -> dict:
        return {**asdict(self), "schedule": self.schedule.__name__, "clip": self.clip if self.clip < math.inf else None}


_FULL, _HEADS = Recipe(100, 0.1, stepwise), Recipe(25, 1e-3, constant, "adam")
_SHORT = Recipe(15, 0.1, one_cycle, weight_decay=5e-4, ramp=0.75, clip=5.0)
_TINY = Recipe(3, 0.05, one_cycle, clip=5.0, batch=64, images=256)
# By name, of a whole network and of the heads on a frozen backbone; the best first.
RECIPES = {
    "full": (_FULL, _HEADS),
    "short": (_SHORT, replace(_HEADS, epochs=5)),
    "tiny": (_TINY, replace(_HEADS, epochs=3, batch=64, images=256)),
}
# The wider networks learn ten classes in fewer epochs, and take longer for one. VGG-16, whose last layers have no batch norm, loses
# its first epochs at the larger rate; with a hundred classes and no exits to help, even at half of it, and needs more of them.
_SHORT_FOR = {
    ("mobilenet", "cifar10"): {"epochs": 12},
    ("vgg16", "cifar10"): {"epochs": 12, "learning_rate": 0.05},
    ("vgg16", "cifar100"): {"learning_rate": 0.05},
    ("vgg16", "cifar100", "sdnn"): {"learning_rate": 0.02, "epochs": 25, "schedule": restarted},
}


def find(name: str, model: str, dataset: str, kind: str) -> Recipe:
    """The recipe of this name for a network (see ``dynlib.networks.checkpoints``).

    Raises:
        ValueError: unknown recipe.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}")
    whole, heads = RECIPES[name]
    if kind == "ic_only":
        return heads
    if name != "short":
        return whole
    return replace(whole, **_SHORT_FOR.get((model, dataset), {}) | _SHORT_FOR.get((model, dataset, kind), {}))
