"""RQ1: what transfers between networks, and which direction is easier (C1)."""

import numpy as np
import pandas as pd

from dynlib.analysis import stats
from dynlib.analysis.measured import Records, costs
from dynlib.mechanisms import Mechanism
from dynlib.networks.identity import Network
from dynlib.records import RecordsError

SENSITIVE = (1.0, 2.0, 4.0, 8.0)  # 255ths: the radii of which C1's main reading takes one
SETTING = ["method", "loss", "eps_255", "seed"]


def right_when_clean(
    clean: Records, split: str = "test", mechanism: Mechanism | None = None, final: bool = False
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
    found = []
    for row, wrong in zip(shown.itertuples(), fooled(shown), strict=True):
        counts = common(right, row.source, row.target, len(wrong))
        found.append((row.source, row.target, *(getattr(row, name) for name in SETTING), counts.sum(), *stats.rate(wrong[counts])))
    return pd.DataFrame(found, columns=["source", "target", *SETTING, "n", "rate", "low", "high"])


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
        if source.is_static or not target.is_static or target != source.sibling(exits="none"):
            continue
        to_dynamic = turned.get((target, source, method, "final", eps, seed))
        if to_dynamic is None:
            continue  # the static network was not attacked so
        counts = common(right, source, target, len(to_static))
        per_image = np.where(counts, to_static.astype(float) - to_dynamic, np.nan)
        p = stats.mcnemar(np.nansum(per_image > 0), np.nansum(per_image < 0))
        found.append(
            {"network": source, "method": method, "loss": loss, "eps_255": eps, "seed": seed, "n": counts.sum()}
            | {"to_static": to_static[counts].mean(), "to_dynamic": to_dynamic[counts].mean()}
            | dict(zip(("difference", "low", "high"), stats.mean(per_image), strict=True))
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


def side_effects(shown: pd.DataFrame, clean: Records) -> pd.DataFrame:
    """What examples do to the computation of dynamic networks, whatever they do to the answer.

    For each source of the target's cell, attack and target: ``cost`` as a share of a full run with its interval, the same of clean
    images as ``clean``, and the shares that leave ``earlier`` and ``later`` than when clean.
    """
    before = {row.target: row for row in clean.shown().itertuples()}
    found = []
    for row in shown.itertuples():
        if row.target.is_static or row.source.cell != row.target.cell:
            continue
        full, n = costs(row.target)[-1].item(), len(row.cost)
        usual = before[row.target].cost[:n]
        share = row.cost / full
        about = {name: getattr(row, name) for name in ("source", "target", *SETTING)}
        moved = {"earlier": (row.cost < usual).mean(), "later": (row.cost > usual).mean(), "clean": usual.mean() / full}
        found.append({**about, "n": n, **dict(zip(("cost", "low", "high"), stats.mean(share), strict=True)), **moved})
    return pd.DataFrame(found)
