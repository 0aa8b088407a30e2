"""RQ1: what transfers between networks, and which direction is easier (C1)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dynlib.analysis import stats
from dynlib.analysis.measured import Records, Rule
from dynlib.mechanisms import Mechanism
from dynlib.networks.identity import Network, beside
from dynlib.records import RecordsError

SENSITIVE = (1.0, 2.0, 4.0, 8.0)  # 255ths: the radii of which C1's main reading takes one
SETTING = ["method", "loss", "eps_255", "seed"]


def right_when_clean(
    clean: Records, split: str = "test", mechanism: Mechanism | Rule | None = None, final: bool = False
) -> dict[Network, np.ndarray]:
    """For each network the mask of the clean images that it classifies correctly, as deployed or at its final exit."""
    rows = clean.shown(split, mechanism).itertuples()
    return {row.target: (row.labels[-1] if final else row.label) == row.truth for row in rows}


def fooled(rows: pd.DataFrame, final: bool = False) -> list[np.ndarray]:
    """Of each row of ``Records.shown`` the mask of images whose label is wrong, as deployed or at the final exit."""
    return [(row.labels[-1] if final else row.label) != row.truth for row in rows.itertuples()]


def common(right: dict[Network, np.ndarray], source: Network, target: Network, n: int) -> np.ndarray:
    """Which of the first ``n`` images both networks classify correctly when clean.

    Raises:
        RecordsError: none, or there are fewer clean images than that.
    """
    counts = right[source][:n] & right[target][:n]
    if len(counts) < n or not counts.any():
        raise RecordsError(f"{source} and {target} classify none of {n} clean images correctly in common")
    return counts


def rates(shown: pd.DataFrame, right: dict[Network, np.ndarray]) -> pd.DataFrame:
    """Share of images that an attack turns: rows of ``Records.shown`` with ``n``, ``rate`` and its Wilson interval.

    A rate counts the images that source and target both classify correctly when clean.

    Raises:
        RecordsError: a pair without such an image.
    """
    found = [
        (*row[:-1], np.sum(~np.isnan(row[-1])), *stats.rate(row[-1][~np.isnan(row[-1])] > 0))
        for row in outcomes(shown, right).itertuples(index=False)
    ]
    return pd.DataFrame(found, columns=["source", "target", *SETTING, "n", "rate", "low", "high"])


def outcomes(shown: pd.DataFrame, right: dict[Network, np.ndarray]) -> pd.DataFrame:
    """What is behind ``rates``: ``per_image`` ``[n]`` is 1 where the target errs, 0 where not, NaN where an image does not count.

    Raises:
        RecordsError: a pair without an image that counts.
    """
    found = []
    for row, wrong in zip(shown.itertuples(), fooled(shown), strict=True):
        counts = common(right, row.source, row.target, len(wrong))
        about = {name: getattr(row, name) for name in ("source", "target", *SETTING)}
        found.append({**about, "per_image": np.where(counts, wrong.astype(float), np.nan)})
    return pd.DataFrame(found)


def both_ways(shown: pd.DataFrame, right: dict[Network, np.ndarray]) -> pd.DataFrame:
    """``outcomes`` between the SDNN and the jointly trained DyNN of each cell.

    With ``dataset`` and ``model``, and ``kind`` of the source.
    """
    pairs = usual_kinds(shown, "source", "target")
    pairs = pairs[[s != t and s.static == t.static for s, t in zip(pairs.source, pairs.target, strict=True)]]
    return with_cell(outcomes(pairs, right), "source")


def white_box(shown: pd.DataFrame, right: dict[Network, np.ndarray]) -> pd.DataFrame:
    """``outcomes`` on the source itself, be it an SDNN or a jointly trained DyNN, with ``dataset``, ``model`` and ``kind``."""
    return with_cell(outcomes(usual_kinds(shown[shown.source == shown.target], "source"), right), "source")


def pooled(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Means over cells of the means over images, with 95 % intervals, see ``stats.pooled_mean``.

    ``cells`` is how many are pooled, ``n`` the smallest number of images in one.

    Args:
        table: rows with networks, see ``stats.trainings``, ``per_image`` ``[n]`` (NaN where an image does not count), and the
            columns ``by``.
        by: rows that agree in these are pooled.
    """
    found = []
    for values, rows in table.groupby(by, sort=False):
        measured = stats.trainings(rows, "per_image")
        about = {"cells": stats.number_of_cells(measured), "n": min((~np.isnan(one.values)).sum() for one in measured)}
        found.append({**dict(zip(by, values, strict=True)), **about, **stats.pooled_mean(measured).columns("value")})
    return pd.DataFrame(found, columns=[*by, "cells", "n", "value", "low", "high"])


def key(what: str, rows: pd.DataFrame) -> dict[str, Any] | None:
    """The key number of a figure: the mean of rows as ``pooled`` takes them, with its interval; see ``figures.save_figure``.

    None where there are no such rows.
    """
    if rows.empty:
        return None
    return {"what": what, **stats.pooled_mean(stats.trainings(rows, "per_image")).columns("value")}


def usual_kinds(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The rows whose networks, named by these columns, are static or have all exits, trained jointly."""
    kept = [all(network.kind in ("sdnn", "dynn") for network in row) for row in zip(*(table[name] for name in names), strict=True)]
    return table[kept]


def of_one_training(table: pd.DataFrame, source: str = "source", target: str = "target") -> pd.DataFrame:
    """The rows whose two networks go beside each other, see ``identity.beside``."""
    fits = beside({*table[source], *table[target]})
    return table[[fits(one, other) for one, other in zip(table[source], table[target], strict=True)]]


def at_radius(table: pd.DataFrame, radius: dict[str, float]) -> pd.Series:
    """Mask of the rows at the radius of their data set; they have ``dataset`` and ``eps_255``."""
    return table.eps_255 == table.dataset.map(radius)


def compared_radius(table: pd.DataFrame, radius: dict[str, float]) -> dict[str, float]:
    """For each data set the radius at which attacks and losses are compared: the one at which most were made.

    Where several tie, it is the main one if that is among them.

    Args:
        table: rows of ``directions`` with ``dataset``.
        radius: of the main reading.
    """
    found = {}
    for dataset, rows in table[table.eps_255 > 0].groupby("dataset", sort=False):
        number = rows.groupby("eps_255").apply(lambda here: len(here[["method", "loss"]].drop_duplicates()), include_groups=False)
        best = number.index[number == number.max()]
        found[dataset] = radius[dataset] if radius[dataset] in best else float(best[0])
    return found


def matched(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with attacks that were made on each ``kind`` of network that a ``dataset`` has in the table."""
    kinds = table.groupby("dataset").kind.transform("nunique")
    return table[table.groupby(["dataset", *SETTING]).kind.transform("nunique") == kinds]


def with_cell(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """With the data set, the model and the kind of the network in a column."""
    networks = table[name]
    parts = {part: [getattr(network, part) for network in networks] for part in ("dataset", "model", "kind")}
    return table.assign(**parts)


def directions(shown: pd.DataFrame, right: dict[Network, np.ndarray], final: bool = False) -> pd.DataFrame:
    """C1, cell by cell: rate(DyNN to SDNN) less rate(SDNN to DyNN), for each attack, its loss on the DyNN, radius and seed.

    Both rates are on the images that both networks classify correctly. ``to_static`` and ``to_dynamic`` are the rates,
    ``difference`` has its interval, ``p`` is of the exact McNemar test, and ``per_image`` holds ``[n]`` differences, NaN where an
    image does not count.

    Args:
        shown: rows of ``Records.shown``.
        right: of ``right_when_clean``.
        final: whether dynamic networks answer at their final exit, as if there were no mechanism.
    Raises:
        RecordsError: a pair without a common image.
    """
    turned = {
        (r.source, r.target, *(getattr(r, name) for name in SETTING)): wrong
        for r, wrong in zip(shown.itertuples(), fooled(shown, final), strict=True)
    }
    found = []
    for (source, target, method, loss, eps, seed), to_static in turned.items():
        if source.is_static or not target.is_static or target != source.static:
            continue
        to_dynamic = turned.get((target, source, method, "final", eps, seed))
        if to_dynamic is None:
            continue  # the static network was not attacked so
        counts = common(right, source, target, len(to_static))
        per_image = np.where(counts, to_static.astype(float) - to_dynamic, np.nan)
        p = stats.mcnemar((per_image > 0).sum(), (per_image < 0).sum())
        found.append(
            {"network": source, "method": method, "loss": loss, "eps_255": eps, "seed": seed, "n": counts.sum()}
            | {"to_static": to_static[counts].mean(), "to_dynamic": to_dynamic[counts].mean()}
            | stats.mean(per_image).columns("difference")
            | {"p": p, "per_image": per_image}
        )
    return pd.DataFrame(found)


def sensitive_radius(transfer: Records, clean: Records) -> dict[str, float]:
    """For each data set the radius, in 255ths, of C1's main reading.

    Of ``SENSITIVE`` the one at which PGD with the average loss transfers nearest to one half on validation images, on the mean of
    both directions and all cells.

    Raises:
        RecordsError: no such radius was measured.
    """
    table = directions(transfer.shown("validation"), right_when_clean(clean, "validation"))
    table = table[is_main(table) & table.eps_255.isin(SENSITIVE)]
    if table.empty:
        raise RecordsError(f"{transfer.folder}: no validation images were attacked at one of the radii {SENSITIVE}")
    middle = table[["to_static", "to_dynamic"]].mean(axis=1)
    dataset = table.network.map(lambda network: network.dataset)
    off = (middle.groupby([dataset, table.eps_255]).mean() - 0.5).abs().rename("off").reset_index()
    return {name: float(rows.eps_255[rows.off.idxmin()]) for name, rows in off.groupby("network", sort=False)}


def is_main(table: pd.DataFrame) -> pd.Series:
    """C1's main reading, whatever the radius: PGD, the average loss, jointly trained exits, the profile's own random start."""
    joint = table.network.map(lambda network: network.trained == "joint" and network.exits == "all")
    return (table.method == "pgd") & (table.loss == "average") & (table.seed == table.seed.min()) & joint


def over_mechanisms(transfer: Records, clean: Records, mechanisms: Mapping[str, Mechanism | Rule]) -> pd.DataFrame:
    """``directions`` with other mechanisms of the targets, named in ``reading``; the last one asks their final exit alone."""
    found = []
    for name, mechanism in mechanisms.items():
        table = directions(transfer.shown(mechanism=mechanism), right_when_clean(clean, mechanism=mechanism))
        found.append(table.assign(reading=name))
    last = directions(transfer.shown(), right_when_clean(clean, final=True), final=True)
    return pd.concat([*found, last.assign(reading="final exit")], ignore_index=True)


def distortions(transfer: Records) -> pd.DataFrame:
    """How far attacks move the images: the mean L2 distance for each source, attack, loss, radius and seed."""
    table = transfer.examples().join(transfer.attacks[["attack", "loss", "eps_255", "seed"]].add_prefix("of_"), on="attack")
    names = {"of_attack": "method", "of_loss": "loss", "of_eps_255": "eps_255", "of_seed": "seed"}
    return table.rename(columns=names).assign(l2=[float(np.mean(l2)) for l2 in table.l2])[["source", *SETTING, "l2"]]
