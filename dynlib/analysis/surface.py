"""RQ3: what attacks open that no static network is open to, and which designs keep it closed (C4).

An image counts where the clean one is classified correctly by the network as deployed and by its final exit. The *surface* is the
share of them on which only the network as deployed errs: the static network inside is unharmed.
"""

from typing import Any

import numpy as np
import pandas as pd

from dynlib.analysis import stats
from dynlib.analysis.design import Design, evaluate
from dynlib.analysis.measured import Records, measured
from dynlib.analysis.transfer import right_when_clean
from dynlib.networks.identity import Network, early_exits
from dynlib.records import RecordsError

# What becomes of an image: whether the network as deployed, and whether its final exit, is right.
OUTCOMES = {
    "both right": (True, True),
    "only deployed errs": (False, True),
    "only final errs": (True, False),
    "both err": (False, False),
}
GOAL, PLAIN = "open_surface", "misclassify"


def counted(clean: Records, split: str = "test") -> dict[Network, np.ndarray]:
    """For each network the mask of images that count."""
    final = right_when_clean(clean, split, final=True)
    return {network: right & final[network] for network, right in right_when_clean(clean, split).items()}


def outcomes(shown: pd.DataFrame, counts: dict[Network, np.ndarray]) -> pd.DataFrame:
    """What becomes of the images that count, on the network that they were made on: a row for each attack.

    The share of each of ``OUTCOMES``, and ``surface``, which is ``"only deployed errs"``, with its Wilson interval. ``strict``:
    every early exit has left the label and the final exit has not.

    Raises:
        RecordsError: a network without an image that counts.
    """
    found = []
    for row in shown.itertuples():
        if row.source != row.target or row.source.is_static:
            continue
        here = _here(row, counts)
        deployed, exits = (row.label == row.truth)[here], (row.labels == row.truth)[:, here]
        each = {name: ((deployed == a) & (exits[-1] == b)).mean() for name, (a, b) in OUTCOMES.items()}
        about = {
            name: getattr(row, name) for name in ("source", "attack", "method", "loss", "goal", "eps_255", "seed", "early_stop")
        }
        surface = stats.rate(~deployed & exits[-1]).columns("surface")
        strict = stats.rate(~exits[:-1].any(axis=0) & exits[-1]).columns("strict", "strict_")
        found.append({**about, "n": here.sum(), **each, **surface, **strict})
    return pd.DataFrame(found)


def _here(row: Any, counts: dict[Network, np.ndarray]) -> np.ndarray:
    here = counts[row.target][: len(row.truth)]
    if not here.any():
        raise RecordsError(f"{row.target} classifies none of {len(here)} clean images correctly, as deployed and at its final exit")
    return here


def on_itself(run: str, split: str = "test") -> pd.DataFrame:
    """All attacks in a ball on dynamic networks, shown to the network they were made on: rows of ``Records.shown``."""
    both = pd.concat([measured(run, name).shown(split) for name in ("surface", "transfer")], ignore_index=True)
    return both[(both.source == both.target) & ~both.source.map(lambda network: network.is_static)]


def surface_gains(shown: pd.DataFrame, counts: dict[Network, np.ndarray], eps_255: float, seed: int) -> pd.DataFrame:
    """C4, surface: what the attacks with the goal open, image by image the best of them, less what the plain ones do.

    A row for each network, at one radius and from one random start; ``goal`` and ``plain`` are the two shares, and ``per_image``
    holds the difference on each image, NaN where it does not count.

    Args:
        shown: of ``on_itself``.
        counts: of ``counted``.
        eps_255: radius in 255ths.
        seed: of the random starts of the attacks with the goal; the plain ones are all that there are.
    """
    found, at = [], shown[(shown.eps_255 == eps_255) & (shown.method != "none")]
    for network, rows in at.groupby("source", sort=False):
        opened: dict[str, list[np.ndarray]] = {GOAL: [], PLAIN: []}
        for row in rows.itertuples():
            if row.goal in opened and (row.goal == PLAIN or row.seed == seed):
                opened[row.goal].append(_opened(row))
        if not all(opened.values()):
            continue  # only one of the two was made here
        here = counts[network][: len(rows.truth.iloc[0])]
        goal, plain = (np.any(hits, axis=0) for hits in opened.values())
        per_image = np.where(here, goal.astype(float) - plain, np.nan)
        both = {"goal": goal[here].mean(), "plain": plain[here].mean()}
        found.append({"network": network, "n": here.sum(), **both, **stats.mean(per_image).columns("gain"), "per_image": per_image})
    return pd.DataFrame(found)


def widest(table: pd.DataFrame, goal: str) -> pd.Series:
    """Mask of the rows of that attack with a goal that was made at most radii; needs ``method``, ``loss`` and ``eps_255``."""
    at = table[table.goal == goal].groupby(["method", "loss"], sort=False).eps_255.nunique()
    method, loss = at.idxmax()
    return (table.goal == goal) & (table.method == method) & (table.loss == loss)


def most_objectives(table: pd.DataFrame) -> float:
    """The radius at which most objectives were tried, of several the smallest; rows of ``outcomes``."""
    return table[table.goal != PLAIN].groupby("eps_255")["attack"].nunique().idxmax()


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Attacks by the surface that they open on the mean over networks; rows of ``outcomes``, an attack once for each network.

    ``cells`` is the number of networks, and on ``best`` of them no other attack opens more.
    """
    most = table.groupby("source", sort=False).surface.transform("max")
    groups = table.assign(best=table.surface == most).groupby(["method", "loss", "goal"], sort=False)
    found = groups.agg(surface=("surface", "mean"), cells=("surface", "size"), best=("best", "sum")).reset_index()
    return found.sort_values("surface", ascending=False, kind="stable", ignore_index=True)


def of_kind(table: pd.DataFrame, kind: str, column: str = "source") -> pd.DataFrame:
    """The rows whose network in a column is of a kind, such as ``"dynn"``."""
    return table[table[column].map(lambda network: network.kind == kind)]


def at_radius(table: pd.DataFrame, radius: dict[str, float], network: str = "source") -> pd.DataFrame:
    """The rows of the radius that a data set has; ``network`` is the column that tells the data set."""
    wanted = table[network].map(lambda one: radius.get(one.dataset, np.nan))
    return table[table.eps_255 == wanted]


def pooled(table: pd.DataFrame) -> pd.DataFrame:
    """``outcomes`` on the mean over a data set's networks; ``n`` is the smallest number of images, ``networks`` how many there are.

    A row for each data set, attack and radius.
    """
    by = ["dataset", "method", "loss", "goal", "eps_255"]
    groups = table.assign(dataset=[network.dataset for network in table.source]).groupby(by, sort=False)
    return groups[[*OUTCOMES]].mean().assign(n=groups.n.min(), networks=groups.size()).reset_index()


def vulnerability(shown: pd.DataFrame, static: pd.DataFrame, counts: dict[Network, np.ndarray], seed: int) -> pd.DataFrame:
    """How many images a network loses, whatever its final exit does, beside the static network under its own PGD.

    A row for each network and radius. Images count that both classify correctly when clean, the dynamic one as deployed and at its
    final exit. ``dynamic`` and ``static`` are the shares still right as deployed: of the dynamic one under that of its ``attacks``
    attacks that leaves least, named by ``method``, ``loss`` and ``goal``; ``surface`` is the largest surface that one of them
    opens. All three have Wilson intervals. ``difference``, static less dynamic, has its own, and ``per_image`` holds it on each
    image, NaN where it does not count.

    Args:
        shown: of ``on_itself``.
        static: rows of ``Records.shown``; those of static networks on themselves by PGD are used.
        counts: of ``counted``.
        seed: of the random starts.
    """
    pgd = static[(static.source == static.target) & (static.method == "pgd") & (static.seed == seed)]
    own = {(row.source, row.eps_255): row for row in pgd.itertuples() if row.source.is_static}
    found = []
    for (network, eps), rows in shown[shown.seed == seed].groupby(["source", "eps_255"], sort=False):
        sibling = own.get((network.static, eps))
        if sibling is None:
            continue
        n = min(len(truth) for truth in (sibling.truth, *rows.truth))
        here = counts[network][:n] & counts[sibling.source][:n]
        if here.any():
            found.append(
                {"network": network, "eps_255": eps, "n": here.sum(), "attacks": len(rows), **_beside(rows, sibling, here, n)}
            )
    return pd.DataFrame(found)


def _beside(rows: pd.DataFrame, static: Any, here: np.ndarray, n: int) -> dict[str, Any]:
    """Of the images ``here`` among the first ``n``: see ``vulnerability``."""
    still = [(row.label == row.truth)[:n] for row in rows.itertuples()]
    worst = int(np.argmin([right[here].mean() for right in still]))
    kept = (static.label == static.truth)[:n]
    shares = {"surface": max((_opened(row)[:n] for row in rows.itertuples()), key=lambda hits: hits[here].mean())}
    shares |= {"dynamic": still[worst], "static": kept}
    numbers = {name: rows.iloc[worst][name] for name in ("method", "loss", "goal")}
    for name, hits in shares.items():
        numbers |= stats.rate(hits[here]).columns(name, f"{name}_")
    per_image = np.where(here, kept.astype(float) - still[worst], np.nan)
    return numbers | stats.mean(per_image).columns("difference") | {"per_image": per_image}


def _opened(row: Any) -> np.ndarray:
    """Of each image whether only the network as deployed errs."""
    return (row.label != row.truth) & (row.labels[-1] == row.truth)


def by_training(shown: pd.DataFrame, counts: dict[Network, np.ndarray], seed: int) -> pd.DataFrame:
    """The surface that the attacks with the goal open, exits trained jointly beside exits trained on a frozen backbone.

    A row for each radius at which both were attacked, on images that count for both, and by the attacks that both had, image by
    image the best of them. ``joint`` and ``heads`` are means over ``cells`` cells, ``difference`` has its 95 % interval, and ``n``
    is the smallest number of images. Arguments as of ``surface_gains``.
    """
    found, at = [], shown[(shown.goal == GOAL) & (shown.seed == seed)]
    for eps, rows in at.groupby("eps_255"):
        cells, each = [], dict(list(rows.groupby("source", sort=False)))
        for joint, heads in ((one, one.sibling(trained="heads")) for one in each if one.trained == "joint"):
            if heads in each:
                both = [
                    each[one][each[one]["attack"].isin({*each[joint]["attack"]} & {*each[heads]["attack"]})]
                    for one in (joint, heads)
                ]
                hits = [np.any([_opened(row) for row in same.itertuples()], axis=0) for same in both]
                here = (counts[joint] & counts[heads])[: len(hits[0])]
                cells.append((joint, *(np.where(here, one.astype(float), np.nan) for one in hits)))
        if cells:
            means = {name: np.mean([np.nanmean(cell[k]) for cell in cells]) for k, name in ((1, "joint"), (2, "heads"))}
            gap = stats.pooled_mean([stats.of(joint - heads, network) for network, joint, heads in cells])
            n = min((~np.isnan(joint)).sum() for _, joint, _ in cells)
            number = len({network.cell for network, _, _ in cells})
            found.append({"eps_255": eps, "cells": number, "n": n, **means, **gap.columns("difference")})
    return pd.DataFrame(found)


def designs_attacked(designs: Records, clean: Records, split: str = "test") -> dict[Network, pd.DataFrame]:
    """Each design of a network against an attacker who knows it, in the form of ``design.space``.

    ``robust``: the network as deployed is *still right*; ``closed``: the attack does not open the surface. Both hold NaN where the
    design does not classify the clean image correctly, as deployed and at its final exit.
    """
    cleans = {seen.target: seen for seen in clean.seen(split)}
    found: dict[Network, dict[Design, dict[str, Any]]] = {}
    for seen in designs.seen(split):
        early = len(seen.answers) - 1
        exits = early_exits(designs.campaign.settings["attacks"][seen.attack]["exits"], early)
        design = Design((*exits, early), designs.planned_mechanism(seen.attack))
        quiet = cleans[seen.target]
        calm, pushed = (evaluate(seen.target, one.answers, design) for one in (quiet, seen))
        right = (calm.label == quiet.truth).numpy()
        both = (right & (quiet.answers.label[-1] == quiet.truth).numpy())[: len(seen.truth)]
        still, kept = (pushed.label == seen.truth).numpy(), (seen.answers.label[-1] == seen.truth).numpy()
        robust, closed = (np.where(both, outcome.astype(float), np.nan) for outcome in (still, still | ~kept))
        default = design == Design(tuple(range(early + 1)), designs.mechanism)
        row = {"design": design, "clean": right, "robust": robust, "closed": closed, "macs": calm.cost.double().mean().item()}
        found.setdefault(seen.target, {})[design] = {**row, "default": default}  # one design may be asked for by two names
    return {network: pd.DataFrame(rows.values()) for network, rows in found.items()}
