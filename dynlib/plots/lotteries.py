"""Cheap defences beside checks that cost the same."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynlib.analysis.lotteries import DEFAULT, DEFENCES, STATIC
from dynlib.figures import whiskers
from dynlib.plots.pooled import dataset_panels

MARKERS = dict(zip(DEFENCES, "D^sv", strict=True))  # without colour: in the other figures a colour is a network or a loss


def price_of_robustness(line: pd.DataFrame, defences: pd.DataFrame) -> Figure:
    """Robust accuracy over the cost of clean images: a panel for each data set.

    Args:
        line: rows of ``lotteries.price_line``, from no check to nothing but the static network.
        defences: rows of ``lotteries.pooled`` by ``defence``.
    """

    def draw(axes: Axes, rows: pd.DataFrame) -> None:
        axes.plot(100 * rows.cost, 100 * rows.robust, color="0.5", label="the static network answers a random share")
        axes.fill_between(100 * rows.cost, 100 * rows.robust_low, 100 * rows.robust_high, color="0.88", lw=0)
        for end, name, marker, size in ((rows.iloc[0], DEFAULT, "*", 9), (rows.iloc[-1], STATIC, "o", 6)):
            axes.plot(100 * end.cost, 100 * end.robust, marker, color="0.5", ms=size, label=name)
        for row in defences[defences.dataset == rows.dataset.iloc[0]].itertuples():
            bars = whiskers(pd.DataFrame([row._asdict()]), "robust", "robust_low", "robust_high")
            look = {"marker": MARKERS[row.defence], "color": "black", "mfc": "white", "ls": "", "lw": 0.8}
            axes.errorbar(100 * row.cost, 100 * row.robust, bars, label=row.defence, **look)

    return dataset_panels(line, draw, "cost of clean images (% of a full run)", "robust accuracy (%)")
