"""The data of the site's two pages to play with, from a run's records: a script for each page, which assigns ``DATA``.

What exits answered is there as records keep it, so that a page decides as the library does.
"""

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from dynlib import data
from dynlib.analysis import choices, design, slowdown, surface
from dynlib.analysis.measured import Seen, costs, measured
from dynlib.datasets import DATASETS
from dynlib.files import PUBLISHED, atomic
from dynlib.mechanisms import Answers, Mechanism
from dynlib.mechanisms.base import STEPS
from dynlib.networks.identity import Network
from dynlib.report import pictures
from dynlib.report.pictures import Made


class Kind(NamedTuple):
    """What the pages call an attack: its campaign, whether it is made on the static network, its method and its goal."""

    campaign: str
    static: bool
    method: str
    goal: str


KINDS = {
    "sdnn": Kind("transfer", True, "pgd", surface.PLAIN),
    "dynn": Kind("transfer", False, "pgd", surface.PLAIN),
    "early": Kind("surface", False, "early_pgd", surface.GOAL),
    "slow": Kind(slowdown.CAMPAIGN, False, "pgd", slowdown.GOAL),
}
Shown = dict[str, dict[float, Made]]  # of each of ``KINDS`` and radius, in 255ths


@cache
def _seen(run: str, campaign: str) -> list[Seen]:
    return list(measured(run, campaign).seen())


def shown(run: str, network: Network, target: Network) -> Shown:
    """What a target answered to the examples made on a dynamic network, or on its static sibling.

    Of several losses, the one that was used at most radii counts.
    """
    found: Shown = {}
    for name, kind in KINDS.items():
        source = network.static if kind.static else network
        each = {seen.attack: seen for seen in _seen(run, kind.campaign) if (seen.source, seen.target) == (source, target)}
        records = measured(run, kind.campaign)
        made = records.attacks.loc[list(each)]
        made = made[(made.attack == kind.method) & (made.goal == kind.goal) & (made.seed == records.profile.seed)]
        if not made.empty:
            made = made[made.loss == made.groupby("loss", sort=False).eps_255.nunique().idxmax()]
        found[name] = {eps: Made(kind.campaign, each[str(attack)]) for attack, eps in made.eps_255.sort_values().items()}
    return found


def networks(run: str) -> list[Network]:
    """The first training of each cell's dynamic network that all attacks were made on."""
    first: dict[tuple[str, str], Network] = {}
    for source, target, _ in choices.static_attacks(run):
        if choices.attacker(source, target) == choices.ATTACKERS[0] and all(shown(run, target, target).values()):
            first.setdefault(target.cell, target)
    return list(first.values())


def fool(run: str) -> dict[str, Any]:
    """*Fool a network*: some images of a sample, what each attack adds to them, and what networks answer."""
    candidates = [network for network in networks(run) if DATASETS[network.dataset].samples]
    dataset = DATASETS[candidates[0].dataset]
    found = {network: shown(run, network, network) for network in candidates if network.dataset == dataset.name}
    rows = [made for own in found.values() for at in own.values() for made in at.values()]
    images = pictures.chosen(dataset.name, min(len(made.seen.truth) for made in rows))
    quiet, described, row = choices.clean_answers(run, "test"), [], iter(range(len(rows)))
    for network, own in found.items():
        static = network.static
        beside = shown(run, network, static)
        clean = {"dynn": _packed(quiet[network], images), "sdnn": _packed(quiet[static], images)}
        attacks = {
            kind: {
                f"{eps:g}": {
                    "row": next(row),
                    "dynn": _packed(made.seen, images),
                    "sdnn": _packed(beside[kind][eps].seen, images) if eps in beside[kind] else None,
                }
                for eps, made in at.items()
            }
            for kind, at in own.items()
        }
        described.append({**_network(network), "clean": clean, "attacks": attacks})
    sample = data.load(dataset.name, "test", int(images.max()) + 1)
    return {
        "classes": dataset.class_names,
        "side": dataset.side,
        "truth": sample.labels[images].tolist(),
        "pixels": _text(sample.images[images].permute(0, 2, 3, 1).contiguous().numpy().tobytes()),
        "sheet": "data:image/png;base64," + _text(pictures.sheet(run, rows, images)),
        "default": _rule(measured(run, "transfer").mechanism),
        "networks": described,
    }


def design_one(run: str) -> dict[str, Any]:
    """*Design one*: what networks answer clean and under three attacks, and all designs that C3 compares."""
    radius, found = choices.design_radius(run), []
    for network in networks(run):
        eps, own = radius[network.dataset], shown(run, network, network)
        seen = {kind: own[kind][eps].seen for kind in ("sdnn", "early", "slow")}
        seen["clean"] = choices.clean_answers(run, "test")[network]
        n = max(len(seen[kind].truth) for kind in seen if kind != "clean")
        source, _, attack, truth, _ = seen["sdnn"]
        # On the images that the page itself counts: the first of the clean ones, those that were attacked.
        shown_clean = seen["clean"]._replace(truth=truth, answers=seen["clean"].answers.images(slice(len(truth))))
        space = design.space(shown_clean, seen["sdnn"], measured(run, "transfer").mechanism)
        designs = [
            # Whole numbers, so that a page compares exactly: images that are right, clean and attacked, and the cost of all.
            [*_design(row.design), *(round(len(truth) * mean) for mean in (row.clean, row.robust, row.macs)), int(row.pareto)]
            for row in design.shares(space).itertuples()
        ]
        found.append(
            {
                **_network(network),
                "eps": f"{eps:g}",
                "truth": _text(seen["clean"].truth[:n].numpy().astype("u1").tobytes()),
                **{kind: _packed(one, slice(n)) for kind, one in seen.items()},
                "designs": designs,
                "chosen": _design(choices.chosen_design(run, source, network, attack)["design"]),
            }
        )
    return {"default": _rule(measured(run, "transfer").mechanism), "networks": found}


def _network(network: Network) -> dict[str, Any]:
    """What a page must know of a network: multiply-accumulates up to each exit, and of each exit's own head."""
    macs = costs(network)
    others = [tuple(k for k in range(len(macs)) if k != dropped) for dropped in range(len(macs) - 1)]
    heads = [int(macs[-1] - design.costs(network, exits)[-1]) for exits in others]
    return {"id": network.id, "title": network.title, "macs": macs.tolist(), "heads": [*heads, 0]}


def _design(one: design.Design) -> list[Any]:
    return [list(one.exits), *_rule(one.mechanism)]


def _rule(mechanism: Mechanism) -> list[Any]:
    """The settings of ``ConfidenceExit``: threshold and fall-back."""
    return list(vars(mechanism).values())


def _packed(seen: Seen, images: Tensor | slice) -> dict[str, str]:
    """Answers to some images, exit by exit, as little-endian bytes in base 64."""
    some: Answers = seen.answers.images(images)
    columns: dict[str, np.ndarray] = {"label": some.label.numpy().astype("u1")}
    columns |= {name: (getattr(some, name) * STEPS).round().numpy().astype("<u2") for name in ("confidence", "entropy")}
    return {name: _text(column.tobytes()) for name, column in columns.items()}


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def write(folder: Path, run: str = PUBLISHED) -> None:
    """Write ``fool_data.js`` and ``design_data.js``.

    Raises:
        RecordsError, DataError, CheckpointError: what they stand on is missing or damaged.
    """
    for name, make in (("fool", fool), ("design", design_one)):
        with atomic(folder / f"{name}_data.js") as temporary:
            temporary.write_text(f"const DATA = {json.dumps(make(run), separators=(',', ':'))};\n")
