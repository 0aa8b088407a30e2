"""The design of a mechanism: which exits a network has, when an image leaves, and who answers if none lets it go (C3).

Everything is read from stored answers of all exits, so no design needs another pass through a network.
"""

from collections.abc import Sequence
from functools import cache
from itertools import combinations
from operator import methodcaller
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dynlib.analysis import stats
from dynlib.analysis.measured import Seen
from dynlib.analysis.measured import costs as all_costs
from dynlib.mechanisms import FALL_BACKS, AgreementExit, Answers, ConfidenceExit, Decision, EntropyExit, Mechanism, PatienceExit
from dynlib.networks.checkpoints import new
from dynlib.networks.exits import checked_exits
from dynlib.networks.identity import Network
from dynlib.records import RecordsError

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
ENTROPIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
ONE_POINT = 0.01 + 1e-9  # of accuracy; shares of images are rarely exact


class Design(NamedTuple):
    """A choice of exits, indices from 0 with the final one last, and a mechanism."""

    exits: tuple[int, ...]
    mechanism: Mechanism

    def __str__(self) -> str:
        settings = ", ".join(str(value).replace("_", " ") for value in vars(self.mechanism).values())
        return f"exits {exit_names(self.exits)}; {self.mechanism.name}: {settings}"


def exit_names(exits: Sequence[int]) -> str:
    """For example ``"1 3 7"``, counted from 1."""
    return " ".join(str(k + 1) for k in exits)


def subsets(n_exits: int) -> list[tuple[int, ...]]:
    """All choices of exits; each holds the final one. Of 7 exits there are 64, the first of them the static network."""
    early = range(n_exits - 1)
    return [(*chosen, n_exits - 1) for size in range(n_exits) for chosen in combinations(early, size)]


def usual_space(n_exits: int) -> list[Design]:
    """All subsets of exits with all ``THRESHOLDS`` of confidence exits and both fall-backs."""
    mechanisms = [ConfidenceExit(threshold, fall_back) for threshold in THRESHOLDS for fall_back in FALL_BACKS]
    return [Design(exits, mechanism) for exits in subsets(n_exits) for mechanism in mechanisms]


def wide_space(n_exits: int) -> list[Design]:
    """``usual_space``, and all subsets of exits with other mechanisms: entropy, patience, and two exits that agree."""
    entropy = [EntropyExit(threshold, fall_back) for threshold in ENTROPIES for fall_back in FALL_BACKS]
    others = [*entropy, *map(PatienceExit, range(1, n_exits)), *map(AgreementExit, THRESHOLDS)]
    return usual_space(n_exits) + [Design(exits, mechanism) for exits in subsets(n_exits) for mechanism in others]


@cache
def costs(network: Network, exits: tuple[int, ...]) -> Tensor:
    """MACs of leaving at each of the chosen exits, ``[chosen]``; heads that are not chosen are not paid for.

    Raises:
        ValueError: no exit, an unknown one, out of order, or without the final one.
    """
    macs, heads = all_costs(network), _head_macs(network)
    exits = checked_exits(exits, len(macs))
    dropped = torch.tensor([k not in exits for k in range(len(heads))])
    return (macs - (heads * dropped).cumsum(0))[list(exits)]


@cache
def _head_macs(network: Network) -> Tensor:
    return torch.cat([new(network).head_macs, torch.zeros(1, dtype=torch.int64)])


def evaluate(network: Network, answers: Answers, design: Design) -> Decision:
    """What a design of a network decides, from the answers of all its exits; ``exit`` counts among those, too.

    Raises:
        ValueError: see ``costs``.
    """
    return evaluate_all(network, answers, [design])[0]


def evaluate_all(network: Network, answers: Answers, designs: Sequence[Design]) -> list[Decision]:
    """``evaluate`` for many designs at once; errors as there.

    Those of one mechanism with as many exits go through it together, as if each were more images.
    """
    alike: dict[tuple[Mechanism, int], list[Design]] = {}
    found: dict[Design, Decision] = {}
    gathered: dict[tuple[tuple[int, ...], ...], Answers] = {}  # many mechanisms choose among the same exits
    for design in designs:
        alike.setdefault((design.mechanism, len(design.exits)), []).append(design)
    for (mechanism, k), group in alike.items():
        mechanism.check(k)
        chosen = tuple(one.exits for one in group)
        exits, macs = torch.tensor(chosen), torch.stack([costs(network, one) for one in chosen])
        if chosen not in gathered:  # exit by exit, of each all designs
            gathered[chosen] = answers.exits(exits.T.flatten()).each(methodcaller("reshape", k, -1))
        joined = gathered[chosen]
        place, left = (part.view(len(group), -1) for part in mechanism.answering(joined))
        exit, ran = exits.gather(1, place), torch.where(left, place, k - 1)
        cost = macs.gather(1, ran) if answers.cost is None else answers.cost.gather(0, exits.gather(1, ran))
        found |= zip(group, map(Decision, answers.label.gather(0, exit), exit, cost), strict=True)
    return [found[design] for design in designs]


def space(clean: Seen, attacked: Seen, default: Mechanism, designs: Sequence[Design] = ()) -> pd.DataFrame:
    """Designs of a network, by default all of ``usual_space``: a row for each ``design``; ``default`` marks the default one.

    ``robust`` holds, per attacked image ``[n]``, whether it is answered correctly; ``clean`` the same of all clean images, of which
    there may be more, and ``macs`` their mean cost.

    Raises:
        RecordsError: the two do not belong together.
    """
    n = len(attacked.truth)
    if clean.target != attacked.target or not clean.truth[:n].equal(attacked.truth):
        raise RecordsError(f"answers of {clean.target} and {attacked.target} are not of one network and the same images")
    start = Design(tuple(range(len(clean.answers))), default)
    designs = tuple(dict.fromkeys([start, *(designs or usual_space(len(clean.answers)))]))
    good, macs = _at_rest(clean, designs)
    robust = [(found.label == attacked.truth).numpy() for found in evaluate_all(clean.target, attacked.answers, designs)]
    columns = {"design": designs, "clean": good, "robust": robust, "macs": macs, "default": [one == start for one in designs]}
    return pd.DataFrame(columns)


@cache  # a network's clean images are the same under every attack
def _at_rest(clean: Seen, designs: tuple[Design, ...]) -> tuple[list[np.ndarray], list[float]]:
    """Of each design whether each clean image is answered correctly, ``[n]``, and the mean cost."""
    calm = evaluate_all(clean.target, clean.answers, designs)
    return [(found.label == clean.truth).numpy() for found in calm], [found.cost.double().mean().item() for found in calm]


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracies and cost of each design as numbers, its number of early exits and whether it is on the Pareto front.

    It is unless another design is at least as accurate, at least as robust and at most as costly, and better in one of the three.
    """
    clean, robust = (np.array([np.nanmean(values) for values in table[name]]) for name in ("clean", "robust"))
    gains = np.stack([clean, robust, -table.macs], axis=1)
    early = [len(design.exits) - 1 for design in table.design]
    return table[["design", "macs", "default"]].assign(clean=clean, robust=robust, n_early=early, pareto=undominated(gains))


def undominated(gains: np.ndarray) -> np.ndarray:
    """Which rows ``[n, k]`` no other row dominates, bool ``[n]``: at least as good in all columns, and better in one."""
    beaten = (gains[:, None] >= gains).all(axis=-1) & (gains[:, None] > gains).any(axis=-1)  # [by whom, whom]
    return np.logical_not(beaten.any(axis=0))


def choose(validation: pd.DataFrame, cost_limit: bool = True) -> Design:
    """The design that C3 and C4 choose, from designs seen on validation images.

    The most robust one whose clean accuracy is at most 1 point below the default's and, with ``cost_limit``, whose mean cost is at
    most the default's; of equals the cheapest. ``robust`` may be NaN where an image does not count.
    """
    start = validation[validation.default].iloc[0]
    clean, robust = (np.array([np.nanmean(values.astype(float)) for values in validation[name]]) for name in ("clean", "robust"))
    allowed = clean >= np.mean(start.clean) - ONE_POINT
    if cost_limit:
        allowed &= validation.macs.to_numpy() <= start.macs
    return validation.assign(robust=robust)[allowed].sort_values(["robust", "macs"], ascending=[False, True]).design.iloc[0]


def gain(test: pd.DataFrame, chosen: Design) -> dict[str, Any]:
    """What a design gains over the default on test images: robust accuracy with its interval, clean accuracy lost, cost added.

    ``added`` is a share of the default's mean cost; ``per_image`` the gains ``[n]``, NaN where an image does not count.

    Raises:
        RecordsError: the design is not among those of the test images.
    """
    start, best = test[test.default].iloc[0], test[test.design == chosen]
    if best.empty:
        raise RecordsError(f"the chosen design ({chosen}) was not measured on test images")
    best = best.iloc[0]
    per_image = best.robust.astype(float) - start.robust
    numbers = stats.mean(per_image).columns("gain")
    about = {"design": chosen, "default": np.nanmean(start.robust.astype(float)), "n": int((~np.isnan(per_image)).sum())}
    return {
        **about,
        **numbers,
        "lost": start.clean.mean() - best.clean.mean(),
        "added": best.macs / start.macs - 1,
        "per_image": per_image,
    }


def pooled_gain(rows: pd.DataFrame) -> dict[str, Any]:
    """What chosen designs gain on the mean of networks, as in ``gain``; ``n`` is the smallest number of images.

    Args:
        rows: of ``gain``, with ``network``.
    """
    measured = stats.trainings(rows, "per_image")
    about = {"n": rows.n.min(), "cells": stats.number_of_cells(measured)}
    return {**rows[["default", "lost", "added"]].mean().to_dict(), **stats.pooled_mean(measured).columns("gain"), **about}


def gained(found: dict[str, Any]) -> str:
    """A gain in words, with what it costs; ``found`` is of ``gain`` or ``pooled_gain``."""
    more = stats.points(found["gain"], found["low"], found["high"])
    price = f"{stats.signed(-found['lost'])} points of clean accuracy and {stats.signed(found['added'])} % cost"
    start, n = f"{100 * found['default']:.1f} % by default", f"robustness on n = {found['n']} images"
    return f"{start}, {more} by the chosen design, at {price} ({n})"
