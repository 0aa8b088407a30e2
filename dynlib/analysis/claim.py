"""What a claim is: in how many ways it can be read, and the rule that turns a reading into a verdict.

A claim has *readings*; the first is the main one, which its verdict is about, and the rest say how much the verdict depends on it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dynlib.analysis import cost, stats
from dynlib.analysis.readings import MAIN, Reading
from dynlib.analysis.stats import Training
from dynlib.datasets import DATASETS
from dynlib.records import RecordsError

CELLS = 6  # three models on two data sets


@dataclass(frozen=True)
class Claim:
    """A claim of the paper in our words, or one of ``ours``, and the rule for its verdict.

    ``metric`` is what the rule is about, ``found`` says it in plain words with ``{value}`` for its value, and ``read`` gives its
    readings from the records of a run. ``ratio``: the metric is one,
    and below 1 is as claimed; else above 0 is. ``reported`` is the paper's own value: None until someone who has its tables fills
    it in.
    """

    id: str
    sentence: str
    rule: str
    metric: str
    found: str
    notebook: str
    read: Callable[[str], Iterator[Reading]]
    ratio: bool = False
    ours: bool = False
    reported: str | None = None

    def readings(self, run: str) -> pd.DataFrame:
        """A row for each reading, the main one first: ``group`` says what differs from that, ``reading`` how.

        ``value`` is pooled over ``cells`` cells with its 95 % interval, ``above`` of them lie on the claim's side, ``images`` is
        their smallest number; ``ruled`` is the rule's verdict on these cells, be they six or fewer, and ``by_dataset`` the value of
        each data set.

        Raises:
            RecordsError: the main reading was not measured.
        """
        rows = [self._row(*reading) for reading in self.read(run) if reading[2]]
        if not rows or rows[0]["group"] != MAIN:
            raise RecordsError(f"{self.id}: the main reading was not measured in the run {run!r}")
        return pd.DataFrame(rows)

    def trainings(self, run: str) -> pd.DataFrame:
        """The main reading, a row for each training of a cell: ``claim``, ``dataset``, ``model`` and ``value``."""
        _, _, measured = next(iter(self.read(run)))
        values = [self._shown(self._value(one.values)) for one in measured]
        rows = [(self.id, *one.cell[-1].cell, value) for one, value in zip(measured, values, strict=True)]
        return pd.DataFrame(rows, columns=["claim", "dataset", "model", "value"])

    def _value(self, values: np.ndarray) -> float:
        return float(cost.of_sums(values) if self.ratio else np.nanmean(values))

    def _shown(self, value: Any) -> Any:
        return np.exp(value) if self.ratio else value

    def _row(self, group: str, reading: str, measured: list[Training]) -> dict[str, Any]:
        names = pd.MultiIndex.from_tuples(one.cell[-1].cell for one in measured)
        values = pd.Series([self._value(one.values) for one in measured], index=names)
        each = values.groupby(level=[0, 1], sort=False).mean()  # over the trainings of a cell
        value, (low, high) = each.mean(), self._interval(measured)
        agree = -each if self.ratio else each
        bounds = (-high, -low) if self.ratio else (low, high)
        shown = self._shown
        return {
            "claim": self.id,
            "group": group,
            "reading": reading,
            "cells": len(each),
            "above": int((agree > 0).sum()),
            "value": shown(value),
            "low": shown(low),
            "high": shown(high),
            "images": min(_counted(one.values) for one in measured),
            "ruled": ruled(agree, *bounds),
            "by_dataset": ", ".join(
                self._of_dataset(name, measured, mean) for name, mean in each.groupby(level=0, sort=False).mean().items()
            ),
        }

    def _of_dataset(self, name: str, measured: list[Training], mean: float) -> str:
        low, high = self._interval([one for one in measured if one.images == name])
        return f"{DATASETS[name].display} {self.text(*map(self._shown, (mean, low, high)))}"

    def _interval(self, measured: list[Training]) -> tuple[Any, ...]:
        return stats.bootstrap(measured, cost.log_ratio) if self.ratio else stats.pooled_mean(measured)[1:]

    def text(self, value: float, low: float, high: float) -> str:
        """A value with its interval as people read it: a factor, or points."""
        return f"{value:.2f} [{low:.2f}, {high:.2f}]" if self.ratio else stats.points(value, low, high)

    def estimate(self, row: pd.Series) -> str:
        """The value of a reading with its interval."""
        return self.text(row.value, row.low, row.high)

    def seen(self, row: pd.Series) -> str:
        """A reading as a sentence."""
        side = "below 1" if self.ratio else "above 0"
        return f"{self.estimate(row)}, {side} in {row.above} of {row.cells} cells; {row.by_dataset}"

    def verdict(self, row: pd.Series) -> str:
        """Of a reading; open until all cells are measured."""
        return row.ruled if row.cells >= CELLS else "open"


def ruled(cells: pd.Series, low: float, high: float) -> str:
    """The verdict on any number of cells, of which 5 in 6 have to agree; above 0 is what the claim says."""
    needed = 5 / CELLS * len(cells)
    if low > 0:
        return "supported" if (cells > 0).sum() >= needed else "partly"
    return "contradicted" if high < 0 and (cells < 0).sum() >= needed else "not supported"


def _counted(values: np.ndarray) -> int:
    """The number of images that count: those of a mean that are not NaN, those of a ratio on which something was spent."""
    return int((~np.isnan(values)).sum() if values.ndim == 1 else (values != 0).any(axis=1).sum())
