"""The default design with one choice changed at a time: what each factor is worth, alone and on the mean of networks."""

import numpy as np
import pandas as pd

from dynlib.analysis import stats
from dynlib.analysis.design import ONE_POINT, Design
from dynlib.mechanisms import ConfidenceExit

FACTORS = ("first exit", "number of early exits", "threshold", "fall-back")


def table_of(table: pd.DataFrame) -> pd.DataFrame:
    """The default design with one choice changed at a time: a row for each factor and level, the default in all of them.

    ``robust`` has a Wilson interval on the images that count, the ``gain`` over the default one of ``stats.mean``, and
    ``per_image`` holds the gains ``[n]``. ``lost`` and ``added`` are clean accuracy and cost as in ``gain``; ``equal`` marks a
    clean accuracy within 1 point of the default's. Of designs with so many early exits the evenly spread one is shown.
    """
    start, found = table[table.default].iloc[0], []
    for row in table.itertuples():
        if not (shown := levels(row.design, start.design)):
            continue
        counted, per_image = row.robust[~np.isnan(row.robust.astype(float))].astype(bool), row.robust.astype(float) - start.robust
        numbers = {"n": len(counted), "clean": row.clean.mean(), "macs": row.macs}
        numbers |= stats.rate(counted).columns("robust")
        numbers |= stats.mean(per_image).columns("gain", "gain_")
        numbers |= {"lost": start.clean.mean() - row.clean.mean(), "added": row.macs / start.macs - 1}
        about = {"equal": abs(numbers["lost"]) <= ONE_POINT, "default": row.default, "per_image": per_image}
        found += [{"factor": factor, "level": level, **numbers, **about} for factor, level in shown]
    return pd.DataFrame(found).sort_values(["factor", "level"], key=_in_order, kind="stable", ignore_index=True)


def levels(design: Design, start: Design) -> list[tuple[str, str]]:
    """The factors in which a design is a level of its own, all others being the default's."""
    exits, rule, usual, found = design.exits, design.mechanism, start.mechanism, []
    if len(exits) == 1:
        return []  # the static network has no mechanism to choose
    if rule == usual and exits == start.exits[exits[0] :]:
        found.append(("first exit", str(exits[0] + 1)))
    last, early = start.exits[-1], len(exits) - 1
    if rule == usual and exits == (*(last * k // early for k in range(early)), last):
        found.append(("number of early exits", "all" if exits == start.exits else str(early)))
    if exits == start.exits and isinstance(rule, ConfidenceExit) and isinstance(usual, ConfidenceExit):
        found += [("threshold", f"{rule.threshold:g}")] if rule.fall_back_to == usual.fall_back_to else []
        found += [("fall-back", rule.fall_back_to)] if rule.threshold == usual.threshold else []
    return found


def _in_order(column: pd.Series) -> pd.Series:
    return column.map(FACTORS.index) if column.name == "factor" else column


def pooled(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Factors on the mean of networks: a row for each value of the columns ``by``, factor and level that all networks there have.

    ``gain`` has the interval of ``stats.pooled_mean``; ``lost``, ``added`` and the shares ``clean`` and ``robust`` are means, ``n``
    is the smallest number of images; ``equal`` marks a mean clean accuracy within 1 point of the default's.

    Args:
        table: rows of ``table_of`` with ``network`` and the columns ``by``.
        by: names of columns.
    """
    starts = table[table.default & (table.factor == FACTORS[0])].groupby(by).size()
    found = []
    for key, rows in table.groupby([*by, "factor", "level"], sort=False):
        *group, factor, level = key
        if len(rows) < starts[tuple(group) if len(group) > 1 else group[0]]:
            continue
        measured = stats.trainings(rows, "per_image")
        numbers = stats.pooled_mean(measured).columns("gain")
        means = {name: rows[name].mean() for name in ("clean", "robust", "lost", "added")}
        counts = {"cells": stats.number_of_cells(measured), "n": rows.n.min()}
        about = {**counts, "equal": abs(means["lost"]) <= ONE_POINT, "default": rows.default.all()}
        found.append({**dict(zip(by, group, strict=True)), "factor": factor, "level": level, **numbers, **means, **about})
    return pd.DataFrame(found)


def best_levels(pooled: pd.DataFrame) -> str:
    """In a sentence: how many levels at equal clean accuracy gain or lose, and the best of them, at any cost and at the default's.

    Args:
        pooled: rows of ``pooled`` of one group.
    """
    equal = pooled[pooled.equal & ~pooled.default]
    counts = f"{(equal.low > 0).sum()} gain and {(equal.high < 0).sum()} lose (95 % interval excludes 0)"
    told = [f"of the {len(equal)} levels within 1 point of the default's clean accuracy, {counts}"]
    for limit, rows in (("the best", equal), ("the best at no more than the default's cost", equal[equal.added <= 0])):
        if len(rows):
            best = rows.loc[rows.gain.idxmax()]
            name = f"{best.factor} {best.level.replace('_', ' ')}"
            told.append(f"{limit}: {stats.points(best.gain, best.low, best.high)} by {name}, cost {stats.signed(best.added)} %")
    return "; ".join(told)
