"""A new data set, network, mechanism, goal and attack, defined here and nowhere else, and taken through the whole house.

``test_extend.py`` runs this in a copy of the project, in a process of its own: what is registered here stays here.
"""

import os
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn

from dynlib import craft, data, figures, profiles
from dynlib.analysis.measured import Records
from dynlib.analysis.transfer import directions, right_when_clean
from dynlib.attacks import ATTACKS, PGD
from dynlib.attacks.goals import GOALS, Goal
from dynlib.datasets import DATASETS, Dataset
from dynlib.mechanisms import MECHANISMS, Mechanism
from dynlib.networks.backbones import MODELS, Backbone, Model
from dynlib.networks.identity import Network
from dynlib.networks.training import train


def stack(classes: int) -> Backbone:
    """Twelve small blocks."""
    widths = [3, *[6] * 12]
    blocks = [nn.Sequential(nn.Conv2d(i, o, 3, 2 if i == 3 else 1, 1), nn.ReLU()) for i, o in pairwise(widths)]
    return Backbone(nn.Identity(), blocks, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes)))


@dataclass(frozen=True)
class MarginExit(Mechanism):
    """Leave where the two largest probabilities are far apart."""

    name = "margin"

    least: float = 0.1

    def leaves(self, seen):
        return seen.margin[-1] >= self.least

    def fall_back(self, answers):
        return torch.full_like(answers.label[-1], len(answers) - 1)


class Unsure(Goal):
    """No exit is confident."""

    name = "unsure"
    needs_early_exits = False

    def reached(self, logits, labels, mechanism):
        return (logits.softmax(dim=-1).amax(dim=-1) < 0.5).all(dim=0)


@dataclass(frozen=True, kw_only=True)
class Brighten(PGD):
    """Add light, whatever the gradient says."""

    name, display, marker = "brighten", "brighten", "h"

    goal: str = "unsure"

    def step(self, adversarial, direction):
        return adversarial + self.rate


DATASETS_TO_MAKE = (("train", 400), ("test", 40))
PROFILE = {
    "device": "cpu",
    "recipe": None,
    "seed": 7,
    "mechanism": {"mechanism": "margin", "least": 0.05},
    "networks": [{"dataset": "shapes", "model": "stack", "trained": "joint"}],
    "campaigns": {
        "clean": {"images": {"test": 40}, "attacks": [{"attack": "none"}]},
        "made": {
            "images": {"test": 20},
            "attacks": [{"attack": "brighten", "steps": 2}, {"attack": "pgd", "steps": 2, "each": {"eps": ["2/255", "16/255"]}}],
        },
    },
    "timing": {"images": 1, "batches": [1], "rounds": 1},
    "notebooks": {},
}


def main(folder: Path) -> None:
    rng, arrays, digests = np.random.default_rng(0), {}, {}
    for part, n in DATASETS_TO_MAKE:
        labels = np.arange(n) % 7
        images = (30 * labels[:, None, None, None] + rng.integers(0, 20, (n, 64, 64, 3))).astype(np.uint8)
        digests[part] = data.digest(*data.canonical(images, labels))
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    np.savez(folder / "shapes.npz", **arrays)
    os.environ["DYNLIB_DATA"] = str(folder)
    DATASETS["shapes"] = Dataset(
        "shapes", "Shapes", classes=7, mean=(0.4,) * 3, std=(0.2,) * 3, digests=digests, side=64, validation=70
    )
    MODELS["stack"] = Model("Stack", stack, tuple(range(1, 12)))
    MECHANISMS["margin"], GOALS["unsure"], ATTACKS["brighten"] = MarginExit, Unsure(), Brighten

    (folder / "mine.yaml").write_text(yaml.safe_dump(PROFILE))
    profile = profiles.load("mine", folder)
    for network in profile.networks:
        train(network, "tiny", "cpu")
    found = {}
    for name, campaign in profile.campaigns.items():
        for source in campaign.sources:
            craft.write("mine", campaign, source, "cpu", folder / name)
        found[name] = Records(profile, name, folder)
    shown = found["made"].shown()
    assert set(shown.method) == {"brighten", "pgd"}
    assert {len(labels) for labels, target in zip(shown.labels, shown.target, strict=True) if not target.is_static} == {12}
    assert found["made"].mechanism == MarginExit(0.05)
    table = directions(shown, right_when_clean(found["clean"]))
    assert len(table) == 3
    assert table.network.iloc[0] == Network("shapes", "stack")
    assert table.seed.unique() == [7]

    import matplotlib.pyplot as plt

    figures.style()
    fig, axes = plt.subplots()
    axes.plot(table.eps_255, table.difference, "o")
    axes.set_title(table.network.iloc[0].title)
    figures.save_figure(fig, "fig9a_mine", table.drop(columns="per_image"), "Differences.", "mine")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
