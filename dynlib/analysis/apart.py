"""RQ1, taken apart: C1's difference is that of two networks as sources, of the same two as targets, or of this pair alone."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from dynlib.analysis import transfer
from dynlib.networks.identity import Network

PARTS = {
    "difference": "C1's difference",
    "source": "the DyNN as a source",
    "weights": "the DyNN's weights as a target",
    "exits": "the DyNN's early exits",
    "pair": "the rest",
}
CHANCE = "two trainings of one network"


def parts(shown: pd.DataFrame, clean: pd.DataFrame) -> pd.DataFrame:
    """C1's difference between an SDNN and a DyNN of one model, as a sum of four parts, image by image.

    *Exits*: how much more often the SDNN's examples fool the DyNN's final exit than the DyNN as deployed; no more and no less than
    what the mechanism does here. The rest of the difference has no mechanism in it, and third networks take it apart: those of the
    other models, static and dynamic. *Source*: how much more often the DyNN's examples fool a third network than the SDNN's do.
    *Weights*: how much more often a third network's examples fool the SDNN than the DyNN's final exit. *Pair*: what no third
    network shows. A share over third networks is the mean over those that classify the clean image correctly.

    Args:
        shown: rows of ``Records.shown``, of one attack with one loss for dynamic networks, one radius and one seed.
        clean: rows of ``Records.shown`` without an attack.
    Returns:
        A row for each DyNN and part, with ``network``, ``part`` and ``per_image`` ``[n]``: NaN where the SDNN, the DyNN as
        deployed, its final exit or all third networks do not classify the clean image correctly.
    """
    table = transfer.usual_kinds(shown, "source", "target")
    turned, at_end = ({(r.source, r.target): wrong for r, wrong in _wrong(table, final)} for final in (False, True))
    right, right_at_end = ({r.target: ~wrong for r, wrong in _wrong(clean, final)} for final in (False, True))
    networks = sorted({*table.source} & {*table.target}, key=lambda network: network.rank)
    found: list[dict[str, Any]] = []
    for dynamic in (network for network in networks if network.kind == "dynn"):
        static = dynamic.static
        thirds = [third for third in networks if third.dataset == dynamic.dataset and third.model != dynamic.model]
        if static not in networks or not thirds:
            continue
        n = len(turned[dynamic, static])
        both = (right[static] & right[dynamic] & right_at_end[dynamic])[:n]

        def over_thirds(values: list[np.ndarray], both: np.ndarray = both, thirds: list[Network] = thirds) -> np.ndarray:
            """The mean over the third networks that count."""
            counts = np.array([both & right[third][: len(both)] for third in thirds])
            return np.where(counts.any(axis=0), (counts * values).sum(axis=0) / np.maximum(counts.sum(axis=0), 1), np.nan)

        each = {
            "difference": np.where(both, turned[dynamic, static] - turned[static, dynamic].astype(float), np.nan),
            "source": over_thirds([turned[dynamic, third] - turned[static, third].astype(float) for third in thirds]),
            "weights": over_thirds([turned[third, static] - at_end[third, dynamic].astype(float) for third in thirds]),
            "exits": at_end[static, dynamic] - turned[static, dynamic].astype(float),
        }
        for part in ("difference", "exits"):
            each[part] = np.where(np.isnan(each["source"]), np.nan, each[part])
        each["pair"] = each["difference"] - each["source"] - each["weights"] - each["exits"]
        found += [{"network": dynamic, "part": part, "per_image": each[part]} for part in PARTS]
    return pd.DataFrame(found, columns=["network", "part", "per_image"])


def chance(shown: pd.DataFrame, clean: pd.DataFrame) -> pd.DataFrame:
    """The same difference between two trainings of one network: what is left when the kind is the same.

    Arguments and rows as of ``parts``; ``part`` is ``CHANCE``, ``network`` the one with the higher seed. Which of the two comes
    first is arbitrary, so only the size of the difference means something.
    """
    table, right = transfer.usual_kinds(shown, "source", "target"), {r.target: ~wrong for r, wrong in _wrong(clean, False)}
    turned = {(r.source, r.target): wrong for r, wrong in _wrong(table, False)}
    found = []
    for one, other in combinations(sorted({*table.source} & {*table.target}, key=lambda network: network.rank), 2):
        if one.sibling(seed=other.seed) == other:
            n = len(turned[one, other])
            both, gap = (right[one] & right[other])[:n], turned[one, other].astype(float) - turned[other, one]
            found.append({"network": other, "part": CHANCE, "per_image": np.where(both, gap, np.nan)})
    return pd.DataFrame(found, columns=["network", "part", "per_image"])


def _wrong(table: pd.DataFrame, final: bool) -> Iterator[tuple[Any, np.ndarray]]:
    """Rows, each with the mask of images whose label is wrong, as deployed or at the final exit."""
    return zip(table.itertuples(), transfer.fooled(table, final), strict=True)
