"""In how many ways each claim can be read: from the records of a run to the values of each cell, the main reading first.

A reading is what differs from the main one, how, and what was measured: for each training of a cell a value of each image, or
columns ``[n, 4]`` of a ratio. The last network that a training names is the dynamic one.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from dynlib.analysis import choices, cost, lotteries, matched, slowdown, surface, transfer
from dynlib.analysis.measured import Rule, measured, own_threshold
from dynlib.analysis.stats import Training, of, trainings
from dynlib.attacks import ATTACKS
from dynlib.attacks.losses import get_loss
from dynlib.datasets import DATASETS
from dynlib.mechanisms import ConfidenceExit, Mechanism

MAIN = "main reading"
THRESHOLDS = (0.5, 0.7, 0.99)  # of the networks as deployed, beside the profile's
Reading = tuple[str, str, list[Training]]


def radii(chosen: dict[str, float]) -> str:
    """For people, for example ``"2/255 on CIFAR-10, 4/255 on CIFAR-100"``, or ``"2/255"`` if that is everywhere the same."""
    if len(chosen) > 1 and len(set(chosen.values())) == 1:
        return f"{next(iter(chosen.values())):g}/255"
    return ", ".join(f"{value:g}/255 on {DATASETS[name].display}" for name, value in chosen.items())


def others(measured: Iterable[float], chosen: dict[str, float]) -> list[float]:
    """The radii that were measured, except for one that is the main reading's on every data set, and for 0, no ball."""
    return [eps for eps in sorted(set(measured) - {0}) if set(chosen.values()) != {eps}]


# C1


def transfers(run: str) -> Iterator[Reading]:
    """C1: differences of transfer rates, over losses, radii, attacks, thresholds, random starts and the way exits were trained."""
    records, clean = measured(run, "transfer"), measured(run, "clean")
    radius, profile = transfer.sensitive_radius(records, clean), records.profile

    def table(mechanism: Mechanism | Rule | None = None, final: bool = False) -> pd.DataFrame:
        right = transfer.right_when_clean(clean, mechanism=mechanism, final=final)
        found = transfer.directions(records.shown(mechanism=mechanism), right, final)
        return found[found.network.map(lambda network: network.exits == "all")]

    def cells(found: pd.DataFrame, eps: dict[str, float] = radius, trained: str = "joint", **wanted: Any) -> list[Training]:
        """The rows with these values, by default the main reading's."""
        wanted = {"method": "pgd", "loss": "average", "seed": profile.seed, **wanted}
        here = found[np.logical_and.reduce([found[key] == value for key, value in wanted.items()])]
        kept = [n.trained == trained and value == eps[n.dataset] for n, value in zip(here.network, here.eps_255, strict=True)]
        return trainings(here[kept], "per_image")

    usual = table()
    yield MAIN, f"PGD, average loss, {radii(radius)}", cells(usual)
    for loss in dict.fromkeys(usual.loss[usual.method == "pgd"]):
        if loss != "average":
            yield "loss", get_loss(loss).display, cells(usual, loss=loss)
    for eps in others(usual.eps_255, radius):
        yield "radius", f"{eps:g}/255", cells(usual, dict.fromkeys(radius, eps))
    for method in dict.fromkeys(usual.method):
        if method != "pgd":
            yield "attack", ATTACKS[method].display, cells(usual, method=method)
    for threshold in THRESHOLDS:
        yield "threshold", f"{threshold:g}", cells(table(ConfidenceExit(threshold)))
    yield "threshold", "each network's own", cells(table(own_threshold))
    yield "threshold", "none, final exit", cells(table(final=True))
    for seed in sorted(set(usual.seed) - {profile.seed}):
        yield "random start", f"seed {seed}", cells(usual, seed=seed)
    yield "training", "exits only", cells(usual, trained="heads")


# C2


def walks(run: str) -> Iterator[Reading]:
    """C2: costs of a success on the DyNN over those on the SDNN, over losses, currencies, steps, balls and thresholds."""
    records, clean = measured(run, "cost"), measured(run, "clean")
    walked, best = cost.walks(records, clean), cost.cheapest_loss(records, clean)
    for spent, currency in cost.SPENT.items():
        table = cost.ratios(walked, spent)
        for loss in sorted(dict.fromkeys(table.loss), key=lambda loss: loss != best):  # the main reading first
            rows = trainings(table[table.loss == loss], "columns")
            display = get_loss(loss).display
            if spent == "macs":
                yield (MAIN, f"{currency}, loss of the {display}", rows) if loss == best else ("loss", display, rows)
            else:
                yield "currency", f"{currency}, {display}", rows
    for variant in dict.fromkeys(filter(None, cost.variants(records.attacks).values())):
        table = cost.ratios(cost.walks(records, clean, variant=variant))
        for loss in dict.fromkeys(table.loss):
            name = variant if loss == best else f"{variant}, {get_loss(loss).display}"
            yield "walk", name, trainings(table[table.loss == loss], "columns")


# C3


def designs(run: str) -> Iterator[Reading]:
    """C3: robust accuracy of the chosen design less the default's, over limits, choices, attackers, radii, attacks and starts."""
    records, radius = measured(run, "transfer"), choices.design_radius(run)

    def cells(
        who: str = choices.ATTACKERS[0],
        eps: dict[str, float] = radius,
        method: str = "pgd",
        seed: int = records.profile.seed,
        **how: Any,
    ) -> list[Training]:
        found = [key for key in choices.static_attacks(run, eps, method, seed) if choices.attacker(*key[:2]) == who]
        return [
            of(choices.chosen_design(run, source, target, name, **how)["per_image"], source, target)
            for source, target, name in found
        ]

    yield MAIN, f"a separate SDNN, PGD, {radii(radius)}", cells()
    yield "limit", "of accuracy only, not of cost", cells(cost_limit=False)
    yield "space", "with entropy, patience and agreement", cells(wide=True)
    for choice in choices.VARY:
        yield "choice", f"only the {choice}", cells(vary=choice)
    for who in choices.ATTACKERS[1:]:
        yield "attacker", who, cells(who)
    for eps in others(records.attacks.eps_255[records.attacks.attack == "pgd"], radius):
        yield "radius", f"{eps:g}/255", cells(eps=dict.fromkeys(radius, eps))
    for method in dict.fromkeys(records.attacks.attack):
        if method != "pgd":
            yield "attack", ATTACKS[method].display, cells(method=method)
    for seed in sorted(set(records.attacks.seed) - {records.profile.seed}):
        yield "random start", f"seed {seed}", cells(seed=seed)


# C4


def surfaces(run: str) -> Iterator[Reading]:
    """C4, surface: what attacks with the goal open beyond the plain ones, over radii, random starts and training."""
    clean, records = measured(run, "clean"), measured(run, "surface")
    shown, counts, seed = surface.on_itself(run), surface.counted(clean), records.profile.seed
    radius = transfer.sensitive_radius(measured(run, "transfer"), clean)

    def cells(eps: dict[str, float] = radius, trained: str = "joint", seed: int = seed) -> list[Training]:
        found = []
        for dataset, value in eps.items():
            here = shown[[n.dataset == dataset and n.trained == trained and n.exits == "all" for n in shown.source]]
            found += trainings(surface.surface_gains(here, counts, value, seed), "per_image")
        return found

    yield MAIN, f"jointly trained, {radii(radius)}", cells()
    # Radii at which there are as many plain attacks, so that the best of them means the same.
    plain = shown[shown.goal == surface.PLAIN].groupby("eps_255").loss.agg(set)
    whole = plain.index[plain == max(plain, key=len)]
    for eps in others(set(shown.eps_255[shown.goal == surface.GOAL]) & set(whole), radius):
        yield "radius", f"{eps:g}/255", cells(dict.fromkeys(radius, eps))
    for other in sorted(set(shown.seed[shown.goal == surface.GOAL]) - {seed}):
        yield "random start", f"seed {other}", cells(seed=other)
    yield "training", "exits only", cells(trained="heads")


def defences(run: str) -> Iterator[Reading]:
    """C4, designs: what the chosen design gains against an attacker who knows it, over outcomes and limits."""

    def cells(**how: Any) -> list[Training]:
        return [
            of(choices.chosen_against(run, network, **how)["per_image"], network)
            for network in choices.attacked_designs(run, "test")
        ]

    yield MAIN, "still right as deployed", cells()
    yield "outcome", "surface closed", cells(outcome="closed")
    yield "limit", "of accuracy only, not of cost", cells(cost_limit=False)
    yield "outcome and limit", "surface closed, of accuracy only", cells(outcome="closed", cost_limit=False)


# Beyond the paper


def rules(run: str) -> Iterator[Reading]:
    """B1: robust accuracy of the chosen exit rule less that of confidence, over rules, budgets and attackers."""
    radius = radii(choices.design_radius(run))
    yield MAIN, f"half the cost, PGD, {radius}", matched.gains(run)
    for rule in matched.RULES[1:]:
        yield "rule", f"always {rule}", matched.gains(run, rule=rule)
    for budget in matched.BUDGETS:
        if budget != matched.MAIN_BUDGET:
            yield "cost", f"{100 * budget:g} % of a full run", matched.gains(run, budget)
    for who in choices.ATTACKERS[1:]:
        yield "attacker", who, matched.gains(run, who=who)


def speeds(run: str) -> Iterator[Reading]:
    """B2: half of the saving on clean images less that under attack, over radii, thresholds, training and who was attacked."""
    records, clean = measured(run, slowdown.CAMPAIGN), measured(run, "clean")
    radius = transfer.sensitive_radius(measured(run, "transfer"), clean)
    yield MAIN, f"the network itself, {radii(radius)}", slowdown.beyond_half(run, radius)
    for eps in others(records.attacks.eps_255, radius):
        yield "radius", f"{eps:g}/255", slowdown.beyond_half(run, dict.fromkeys(radius, eps))
    for threshold in THRESHOLDS:
        yield "threshold", f"{threshold:g}", slowdown.beyond_half(run, radius, mechanism=ConfidenceExit(threshold))
    yield "threshold", "each network's own", slowdown.beyond_half(run, radius, mechanism=own_threshold)
    yield "attacked", slowdown.ACROSS, slowdown.beyond_half(run, radius, slowdown.ACROSS)
    yield "training", "exits only", slowdown.beyond_half(run, radius, trained="heads")


def protections(run: str) -> Iterator[Reading]:
    """B3: what the chosen cheap defence keeps beyond the full runs that it pays for, over defences, outcomes, radii, attackers."""
    records, clean = measured(run, "transfer"), measured(run, "clean")
    yield MAIN, f"the network itself, {radii(transfer.sensitive_radius(records, clean))}", lotteries.gains(run)
    for defence in lotteries.DEFENCES:
        yield "defence", f"always: {defence}", lotteries.gains(run, defence=defence)
    for eps in others(measured(run, lotteries.CAMPAIGN).attacks.eps_255, transfer.sensitive_radius(records, clean)):
        yield "radius", f"{eps:g}/255", lotteries.gains(run, eps=eps)
    yield "outcome", "surface closed", lotteries.gains(run, "shut")
    yield "attacker", "who knows no defence", lotteries.gains(run, knowing=False)
