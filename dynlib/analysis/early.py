"""RQ3: the published attack, and whether what attacks open travels: against each network's own answers, as its authors count.

A success is *strict* where every early exit has left what the final exit answers to the clean image and the final exit has not.
"""

from typing import Any

import numpy as np
import pandas as pd

from dynlib.analysis import stats
from dynlib.analysis.measured import Records
from dynlib.networks.identity import Network


def published_table(published: Records, clean: Records) -> pd.DataFrame:
    """The published attack over its weight, on all images as published, against what the final exit predicts for the clean image.

    ``strict`` and ``deployed`` success have Wilson intervals; ``kept`` is the share whose final exit keeps its answer, and
    ``unnoticed`` the share of strict successes after which the network as deployed answers as before; ``l2`` and ``linf`` are
    medians, in units and in 255ths of the range of images, ``iterations`` is a median and ``macs`` a mean.
    """
    own, found = _own(clean), []
    spent = {(row.source, row.attack): row for row in published.examples().itertuples()}
    for row in published.shown().itertuples():
        if row.source == row.target:
            made, price = spent[row.source, row.attack], own[row.source][: len(row.truth)]
            kept, strict, opened = _reached(row, price)
            numbers = stats.rate(strict).columns("strict", "strict_")
            numbers |= stats.rate(opened).columns("deployed")
            numbers |= {"kept": kept.mean(), "unnoticed": (strict & ~opened).mean()}
            numbers |= {"l2": np.median(made.l2), "linf": 255 * np.median(made.linf)}
            numbers |= {"iterations": np.median(made.steps), "macs": made.macs.mean()}
            found.append({"network": row.source, "alpha": row.alpha, "n": len(kept), **numbers})
    return pd.DataFrame(found)


def travels(records: Records, clean: Records) -> pd.DataFrame:
    """Each attack on each target, against what that target's own final exit predicts for the clean image.

    Counted are images on which the clean target as deployed agrees with its final exit. ``strict`` and ``surface`` have Wilson
    intervals; ``lost`` is the share of all images that change the final exit's answer, the only number of a static target.
    """
    own, agree, found = _own(clean), {row.target: row.label == row.labels[-1] for row in clean.shown().itertuples()}, []
    for row in records.shown().itertuples():
        n = len(row.truth)
        kept, strict, opened = _reached(row, own[row.target][:n])
        here = agree[row.target][:n]
        numbers = {"n": here.sum(), "lost": 1 - kept.mean()}
        if not row.target.is_static and here.any():
            numbers |= stats.rate(strict[here]).columns("strict", "strict_")
            numbers |= stats.rate(opened[here]).columns("surface")
        found.append(
            {name: getattr(row, name) for name in ("source", "target", "method", "loss", "goal", "eps_255", "seed")} | numbers
        )
    return pd.DataFrame(found)


def _own(clean: Records) -> dict[Network, np.ndarray]:
    return {row.target: row.labels[-1] for row in clean.shown().itertuples()}


def _reached(row: Any, own: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each image: the final exit keeps its own answer; every early exit has left it, too; the network as deployed has."""
    kept = row.labels[-1] == own
    return kept, kept & (row.labels[:-1] != own).all(axis=0), kept & (row.label != own)
