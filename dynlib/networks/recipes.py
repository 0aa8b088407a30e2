"""How to train: schedules of the learning rate, and the recipes of whole networks, of heads and of gates on a trained backbone.

The full recipe is that of Shallow-Deep Networks (Kaya, Hong and Dumitras, ICML 2019); ``cpu`` is for CPUs. The static and the
dynamic network of a cell always have the same recipe.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from dynlib.networks.identity import Network


def stepwise(progress: float) -> float:
    """A tenth after each of 35, 60 and 85 % of the training."""
    return 0.1 ** sum(progress >= milestone for milestone in (0.35, 0.60, 0.85))


def linear(progress: float) -> float:
    """Linear warm-up over the first 15 %, then linear to zero."""
    return progress / 0.15 if progress < 0.15 else (1 - progress) / 0.85


def constant(progress: float) -> float:
    return 1.0


@dataclass(frozen=True)
class Recipe:
    """How to train.

    ``schedule`` maps progress in [0, 1) to a factor of the learning rate, ``optimiser`` is a name in
    ``dynlib.networks.optimisers``, ``precision`` that of forward and backward passes (``"float32"``, or ``"bfloat16"`` for mixed
    precision), ``ramp`` the share of the training over which the weights of the joint loss grow and the noise of gates fades,
    ``clip`` bounds the gradient's norm, ``images`` is the number of training images (by default all).
    """

    epochs: int
    learning_rate: float
    schedule: Callable[[float], float]
    optimiser: str = "sgd"
    weight_decay: float = 1e-4
    batch: int = 128
    precision: str = "float32"
    ramp: float = 1.0
    clip: float = math.inf
    images: int | None = None

    def describe(self) -> dict[str, Any]:
        return {**asdict(self), "schedule": self.schedule.__name__, "clip": self.clip if self.clip < math.inf else None}


_CPU = Recipe(24, 0.1, linear, "muon", weight_decay=5e-4, precision="bfloat16", ramp=0.75)
_HEADS = Recipe(25, 1e-3, constant, "adam", weight_decay=0.0)
_GATES = Recipe(40, 0.05, linear, "nesterov", weight_decay=5e-4, ramp=0.75)
# By name, of a whole network, of the heads on a frozen backbone, and of a network whose gates start from a trained one; the best
# first.
RECIPES = {
    "full": (Recipe(100, 0.1, stepwise), _HEADS, _GATES),
    "cpu": (_CPU, replace(_HEADS, epochs=10, precision="bfloat16"), replace(_GATES, epochs=12, precision="bfloat16")),
    "tiny": (
        Recipe(3, 0.05, linear, clip=5.0, batch=64, images=256),
        replace(_HEADS, epochs=3, batch=64, images=256),
        replace(_GATES, epochs=3, clip=5.0, batch=64, images=256),
    ),
}
# What gates are trained for: the share of the full cost that a batch is to have on average, and how much missing it weighs. A miss
# by 0.1 costs 0.1, about what a trained network's cross-entropy is.
GATES = {"target": 0.6, "weight": 10.0}
# What networks of the regime "adversarial" are trained on: FGSM from a random start, with a step longer than the radius (Wong, Rice
# and Kolter, "Fast is better than free", ICLR 2020), on the mean loss of the exits.
ADVERSARY = {"eps": 8 / 255, "step_size": 10 / 255}
# What differs by model. VGG-16's decay is that of Shallow-Deep Networks, and an epoch of it takes a CPU twice as long as one of
# the others; MobileNet's wide pointwise kernels make Muon's step cost as much as its gradient.
_FOR: dict[tuple[str, str], dict[str, Any]] = {
    ("full", "vgg16"): {"weight_decay": 5e-4},
    ("cpu", "vgg16"): {"epochs": 12},
    ("cpu", "mobilenet"): {"optimiser": "nesterov", "learning_rate": 0.2},
}


def find(name: str, network: Network) -> Recipe:
    """The recipe of this name for a network.

    Raises:
        ValueError: unknown recipe.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}")
    whole, heads, gates = RECIPES[name]
    if network.has_gates:
        return gates
    return heads if network.trained == "heads" else replace(whole, **_FOR.get((name, network.model), {}))


def rank(name: str) -> int:
    """How good a recipe is, 0 for the best; one that is no longer here comes last."""
    return list(RECIPES).index(name) if name in RECIPES else len(RECIPES)
