"""RQ3: what the Early Attack reaches, from the records of ``experiments.rq3``.

An image counts where the clean one is classified correctly by the network as deployed and by its final exit. The *surface* is the
share on which an attack makes the network as deployed err while its final exit does not: what no static network is open to.
"""

import numpy as np
import pandas as pd

from dynlib.design import ONE_POINT, costs, default
from dynlib.measures import bootstrap_mean, rate
from dynlib.networks.identity import Network
from dynlib.results import read_macs

ATTACK = ["attack", "loss", "goal", "eps_255"]
CELL = ["dataset", "model", "kind"]


def surface_table(records: pd.DataFrame) -> pd.DataFrame:
    """What each attack does to the network that it was made on: a row for each attack, with 95 % Wilson intervals.

    ``surface`` is explained above; ``strict`` is the share of counted images on which every early exit has left its label and the
    final exit has not, ``flipped`` the mean share of early exits that have, ``final_lost`` the share whose final exit errs.
    """
    counts, rows = _counts(records), []
    for row in _on_source(records):
        here, n_early = counts[row.source], _n_early(row.source)
        opened, strict = (hit[here] for hit in _hits(row, n_early))
        about = (*Network.parse(row.source).parts, *(getattr(row, name) for name in ATTACK), here.sum())
        rates = (*rate(opened.sum(), here.sum()), *rate(strict.sum(), here.sum()))
        rows.append((*about, *rates, row.flipped[here].mean() / n_early, 1 - row.kept[here].mean()))
    measured = ["surface", "low", "high", "strict", "strict_low", "strict_high", "flipped", "final_lost"]
    return pd.DataFrame(rows, columns=[*CELL, *ATTACK, "n", *measured])


def published_table(records: pd.DataFrame) -> pd.DataFrame:
    """The published attack over alpha, on all images as published: success with Wilson intervals, and at what price.

    ``l2`` and ``linf`` are medians, in units and in 255ths of the range of images; ``iterations`` is a median, ``gmacs`` a mean.
    """
    rows = []
    for row in _on_source(records):
        if row.attack == "none":
            continue
        opened, strict = _hits(row, _n_early(row.source))
        rates = (*rate(strict.sum(), len(strict)), *rate(opened.sum(), len(opened)))
        price = (np.median(row.l2) / 1000, np.median(row.linf) * 255 / 1000, np.median(row.made), row.kmacs.mean() / 1e6)
        rows.append((*Network.parse(row.source).parts, row.alpha, len(strict), *rates, *price, row.kept.mean()))
    measured = ["strict", "low", "high", "deployed", "deployed_low", "deployed_high", "l2", "linf", "iterations", "gmacs", "kept"]
    return pd.DataFrame(rows, columns=[*CELL, "alpha", "n", *measured])


def transfer_table(records: pd.DataFrame) -> pd.DataFrame:
    """Each attack on each network, against what that network's own final exit predicts for the clean image.

    Counted are images on which the clean target as deployed agrees with its final exit. ``strict`` and ``surface`` have Wilson
    intervals; ``lost`` is the share of all images that change the final exit's answer, the only number of a static target.
    """
    clean = {row.target: row.deployed for row in records[records.attack == "none"].itertuples()}
    rows = []
    for row in records[records.attack != "none"].itertuples():
        n_early = _n_early(row.target)
        here = clean[row.target][: len(row.kept)]
        opened, strict = (hit[here] for hit in _hits(row, n_early))
        rates = (*rate(strict.sum(), here.sum()), *rate(opened.sum(), here.sum())) if n_early else (np.nan,) * 6
        about = (row.source, row.target, *(getattr(row, name) for name in (*ATTACK, "alpha")))
        rows.append((*about, here.sum(), *rates, 1 - row.kept.mean()))
    measured = ["strict", "strict_low", "strict_high", "surface", "low", "high", "lost"]
    return pd.DataFrame(rows, columns=["source", "target", *ATTACK, "alpha", "n", *measured])


def surface_gains(records: pd.DataFrame, eps_255: int, loss: str) -> pd.DataFrame:
    """C4, surface: what ``EarlyPGD`` opens beyond the better of PGD on the final exit and on the exit taken, at one radius.

    A row for each network; ``per_image`` holds the difference on each image, NaN where it does not count.
    """
    counts, rows = _counts(records), []
    here = records[(records.source == records.target) & (records.eps_255 == eps_255)]
    for source, attacks in here.groupby("source", sort=False):
        opened = {(row.attack, row.loss, row.goal): _hits(row, _n_early(source))[0] for row in attacks.itertuples()}
        plain = max((hit for key, hit in opened.items() if key[0] == "pgd"), key=lambda hit: hit[counts[source]].mean())
        difference = np.where(counts[source], opened["early_pgd", loss, "deployed"].astype(float) - plain, np.nan)
        counted = difference[counts[source]]
        rows.append((*Network.parse(source).parts, len(counted), counted.mean(), *bootstrap_mean(counted), difference))
    return pd.DataFrame(rows, columns=[*CELL, "n", "gain", "low", "high", "per_image"])


def design_table(records: pd.DataFrame) -> pd.DataFrame:
    """Each design against an attacker who knows it, in the form of ``design.space``, with the network and the radius.

    ``clean``: per image ``[n]``, whether the clean image is answered correctly; ``robust`` whether the attack on it fails, NaN
    where the image does not count; ``mmacs`` is the mean cost on clean images, in millions. Exits count from 0.
    """
    rows = []
    for row in records.itertuples():
        exits = tuple(int(exit) for exit in row.exits.split())
        paid = dict(zip(exits, costs(row.source, read_macs(row.source), exits).tolist(), strict=True))
        robust = np.where(row.right & row.final_right, ~(row.kept & ~row.deployed), np.nan)
        mmacs = np.mean([paid[depth] for depth in row.depth]) / 1e6
        rows.append((*Network.parse(row.source).parts, row.eps_255, exits, row.threshold, row.fall_back, row.right, robust, mmacs))
    return pd.DataFrame(rows, columns=[*CELL, "eps_255", "exits", "threshold", "fall_back", "clean", "robust", "mmacs"])


def design_factors(table: pd.DataFrame) -> pd.DataFrame:
    """The designs of one network and radius, sorted by the one choice in which each differs from the default.

    A row for each factor and level, the default in all of them: ``clean`` accuracy, the share ``robust`` with its Wilson interval,
    and the ``gain`` over the default on the images that count for both, with its 95 % bootstrap interval; ``equal`` marks a clean
    accuracy within 1 point of the default's, ``default`` the default itself.
    """
    start, rows = default(table), []
    for row in table.itertuples():
        counted, gain = row.robust[~np.isnan(row.robust)], row.robust - start.robust
        gain, equal = gain[~np.isnan(gain)], abs(row.clean.mean() - start.clean.mean()) <= ONE_POINT
        shares = (row.clean.mean(), row.mmacs, *rate(counted.sum(), len(counted)), gain.mean(), *bootstrap_mean(gain))
        about = (*shares, equal, row.Index == start.name)
        rows += [(*level, *about) for level in levels(row, start)]
    names = ["factor", "level", "clean", "mmacs", "robust", "low", "high", "gain", "gain_low", "gain_high", "equal", "default"]
    return pd.DataFrame(rows, columns=names).sort_values(["factor", "level"], key=_in_order, kind="stable", ignore_index=True)


_FACTORS = ("first exit", "number of early exits", "threshold", "fall-back")


def levels(row, start: pd.Series) -> list[tuple[str, str]]:
    """The factors in which a design is a level of its own, all others being the default's."""
    threshold, rule, every = row.threshold == start.threshold, row.fall_back == start.fall_back, row.exits == start.exits
    found = []
    if threshold and rule and row.exits == start.exits[row.exits[0] :]:
        found.append(("first exit", str(row.exits[0] + 1)))
    if threshold and rule and row.exits[0] == 0:
        found.append(("number of early exits", str(len(row.exits) - 1)))
    if every and rule:
        found.append(("threshold", str(row.threshold)))
    if every and threshold:
        found.append(("fall-back", row.fall_back))
    return found


def _in_order(column: pd.Series) -> pd.Series:
    return column.map(_FACTORS.index) if column.name == "factor" else column


def _hits(row, n_early: int) -> tuple[np.ndarray, np.ndarray]:
    """Per image: whether only the network as deployed errs, and whether the attack has succeeded strictly."""
    return row.kept & ~row.deployed, row.kept & (row.flipped == n_early)


def _counts(records: pd.DataFrame) -> dict[str, np.ndarray]:
    clean = records[(records.attack == "none") & (records.source == records.target)]
    return {row.source: row.right & row.final_right for row in clean.itertuples()}


def _on_source(records: pd.DataFrame):
    return records[records.source == records.target].itertuples()


def _n_early(network: str) -> int:
    return len(read_macs(network)) - 1
