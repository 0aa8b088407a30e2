"""Cheap defences beside full runs that cost the same."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynlib.analysis.lotteries import DEFAULT, DEFENCES, STATIC
from dynlib.figures import whiskers
from dynlib.plots.pooled import dataset_panels

# None of a model's, and without colour: in the other figures a colour is a network or a loss.
MARKERS = dict(zip(DEFENCES, "sPdH", strict=True))


def price_panels(line: pd.DataFrame, defences: pd.DataFrame, value: str, ylabel: str) -> Figure:
    """What is kept over the cost of clean images: a panel for each data set.

    Args:
        line: rows of ``lotteries.price_line``, from no full run to the static network alone.
        defences: rows of ``lotteries.pooled`` by ``defence``.
        value: ``"robust"`` or ``"shut"``.
        ylabel: its name.
    """

    def draw(axes: Axes, rows: pd.DataFrame) -> None:
        axes.plot(100 * rows.cost, 100 * rows[value], color="0.5", label="the static network answers a random share")
        axes.fill_between(100 * rows.cost, 100 * rows[f"{value}_low"], 100 * rows[f"{value}_high"], color="0.88", lw=0)
        for end, name, marker, size in ((rows.iloc[0], DEFAULT, "*", 9), (rows.iloc[-1], STATIC, "o", 6)):
            axes.plot(100 * end.cost, 100 * end[value], marker, color="0.5", ms=size, label=name)
        for defence, row in defences[defences.dataset == rows.dataset.iloc[0]].groupby("defence", sort=False):
            bars = whiskers(row, value, f"{value}_low", f"{value}_high")
            look = {"marker": MARKERS[defence], "color": "black", "mfc": "white", "ls": "", "lw": 0.8}
            axes.errorbar(100 * row.cost, 100 * row[value], bars, label=defence, **look)

    return dataset_panels(line, draw, "cost of clean images (% of a full run)", ylabel)
