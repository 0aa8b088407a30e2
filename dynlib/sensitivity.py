"""Where would a verdict flip? Each claim's rule applied to the other ways in which the claim could have been read.

``readings`` puts all claims together. Every function returns a row for each reading, the main one first: ``group`` says what
differs from the main reading, ``reading`` how, ``value`` is pooled over the ``cells`` with its 95 % interval, ``above`` the number
of cells on the claim's side, ``ruled`` the rule's verdict on the cells at hand, be they six or fewer.
"""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from dynlib import design, efficiency, measures, results, surface
from dynlib.attacks import ATTACKS
from dynlib.attacks.losses import get_loss
from dynlib.claims import pooled_interval, pooled_ratio, ruled
from dynlib.networks.identity import Network
from dynlib.results import Outputs, Pairs, Setting

MAIN = "main reading"
RESTART = ("random start", "another")
COLUMNS = ["claim", "group", "reading", "cells", "above", "value", "low", "high", "ruled"]


def readings(profile: str, threshold: float, eps_255: int) -> pd.DataFrame:
    """All claims, from the stored results of a profile; ``threshold`` and radius are the main reading's.

    Raises:
        ResultsError: see ``results.stored``.
    """
    records = {seed: results.read_records(profile, seed=seed) for seed in results.read_seeds(profile)}
    clean = {outputs.network: outputs for outputs in results.read_outputs(profile)}
    tables = (
        c1(records, results.read_records(profile, "same_backbone"), threshold, eps_255),
        c2(*(efficiency.white_box(results.read_efficiency(profile, name)) for name in _with_restart("efficiency"))),
        c3(clean, *(results.read_exit_design(profile, name) for name in _with_restart("exit_design")), eps_255),
        c4_surface(*(results.read_early(profile, name) for name in _with_restart("early_attack")), eps_255),
        c4_design(*(surface.design_table(results.read_early(profile, name)) for name in _with_restart("attack_design")), eps_255),
    )
    return pd.concat(tables, ignore_index=True)


def _with_restart(experiment: str) -> tuple[str, str]:
    return experiment, f"{experiment}_restart"


def c1(records: dict[int, pd.DataFrame], same_backbone: pd.DataFrame, threshold: float, eps_255: int) -> pd.DataFrame:
    """C1 over losses, attacks, radii, thresholds, random starts and the way exits were trained: differences of transfer rates.

    Args:
        records: of ``transferability`` by seed, the main reading's first, see ``results.read_records``.
        same_backbone: of the experiment of that name.
        threshold, eps_255: of the main reading.
    """
    first, *others = records
    table = measures.readings(records[first])
    main = {"attack": "pgd", "loss": "average", "eps_255": eps_255, "reading": f"{threshold:g}"}
    names = {
        "loss": ("loss", lambda loss: get_loss(loss).display),
        "attack": ("attack", lambda attack: ATTACKS[attack].display),
        "eps_255": ("radius", lambda eps: f"{eps}/255"),
        "reading": ("threshold", lambda reading: "none, final exit" if reading == "final exit" else reading),
    }
    found = [("C1", MAIN, f"PGD {eps_255}/255, average loss, {threshold:g}", _having(table, main))]
    no_ball = set(table.attack[table.eps_255 == 0])
    for column, (group, name) in names.items():
        for level in dict.fromkeys(table[column]):
            if level != main[column]:
                changed = {column: level} | ({"eps_255": 0} if level in no_ball else {})
                found.append(("C1", group, name(level), _having(table, main | changed)))
    for seed in others:
        again = measures.direction_differences(measures.as_deployed(records[seed], threshold))
        found.append(("C1", "random start", f"seed {seed}", _having(again, main)))
    alone = measures.direction_differences(measures.as_deployed(same_backbone, threshold))
    found.append(("C1", "training", "exits only", _having(alone, main)))
    return _ruled((claim, group, reading, *_mean(cells, "difference")) for claim, group, reading, cells in found if len(cells))


def c2(white: pd.DataFrame, restarted: pd.DataFrame) -> pd.DataFrame:
    """C2 over losses, currencies and random starts: costs per success on the DyNN over those on the SDNN; below 1 supports.

    Args:
        white: of ``efficiency.white_box``.
        restarted: the same of the main reading from another random start.
    """
    rows = []
    for spent, currency in (("mmacs", "MACs"), ("steps", "gradient steps")):
        ratios = efficiency.cost_ratios(white, spent)
        for loss in sorted(dict.fromkeys(ratios.loss), key=lambda loss: loss != "taken"):  # the main reading first
            cells, display = ratios[ratios.loss == loss], get_loss(loss).display
            if spent == "mmacs":
                about = (MAIN, f"{currency}, loss of the {display}") if loss == "taken" else ("loss", display)
            else:
                about = ("currency", currency) if loss == "taken" else ("currency, loss", f"{currency}, {display}")
            rows.append(("C2", *about, -cells.log_ratio, *pooled_ratio(cells)))
    again = efficiency.cost_ratios(restarted)
    return _ruled([*rows, ("C2", *RESTART, -again.log_ratio, *pooled_ratio(again))])


def c3(clean: dict[str, Outputs], attacked: dict[Setting, Pairs], restarted: dict[Setting, Pairs], eps_255: int) -> pd.DataFrame:
    """C3 over attackers, attacks, radii, random starts and what the designer may choose: gains in robust accuracy.

    Args:
        clean: outputs by network, see ``results.read_outputs``.
        attacked: outputs by attack and radius, source and target, see ``results.read_exit_design``.
        restarted: the same of the main reading from another random start.
        eps_255: radius of the main reading.
    """
    spaces: Spaces = {}
    for (attack, eps), pairs in attacked.items():
        for (source, target), outputs in pairs.items():
            attacker = design.attacker(source, target)
            usual = attacker == "a separate SDNN"
            if (attack, eps) == ("pgd", eps_255):
                reading = (MAIN if usual else "attacker", attacker)
            elif usual and attack == "pgd":
                reading = ("radius", f"{eps}/255")
            elif usual and eps == eps_255:
                reading = ("attack", ATTACKS[attack].display)
            else:
                continue  # one thing at a time
            spaces.setdefault(reading, []).append((Network.parse(target).dataset, design.space(clean[target], outputs)))
    for (_, target), outputs in restarted["pgd", eps_255].items():
        spaces.setdefault(RESTART, []).append((Network.parse(target).dataset, design.space(clean[target], outputs)))
    return _designs("C3", spaces)


def c4_surface(records: pd.DataFrame, restarted: pd.DataFrame, eps_255: int) -> pd.DataFrame:
    """C4's first half over radii, objectives, random starts and the way exits were trained: what Early PGD opens beyond PGD.

    Args:
        records: of ``early_attack``, see ``results.read_early``.
        restarted: the same of the main reading from another random start.
        eps_255: radius of the main reading.
    """
    ours, kind = records[records.attack == "early_pgd"], records.source.map(lambda id: Network.parse(id).kind)
    losses, smallest = list(dict.fromkeys(ours.loss)), ours.eps_255.min()
    found = [(MAIN, f"{eps_255}/255, joint training", "dynn", eps_255, losses[0])]
    found += [("radius", f"{eps}/255", "dynn", eps, losses[0]) for eps in dict.fromkeys(ours.eps_255) if eps != eps_255]
    found += [("objective", f"{get_loss(loss).display}, {smallest}/255", "dynn", smallest, loss) for loss in losses[1:]]
    found.append(("training", "exits only", "ic_only", eps_255, losses[0]))
    rows = []
    for group, reading, of_kind, eps, loss in found:
        gains = surface.surface_gains(records[kind == of_kind], eps, loss)
        rows.append(("C4, surface", group, reading, *_mean(gains, "gain")))
    again = surface.surface_gains(restarted, eps_255, losses[0])
    return _ruled([*rows, ("C4, surface", *RESTART, *_mean(again, "gain"))])


def c4_design(designs: pd.DataFrame, restarted: pd.DataFrame, eps_255: int) -> pd.DataFrame:
    """C4's second half over radii, random starts, training and what the designer may choose: gains in what withstands.

    Args:
        designs: of ``surface.design_table``.
        restarted: the same of the main reading from another random start.
        eps_255: radius of the main reading.
    """
    spaces: Spaces = {}
    both = pd.concat([designs.assign(restart=False), restarted.assign(restart=True)])
    for (restart, dataset, _, kind, eps), table in both.groupby(["restart", "dataset", "model", "kind", "eps_255"], sort=False):
        if restart:
            reading = RESTART
        elif kind != "dynn":
            reading = ("training", "exits only" if eps == eps_255 else f"exits only, {eps}/255")
        else:
            reading = (MAIN if eps == eps_255 else "radius", f"{eps}/255")
        spaces.setdefault(reading, []).append((dataset, table.reset_index(drop=True)))
    return _designs("C4, design", spaces)


# By group and reading: for each cell its data set and the designs to choose from, see ``design.space``.
Spaces = dict[tuple[str, str], list[tuple[str, pd.DataFrame]]]


# What a designer may change, the rest being the default's.
CHOICES: dict[str, Callable[[pd.DataFrame, pd.Series], pd.Series]] = {
    "exits": lambda t, start: (t.threshold == start.threshold) & (t.fall_back == start.fall_back),
    "threshold": lambda t, start: (t.exits == start.exits) & (t.fall_back == start.fall_back),
    "fall-back": lambda t, start: (t.exits == start.exits) & (t.threshold == start.threshold),
}


def _designs(claim: str, spaces: Spaces) -> pd.DataFrame:
    """The chosen design's gain: main reading, then with fewer choices, chosen on the other half, then in the other spaces."""

    def gains(cells: list[tuple[str, pd.DataFrame]], choice: str | None = None) -> pd.DataFrame:
        found = []
        for dataset, table in cells:
            allowed = table[CHOICES[choice](table, design.default(table))] if choice else table
            found.append({"dataset": dataset, **design.chosen(allowed.reset_index(drop=True))})
        return pd.DataFrame(found)

    (main,) = (name for group, name in spaces if group == MAIN)
    rows = [(claim, MAIN, f"{main}, all choices", *_mean(gains(spaces[MAIN, main]), "gain"))]
    rows += [(claim, "choice", f"only the {choice}", *_mean(gains(spaces[MAIN, main], choice), "gain")) for choice in CHOICES]
    rows.append((claim, "images", "chosen on the other half", *_mean(gains(_other_half(spaces[MAIN, main])), "gain")))
    rows += [(claim, *reading, *_mean(gains(cells), "gain")) for reading, cells in spaces.items() if reading[0] != MAIN]
    return _ruled(rows)


def _other_half(cells: list[tuple[str, pd.DataFrame]]) -> list[tuple[str, pd.DataFrame]]:
    """The same with the halves of the images in each other's place: ``design.chosen`` chooses on what was held out before."""
    return [
        (dataset, table.assign(**{name: [np.roll(v, len(v) // 2) for v in table[name]] for name in ("clean", "robust")}))
        for dataset, table in cells
    ]


def _having(table: pd.DataFrame, values: dict) -> pd.DataFrame:
    columns = [column for column in values if column in table]
    return table[np.logical_and.reduce([table[column] == values[column] for column in columns])]


def _mean(cells: pd.DataFrame, value: str) -> tuple[pd.Series, float, float, float]:
    return cells[value], cells[value].mean(), *pooled_interval(cells)


def _ruled(rows: Iterable[tuple]) -> pd.DataFrame:
    """From claim, group, reading, the cells' values (above 0 is the claim's side), and the pooled value with its interval."""
    found = []
    for claim, group, reading, cells, value, low, high in rows:
        # A ratio is on the claim's side below 1, all else above 0.
        bounds = (-np.log(high), -np.log(low)) if claim == "C2" else (low, high)
        found.append((claim, group, reading, len(cells), (cells > 0).sum(), value, low, high, ruled(cells, *bounds)))
    return pd.DataFrame(found, columns=COLUMNS)
