"""Beyond the paper: cheap defences of the mechanism, beside full runs of as many images as they pay for (B3).

A defence is a *lottery* over designs: each image draws one. The attacker knows the lottery, not the draw. A defence without chance
has one design.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from dynlib.analysis import choices, stats, transfer
from dynlib.analysis.design import ONE_POINT, Design, evaluate_all
from dynlib.analysis.measured import Seen, costs, measured
from dynlib.analysis.stats import Training
from dynlib.mechanisms import AgreementExit, ConfidenceExit, Mechanism
from dynlib.networks.identity import Network

CAMPAIGN = "defences"  # attacks by someone who knows one
CAMPAIGNS = ("transfer", "surface", CAMPAIGN, "undefended")
DEFAULT, STATIC = "no defence", "the static network alone"
# Each of the others differs from the first in one thing.
RULES: dict[str, Mechanism] = {
    "final exit falls back": ConfidenceExit(0.9, "final"),
    "threshold 0.99": ConfidenceExit(0.99, "final"),
    "two exits agree": AgreementExit(0.9),
}
LEFT_OUT = "an exit left out at random"
DEFENCES = (*RULES, LEFT_OUT)

Lottery = Mapping[Design, float]  # the chance of each design; they add up to 1


def lotteries(network: Network, default: Mechanism) -> dict[str, Lottery]:
    """All ``DEFENCES`` of a network, ``DEFAULT`` and ``STATIC``, by name."""
    early = len(network.exit_indices)
    every = tuple(range(early + 1))
    found: dict[str, Lottery] = {DEFAULT: {Design(every, default): 1.0}, STATIC: {Design((early,), default): 1.0}}
    found |= {name: {Design(every, rule): 1.0} for name, rule in RULES.items()}
    rule = next(iter(RULES.values()))
    fewer = [Design((*every[:out], *every[out + 1 :]), rule) for out in range(early)]
    return found | {LEFT_OUT: dict.fromkeys(fewer, 1 / early)}


def mixed(one: Lottery, other: Lottery, share: float) -> Lottery:
    """``other`` on a random share of the images, in [0, 1], and ``one`` on the rest."""
    chances = {design: (1 - share) * chance for design, chance in one.items()}
    for design, chance in other.items():
        chances[design] = chances.get(design, 0.0) + share * chance
    return chances


class Judged(NamedTuple):
    """What becomes of a network with a defence.

    Of each image ``[n]``: ``robust`` is the chance that it is answered correctly, ``shut`` that the network as deployed does not
    err alone (it is right, or its final exit errs, too); both under the attack that is worst for this image. ``clean`` is the first
    of these for all clean images, of which there may be more, and ``cost`` the mean share of a full run that they take.
    """

    clean: np.ndarray
    robust: np.ndarray
    shut: np.ndarray
    cost: float


class Pool:
    """What designs of one network answer to clean images and to all attacks on them, from which any lottery is judged.

    Args:
        clean: what the network's exits answer to clean images.
        attacked: the same under each attack, for the first of these images. Doing nothing counts as one more attack.
        designs: all that lotteries may draw.
    """

    def __init__(self, clean: Seen, attacked: Sequence[Seen], designs: Sequence[Design]):
        n, network = min(len(seen.truth) for seen in attacked), clean.target
        calm = evaluate_all(network, clean.answers, designs)
        pushed = [evaluate_all(network, seen.answers, designs) for seen in attacked]
        self.clean, self.right, self.shut, self.cost = {}, {}, {}, {}
        for k, design in enumerate(designs):
            under = [(clean, calm[k]), *((seen, found[k]) for seen, found in zip(attacked, pushed, strict=True))]
            right = np.stack([(found.label == seen.truth).numpy()[:n] for seen, found in under])
            unharmed = np.stack([(seen.answers.label[-1] == seen.truth).numpy()[:n] for seen, _ in under])
            self.clean[design] = (calm[k].label == clean.truth).numpy()
            self.right[design], self.shut[design] = right, right | ~unharmed
            self.cost[design] = calm[k].cost.double().mean().item() / costs(network)[-1].item()

    def judge(self, lottery: Lottery) -> Judged:
        def chance(each: Mapping[Design, np.ndarray]) -> np.ndarray:
            return np.sum([p * each[design] for design, p in lottery.items()], axis=0)

        cost = sum(p * self.cost[design] for design, p in lottery.items())
        return Judged(chance(self.clean), chance(self.right).min(axis=0), chance(self.shut).min(axis=0), cost)

    def share_that_costs(self, cost: float, cheap: Lottery, dear: Lottery) -> float:
        """The share of images, in [0, 1], that ``dear`` has to answer and ``cheap`` not, so that clean ones cost as much."""
        low, high = self.judge(cheap).cost, self.judge(dear).cost
        return float(np.clip((cost - low) / (high - low), 0, 1))


@cache
def pool(run: str, network: Network, split: str = "test", knowing: bool = True, eps: float | None = None) -> Pool:
    """All attacks on a network that were shown to itself; ``knowing``: with those made for one of ``RULES``.

    ``eps`` is the radius in 255ths, by default C1's.
    """
    clean = measured(run, "clean")
    radius = eps or transfer.sensitive_radius(measured(run, "transfer"), clean)[network.dataset]
    attacked = [
        seen
        for name in CAMPAIGNS
        for eps_255, mechanism, seen in _on_itself(run, name, split)[network]
        if eps_255 == radius and (knowing or mechanism not in RULES.values())
    ]
    designs = dict.fromkeys(design for lottery in lotteries(network, clean.mechanism).values() for design in lottery)
    return Pool(choices.clean_answers(run, split)[network], attacked, list(designs))


@cache
def _on_itself(run: str, campaign: str, split: str) -> dict[Network, list[tuple[float, Mechanism, Seen]]]:
    """What networks answer to examples made on themselves, with the radius in 255ths and the rule that the attacker expects."""
    records, found = measured(run, campaign), defaultdict(list)
    for seen in records.seen(split):
        if seen.source == seen.target:
            about = records.attacks.eps_255[seen.attack], records.planned_mechanism(seen.attack)
            found[seen.target].append((*about, seen))
    return found


def networks(run: str) -> list[Network]:
    """Those that were attacked by someone who knows a defence."""
    return list(dict.fromkeys(measured(run, CAMPAIGN).examples().source))


@cache
def full_runs(run: str, network: Network, defence: str) -> Lottery:
    """The static network on so large a share of the images that clean validation images cost as much as with a defence."""
    every, validation = lotteries(network, measured(run, CAMPAIGN).mechanism), pool(run, network, "validation")
    share = validation.share_that_costs(validation.judge(every[defence]).cost, every[DEFAULT], every[STATIC])
    return mixed(every[DEFAULT], every[STATIC], share)


def judged(run: str, knowing: bool = True) -> pd.DataFrame:
    """Each of ``lotteries`` on test images: a row for each ``network`` and ``defence``, with the fields of ``Judged``."""
    found = []
    for network in networks(run):
        for defence, lottery in lotteries(network, measured(run, CAMPAIGN).mechanism).items():
            about = {"network": network, "dataset": network.dataset, "defence": defence}
            found.append(about | pool(run, network, knowing=knowing).judge(lottery)._asdict())
    return pd.DataFrame(found)


def beside_full_runs(run: str, split: str = "test", knowing: bool = True, eps: float | None = None) -> pd.DataFrame:
    """Each defence beside full runs that cost the same: a row for each ``network`` and ``defence``.

    Fields of ``Judged`` for the defence, and, named ``full_clean`` and so on, for a full run of a share of the images. Other
    arguments as of ``pool``.
    """
    found = []
    for network in networks(run):
        here, every = pool(run, network, split, knowing, eps), lotteries(network, measured(run, CAMPAIGN).mechanism)
        for defence in DEFENCES:
            own, full = here.judge(every[defence]), here.judge(full_runs(run, network, defence))
            about = {"network": network, "dataset": network.dataset, "model": network.model, "defence": defence}
            found.append(about | own._asdict() | {f"full_{name}": value for name, value in full._asdict().items()})
    return pd.DataFrame(found)


def gains(run: str, outcome: str = "robust", defence: str = "", knowing: bool = True, eps: float | None = None) -> list[Training]:
    """For each network, on each test image ``[n]``: ``"robust"`` or ``"shut"`` of a defence less that of the full runs it pays for.

    The defence is the one named, or the one that ``chosen`` gives for this outcome; 0 where that is none.
    """
    table, found = beside_full_runs(run, knowing=knowing, eps=eps), []
    taken = dict.fromkeys(networks(run), defence) if defence else chosen(run, outcome, knowing, eps)
    for network, rows in table.groupby("network", sort=False):
        row = rows[rows.defence == taken[network]]
        gain = row[outcome].iloc[0] - row[f"full_{outcome}"].iloc[0] if len(row) else np.zeros_like(rows[outcome].iloc[0])
        found.append(stats.of(gain, network))
    return found


def chosen(run: str, outcome: str = "robust", knowing: bool = True, eps: float | None = None) -> dict[Network, str]:
    """For each network the defence that is furthest ahead of its full runs on validation images.

    Of those at most 1 point less accurate there than these; ``DEFAULT`` where there is none.
    """
    table = beside_full_runs(run, "validation", knowing, eps)
    means = {name: table[name].map(np.mean) for name in ("clean", "full_clean", outcome, f"full_{outcome}")}
    table = table.assign(ahead=means[outcome] - means[f"full_{outcome}"])
    good = table[means["clean"] >= means["full_clean"] - ONE_POINT].sort_values("ahead", ascending=False, kind="stable")
    best = good.drop_duplicates("network").set_index("network").defence
    return {network: best.get(network, DEFAULT) for network in networks(run)}


def price_line(run: str, shares: np.ndarray, eps: float | None = None) -> pd.DataFrame:
    """The static network on a share of the images, in [0, 1]: of each data set the means over its networks, share by share.

    ``cost`` is that of clean images, as a share of a full run; ``robust`` comes with its interval over images.
    """
    rows = []
    for network in networks(run):
        here, every = pool(run, network, eps=eps), lotteries(network, measured(run, CAMPAIGN).mechanism)
        for share in shares:
            judged = here.judge(mixed(every[DEFAULT], every[STATIC], share))
            rows.append({"dataset": network.dataset, "network": network, "share": share, **judged._asdict()})
    return pooled(pd.DataFrame(rows), "share")


def pooled(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """Means over the networks of a data set of ``clean``, ``cost``, and ``robust`` and ``shut`` with their intervals.

    A row for each value of the column ``by``; ``n`` is the smallest number of attacked images.
    """
    found = []
    for (dataset, value), rows in table.groupby(["dataset", by], sort=False):
        about = {"dataset": dataset, by: value, "n": rows.robust.map(len).min(), "cells": rows.network.nunique()}
        about |= {"clean": rows.clean.map(np.mean).mean(), "cost": rows.cost.mean()}
        for name in ("robust", "shut"):
            about |= stats.pooled_mean(stats.trainings(rows[["network", name]], name)).columns(name, f"{name}_")
        found.append(about)
    return pd.DataFrame(found)
