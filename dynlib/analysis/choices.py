"""What is chosen on validation images, and reported on test images: radii, and designs against each attacker (C3, C4)."""

from functools import cache
from typing import Any

import pandas as pd

from dynlib.analysis import design, surface
from dynlib.analysis.design import Design
from dynlib.analysis.measured import Seen, measured
from dynlib.networks.identity import Network, beside
from dynlib.records import RecordsError


@cache
def attacked_by_static(run: str, split: str) -> dict[tuple[Network, Network, str], Seen]:
    """What dynamic networks answer to static ones' examples: of one training, by source, target and attack; only with all exits."""
    records = measured(run, "transfer")
    fits = beside(records.profile.networks)
    found = (s for s in records.seen(split) if s.source.is_static and s.target.exits == "all")
    return {(s.source, s.target, s.attack): s for s in found if fits(s.source, s.target)}


@cache
def clean_answers(run: str, split: str) -> dict[Network, Seen]:
    """What networks answer to clean images."""
    return {seen.target: seen for seen in measured(run, "clean").seen(split)}


ATTACKERS = ("a separate SDNN", "the SDNN under it", "another architecture")


def attacker(static: Network, dynamic: Network) -> str:
    """What the static network that examples were made on is to the dynamic one that they are shown to."""
    if static.model != dynamic.model:
        return "another architecture"
    return "the SDNN under it" if dynamic.trained == "heads" else "a separate SDNN"


def design_radius(run: str) -> dict[str, float]:
    """For each data set the radius, in 255ths, of C3's main reading.

    The one at which PGD by a separate SDNN leaves the default design's robust accuracy nearest to 30 % on validation images, on the
    mean of the cells.

    Raises:
        RecordsError: nothing of that kind was measured.
    """
    records, found = measured(run, "transfer"), []
    for (source, target, name), seen in attacked_by_static(run, "validation").items():
        about = records.attacks.loc[name]
        if about.attack == "pgd" and about.seed == records.profile.seed and attacker(source, target) == "a separate SDNN":
            robust = (records.mechanism.answer(seen.answers) == seen.truth).double().mean().item()
            found.append((target.dataset, about.eps_255, robust))
    if not found:
        raise RecordsError("C3: no validation images were attacked by PGD on a static network")
    table = (
        pd.DataFrame(found, columns=["dataset", "eps", "robust"])
        .groupby(["dataset", "eps"], sort=False)
        .robust.mean()
        .reset_index()
    )
    return {name: rows.eps.iloc[(rows.robust - 0.3).abs().argmin()].item() for name, rows in table.groupby("dataset", sort=False)}


@cache
def static_space(
    run: str, source: Network, target: Network, attack: str, split: str, designs: tuple[Design, ...] = ()
) -> pd.DataFrame:
    """Designs of a network under one attack by a static one, by default all, see ``design.space``."""
    attacked, clean = attacked_by_static(run, split), clean_answers(run, split)
    return design.space(clean[target], attacked[source, target, attack], measured(run, "transfer").mechanism, designs)


def chosen_design(
    run: str, source: Network, target: Network, attack: str, cost_limit: bool = True, vary: str = "", wide: bool = False
) -> dict[str, Any]:
    """The design that is chosen on validation images, and what it gains on test images, see ``design.gain``.

    ``vary`` names the only choice that may differ from the default's, see ``VARY``; ``wide`` adds other mechanisms to the space.
    """
    designs = tuple(design.wide_space(len(target.exit_indices) + 1)) if wide else ()
    validation = static_space(run, source, target, attack, "validation", designs)
    if vary:
        start = validation[validation.default].design.iloc[0]
        validation = validation[[VARY[vary](one, start) for one in validation.design]]
    chosen = design.choose(validation, cost_limit)
    return design.gain(static_space(run, source, target, attack, "test", (chosen,)), chosen)


# What a designer may change, the rest being the default's: whether a design differs from the default in that only.
VARY = {
    "exits": lambda one, start: one.mechanism == start.mechanism,
    "threshold": lambda one, start: one.exits == start.exits and one.mechanism.fall_back_to == start.mechanism.fall_back_to,
    "fall-back": lambda one, start: one.exits == start.exits and one.mechanism.threshold == start.mechanism.threshold,
}


def static_attacks(
    run: str, eps: dict[str, float] | None = None, method: str = "pgd", seed: int | None = None
) -> list[tuple[Network, Network, str]]:
    """Source, target and attack of static networks' attacks on dynamic ones; by default those of C3's main reading.

    Args:
        run: whose records.
        eps: for each data set the radius, in 255ths.
        method: name of the attack.
        seed: of its random starts, by default the profile's.
    """
    records = measured(run, "transfer")
    eps, seed = eps or design_radius(run), records.profile.seed if seed is None else seed

    def wanted(target: Network, name: str) -> bool:
        about = records.attacks.loc[name]
        return (about.attack, about.eps_255, about.seed) == (method, eps[target.dataset], seed)

    return [key for key in attacked_by_static(run, "test") if wanted(*key[1:])]


@cache
def attacked_designs(run: str, split: str) -> dict[Network, pd.DataFrame]:
    """See ``surface.designs_attacked``."""
    return surface.designs_attacked(measured(run, "designs"), measured(run, "clean"), split)


def chosen_against(run: str, network: Network, outcome: str = "robust", cost_limit: bool = True) -> dict[str, Any]:
    """The design against the Early Attack that is chosen on validation images, and what it gains on test images.

    ``outcome``: ``"robust"``, still right as deployed, or ``"closed"``, the surface is.
    """
    validation, test = (attacked_designs(run, split)[network] for split in ("validation", "test"))
    validation, test = (table.assign(robust=table[outcome]) for table in (validation, test))
    return design.gain(test, design.choose(validation, cost_limit))
