"""RQ1: what it costs to fool a network as deployed, by a walk in small steps, each of them paid for (C2)."""

from typing import Any

import numpy as np
import pandas as pd

from dynlib.analysis import stats
from dynlib.analysis.measured import Records, costs
from dynlib.analysis.transfer import SETTING, right_when_clean, with_cell
from dynlib.networks.identity import Network
from dynlib.records import RecordsError

SPENT = {"macs": "MACs", "steps": "gradient steps"}


def variants(attacks: pd.DataFrame) -> dict[str, str]:
    """In what each walk differs from the first one, for people, ``""`` where only the loss does; by name, of ``Records.attacks``.

    A variant differs in one thing: its steps, the ball that they stay in, or the mechanism of the network as deployed.
    """
    usual = attacks.iloc[0]

    def differs(walk: Any) -> str:
        if walk.mechanism != usual.mechanism:
            return ", ".join(f"{key} {value}" for key, value in walk.mechanism.items() if value != usual.mechanism.get(key))
        if walk.eps_255 != usual.eps_255:
            return f"inside {walk.eps_255:g}/255"
        same = (walk.step_size, walk.steps) == (usual.step_size, usual.steps)
        return "" if same else f"steps of {255 * walk.step_size:g}/255, at most {walk.steps:g}"

    return {walk.Index: differs(walk) for walk in attacks.itertuples()}


def walks(cost: Records, clean: Records, split: str = "test", variant: str = "") -> pd.DataFrame:
    """A row for each source and loss; per-image columns ``counts``, ``success``, ``steps``, ``macs`` and ``linf``, ``[n]`` each.

    ``counts`` marks the images that all attacked networks of one training of a cell classify correctly, so that they are compared
    on the same ones; elsewhere the others are 0. ``steps`` and ``macs`` are everything that was spent on an image, in vain or not.

    Args:
        cost, clean: records of the walks, and of clean images.
        split: of the images.
        variant: one of ``variants``.
    Raises:
        RecordsError: the networks of a training classify no image correctly in common.
    """
    names = [name for name, differs in variants(cost.attacks).items() if differs == variant]
    right, found = right_when_clean(clean, split, cost.planned_mechanism(names[0])), list[dict[str, Any]]()
    table = cost.examples(split).join(cost.attacks[["loss"]], on="attack")
    table = table[table.attack.isin(names)]
    for source, loss, row in zip(table.source, table.loss, table.itertuples(), strict=True):
        n = len(row.truth)
        counts = np.logical_and.reduce([right[other][:n] for other in set(table.source) if other.static == source.static])
        if not counts.any():
            raise RecordsError(f"{cost.folder}: {source} and its siblings classify none of {n} images correctly in common")
        columns = {name: np.where(counts, getattr(row, name), 0) for name in ("steps", "macs", "linf")}
        found.append({"source": source, "loss": loss, "counts": counts, "success": row.reached & counts, **columns})
    return pd.DataFrame(found)


def per_success(walked: pd.DataFrame) -> pd.DataFrame:
    """What each walk reaches and what a success costs.

    ``success`` is the rate with its Wilson interval; ``macs`` and ``steps`` are all that was spent over the number of successes;
    ``distance`` is the median L-infinity distance at which an image falls, in 255ths.
    """
    found = []
    for row in walked.itertuples():
        hits = row.success.sum()
        success = stats.rate(row.success[row.counts]).columns("success")
        spent = {name: getattr(row, name).sum() / hits if hits else np.inf for name in SPENT}
        distance = 255 * np.median(row.linf[row.success]) if hits else np.nan
        found.append({"source": row.source, "loss": row.loss, "n": row.counts.sum(), **success, **spent, "distance": distance})
    return pd.DataFrame(found)


def success_curves(walked: pd.DataFrame, points: int = 60) -> pd.DataFrame:
    """The share of images that have fallen by the time that so many MACs have been spent on each of them, with Wilson intervals."""
    found = []
    for row in walked.itertuples():
        spent, fallen = row.macs[row.counts], row.success[row.counts]
        for macs in np.geomspace(spent.min(), spent.max(), points):
            found.append((row.source, row.loss, len(spent), macs, *stats.rate(fallen & (spent <= macs))))
    return pd.DataFrame(found, columns=["source", "loss", "n", "macs", "rate", "low", "high"])


def pass_macs(network: Network) -> int:
    """The MACs of a full forward and backward pass of the static network of its cell."""
    return 2 * int(costs(network.static)[-1])


# What a walk's success is plotted over: from a row of ``walks`` to ``[n]``.
OVER = {
    "passes": lambda row: row.macs / pass_macs(row.source),
    "distance": lambda row: 255 * row.linf,
}


def pooled_curves(walked: pd.DataFrame, over: str, points: np.ndarray) -> pd.DataFrame:
    """The share of images that have fallen by each point, a mean over the cells of a data set, with a 95 % bootstrap interval.

    Args:
        walked: of ``walks``.
        over: a key of ``OVER``: ``"passes"``, the MACs that are spent, in forward and backward passes of the cell's SDNN; or
            ``"distance"``, how far the walk has gone, in 255ths.
        points: increasing.
    """
    found = []
    for (dataset, kind, loss), rows in with_cell(walked, "source").groupby(["dataset", "kind", "loss"], sort=False):
        cells = []
        for row in rows.itertuples():
            fallen = row.success[:, None] & (OVER[over](row)[:, None] <= points + 1e-4)  # distances are stored in float32
            cells.append(stats.of(np.where(row.counts[:, None], fallen.astype(float), np.nan), row.source))
        curve = stats.pooled_curve(cells).columns("rate")
        about = {"dataset": dataset, "kind": kind, "loss": loss, "cells": len(cells), "n": rows.counts.map(np.sum).min()}
        found.append(pd.DataFrame({**about, over: points, **curve}))
    return pd.concat(found, ignore_index=True)


def halfway(curves: pd.DataFrame, over: str) -> pd.DataFrame:
    """Where curves of ``pooled_curves`` over the column ``over`` first reach one half; curves that do not are left out."""
    names = ["dataset", "kind", "loss"]
    return curves[curves.rate >= 0.5].groupby(names, sort=False)[over].min().reset_index()


def ratios(walked: pd.DataFrame, spent: str = "macs") -> pd.DataFrame:
    """C2: the cost of a success on the dynamic network over that on the static one of its training, for each loss.

    ``log_ratio`` has a 95 % bootstrap interval over images; ``columns`` ``[n, 4]`` are what ``log_ratio`` is computed from.
    """
    static, found = {row.source: row for row in walked.itertuples() if row.source.is_static}, []
    for row in walked.itertuples():
        if row.source.is_static:
            continue
        other = static[row.source.static]
        columns = np.stack([getattr(row, spent), row.success, getattr(other, spent), other.success], axis=1).astype(float)
        low, high = stats.bootstrap([stats.of(columns, row.source)], log_ratio)
        found.append((row.source, row.loss, row.counts.sum(), of_sums(columns), low, high, columns))
    return pd.DataFrame(found, columns=["network", "loss", "n", "log_ratio", "low", "high", "columns"])


def pooled_ratios(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Means of ``log_ratio`` over cells with 95 % intervals, see ``stats.bootstrap``; of rows of ``ratios``.

    ``cells`` is how many are pooled, ``n`` the smallest number of images in one.
    """
    found = []
    for values, rows in table.groupby(by, sort=False):
        measured = stats.trainings(rows, "columns")
        low, high = stats.bootstrap(measured, log_ratio)
        about = {**dict(zip(by, values, strict=True)), "cells": stats.number_of_cells(measured), "n": rows.n.min()}
        found.append({**about, "log_ratio": stats.over_cells(measured, of_sums), "low": low, "high": high})
    return pd.DataFrame(found)


def log_ratio(sums: np.ndarray) -> np.ndarray:
    """From sums ``[..., 4]`` over images: spent on and successes with the dynamic network, then the static one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(sums[..., 0] / sums[..., 1]) - np.log(sums[..., 2] / sums[..., 3])


def of_sums(columns: np.ndarray) -> float:
    """``log_ratio`` of columns ``[n, 4]``."""
    return float(log_ratio(columns.sum(axis=0)))


def cheapest_loss(cost: Records, clean: Records) -> str:
    """The loss of C2's main reading: on validation images the one of lowest cost per success, by the cells' geometric mean."""
    table = ratios(walks(cost, clean, "validation"))
    return str(table.groupby("loss", sort=False).log_ratio.mean().idxmin())


def side_effects(shown: pd.DataFrame, clean: Records) -> pd.DataFrame:
    """What examples do to the computation of dynamic networks, whatever they do to the answer.

    For each source of the target's training, attack and target: ``cost`` as a share of a full run with its interval, the same of
    clean images as ``clean``, and the shares that leave ``earlier`` and ``later`` than when clean. ``per_image`` ``[n]`` is the
    cost less that of the clean image, as a share of a full run.
    """
    before = {row.target: row for row in clean.shown().itertuples()}
    found = []
    for row in shown.itertuples():
        if row.target.is_static or row.source.static != row.target.static:
            continue
        full, n = costs(row.target)[-1].item(), len(row.cost)
        usual = before[row.target].cost[:n]
        about = {name: getattr(row, name) for name in ("source", "target", *SETTING)}
        share = stats.mean(row.cost / full).columns("cost")
        moved = {"earlier": (row.cost < usual).mean(), "later": (row.cost > usual).mean(), "clean": usual.mean() / full}
        found.append({**about, "n": n, **share, **moved, "per_image": (row.cost - usual) / full})
    return pd.DataFrame(found)
