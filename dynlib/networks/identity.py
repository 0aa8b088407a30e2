"""Which network is meant: the one place that makes and reads ids, paths and titles.

net = Network("cifar10", "resnet56")              # the dynamic network with all exits, trained jointly, seed 0
net.sibling(exits="none").id                      # "cifar10-resnet56-sdnn"
Network.parse("cifar100-vgg16-dynn-seed1").seed   # 1
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from dynlib.datasets import DATASETS
from dynlib.networks.backbones import MODELS
from dynlib.settings import settle

# Choices of a model's usual early exits, of n, from 0; ``early_exits`` reads more of them.
EXITS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "none": lambda n: (),
    "all": lambda n: tuple(range(n)),
    "early": lambda n: tuple(range(n // 2)),
    "late": lambda n: tuple(range(n // 2, n)),
    "sparse": lambda n: (0, n // 2),
}


def early_exits(choice: str, n: int) -> tuple[int, ...]:
    """Which of ``n`` early exits a choice keeps, from 0, increasing.

    A choice is a name in ``EXITS``; ``"from3"``, the third exit and all behind it; ``"spread2"``, so many, spread evenly from the
    first on; or numbers from 1, such as ``"2+4"``.

    Raises:
        ValueError: not a choice, or one that ``n`` exits do not allow.
    """
    if choice in EXITS:
        return EXITS[choice](n)
    if match := re.fullmatch(r"(from|spread)([1-9]\d*)", choice):
        number = int(match[2])
        kept = tuple(range(number - 1, n)) if match[1] == "from" else tuple(n * k // number for k in range(number))
    elif re.fullmatch(r"[1-9]\d*(\+[1-9]\d*)*", choice):
        kept, number = tuple(int(k) - 1 for k in choice.split("+")), 0
    else:
        raise ValueError(f"unknown exits {choice!r}: choose one of {', '.join(EXITS)}, from3, spread2 or 2+4")
    if list(kept) != sorted({*kept} & {*range(n)}) or not kept or number > n:
        raise ValueError(f"exits {choice!r}: there are {n} early exits, and they go in increasing order")
    return kept


GATES = "gates"  # in the place of early exits: blocks that are skipped

# joint: backbone and exits at once. heads: the exits on the frozen backbone of the static network.
TRAINED = {"joint": "dynn", "heads": "ic_only"}
REGIMES = ("standard", "adversarial")


class Look(NamedTuple):
    """How figures show a kind of network."""

    display: str
    colour: str
    marker: str


# The kinds that every cell has; a cell is a model on a data set.
KINDS = {"sdnn": Look("SDNN", "black", "o"), "dynn": Look("DyNN", "C0", "s"), "ic_only": Look("DyNN, exits only", "C1", "^")}


@dataclass(frozen=True)
class Network:
    """What tells a network from all others.

    Args:
        dataset: name in ``DATASETS``.
        model: name of a backbone in ``MODELS``.
        exits: a choice, see ``early_exits``; ``"none"`` is the static network, ``"gates"`` has gates in their place.
        trained: ``"joint"``, or ``"heads"`` on the frozen backbone of the static network.
        regime: ``"standard"`` or ``"adversarial"`` training.
        seed: of the training, at least 0.
    Raises:
        ValueError: an unknown name, a negative seed, heads without exits, or gates where no block can be skipped.
    """

    dataset: str
    model: str
    exits: str = "all"
    trained: str = "joint"
    regime: str = "standard"
    seed: int = 0

    def __post_init__(self) -> None:
        settle(self)
        known: dict[str, Collection[str]] = {"dataset": DATASETS, "model": MODELS, "trained": TRAINED, "regime": REGIMES}
        for name, names in known.items():
            if getattr(self, name) not in names:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(names)}")
        _ = self.exit_indices  # raises where it has no such exits
        if self.seed < 0:
            raise ValueError(f"training seed {self.seed}: need a whole number from 0")
        if self.has_gates and not MODELS[self.model].shortcuts:
            raise ValueError(f"{self.model} has no block with an identity shortcut, which a gate could skip")
        if not self.exit_indices and self.trained == "heads":
            what = "network with gates" if self.has_gates else "static network"
            raise ValueError(f"a {what} has no exits whose heads could be trained")

    @classmethod
    def of(cls, model: str, dataset: str, kind: str, seed: int = 0) -> Self:
        """The network of a kind, such as ``"sdnn"``, ``"dynn"``, ``"ic_only"`` or ``"dynn_early"``.

        Raises:
            ValueError: unknown name.
        """
        if kind == "sdnn":
            return cls(dataset, model, "none", seed=seed)
        for trained, name in TRAINED.items():
            exits = "all" if kind == name else kind.removeprefix(f"{name}_")
            if kind == name or (kind.startswith(f"{name}_") and exits not in ("all", "none")):
                return cls(dataset, model, exits, trained, seed=seed)
        raise ValueError(f"unknown kind {kind!r}: choose one of {', '.join(KINDS)}")

    @classmethod
    def parse(cls, id: str) -> Self:
        """The network with an id.

        Raises:
            ValueError: not an id.
        """
        parts = re.fullmatch(r"([^-]+)-([^-]+)-([^-]+)(-adversarial)?(?:-seed([1-9]\d*))?", id)
        if parts is None:
            raise ValueError(f"{id!r} is not the id of a network, such as cifar10-resnet56-dynn")
        dataset, model, kind, adversarial, seed = parts.groups()
        return replace(cls.of(model, dataset, kind, int(seed or 0)), regime="adversarial" if adversarial else "standard")

    @property
    def kind(self) -> str:
        """For example ``"sdnn"``, ``"dynn"`` or ``"ic_only"``: exits and training in one word."""
        if self.is_static:
            return "sdnn"
        return TRAINED[self.trained] + ("" if self.exits == "all" else f"_{self.exits}")

    @property
    def id(self) -> str:
        regime, seed = ("" if self.regime == "standard" else f"-{self.regime}"), (f"-seed{self.seed}" if self.seed else "")
        return f"{self.dataset}-{self.model}-{self.kind}{regime}{seed}"

    def __str__(self) -> str:
        return self.id

    @property
    def is_static(self) -> bool:
        return self.exits == "none"

    @property
    def has_gates(self) -> bool:
        return self.exits == GATES

    @property
    def from_static(self) -> bool:
        """Whether its training starts from the static network: heads stay on that backbone, gates change it."""
        return self.trained == "heads" or self.has_gates

    @property
    def cell(self) -> tuple[str, str]:
        """Data set and model."""
        return self.dataset, self.model

    @property
    def parts(self) -> tuple[str, str, str]:
        """Data set, model and kind: what tables say about it."""
        return self.dataset, self.model, self.kind

    @property
    def exit_indices(self) -> tuple[int, ...]:
        """Which of the model's usual early exits it has, from 0."""
        return () if self.has_gates else early_exits(self.exits, len(MODELS[self.model].exit_after))

    @property
    def exit_after(self) -> tuple[int, ...]:
        """The blocks (1-based) that its early exits follow."""
        return tuple(MODELS[self.model].exit_after[k] for k in self.exit_indices)

    @property
    def rank(self) -> tuple[int | str, ...]:
        """Its place in the order of tables and figures: by data set, model, exits, training, regime and seed."""
        orders: tuple[Collection[str], ...] = (DATASETS, MODELS, [*EXITS, self.exits], TRAINED, REGIMES)
        names = (self.dataset, self.model, self.exits, self.trained, self.regime)
        places = [list(order).index(name) for order, name in zip(orders, names, strict=True)]
        return (*places, self.seed, self.exits)

    @property
    def title(self) -> str:
        """For people, for example ``"ResNet-56, CIFAR-10, DyNN, seed 1"``."""
        look = KINDS["sdnn" if self.is_static else TRAINED[self.trained]]
        parts = [cell_name(*self.cell), look.display]
        parts += [self.exits if self.has_gates else f"{self.exits} exits"] if self.exits not in ("none", "all") else []
        parts += [self.regime] if self.regime != "standard" else []
        return ", ".join(parts + ([f"seed {self.seed}"] if self.seed else []))

    @property
    def static(self) -> Self:
        """The static network of its training: its exits are left out, and all else is the same."""
        return self.sibling(exits="none")

    def sibling(self, **changes: Any) -> Self:
        """The network that differs in these fields; a change to no exits makes it static.

        Raises:
            ValueError: see the class; or an unknown field.
        """
        if unknown := set(changes) - {field.name for field in fields(self)}:
            raise ValueError(f"a network has no field {min(unknown)!r}")
        if changes.get("exits") == "none":
            changes["trained"] = "joint"
        return replace(self, **changes)

    def path(self, folder: Path) -> Path:
        """Its weights' file; the card lies beside it."""
        return folder / f"{self.id}.safetensors"


def beside(networks: Iterable[Network]) -> Callable[[Network, Network], bool]:
    """Whether tables set two of these networks beside each other: one regime, and trainings of one place.

    The place of a training is that of its seed among the cell's: the only training of one model goes with that of another.
    """
    seeds: dict[tuple[str, ...], set[int]] = {}
    for network in networks:
        seeds.setdefault((*network.cell, network.regime), set()).add(network.seed)

    def place(network: Network) -> int:
        return sorted(seeds[*network.cell, network.regime]).index(network.seed)

    return lambda one, other: one.regime == other.regime and place(one) == place(other)


def cell_name(dataset: str, model: str) -> str:
    """A cell for people, for example ``"ResNet-56, CIFAR-10"``."""
    return f"{MODELS[model].display}, {DATASETS[dataset].display}"
