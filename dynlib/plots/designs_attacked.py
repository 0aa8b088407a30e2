"""Designs under two attackers side by side."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from dynlib.datasets import DATASETS
from dynlib.figures import PAGE, whiskers

COSTS = (0.5, 1.0, 1.5)  # of the default's, in the legend
# Marker, and whether the levels are joined by a line.
LOOKS = {
    "first exit": ("o", True),
    "number of early exits": ("s", True),
    "threshold": ("^", True),
    "fall-back": ("D", False),
    "chosen on validation images": ("P", False),
}
# Of the factors whose ends are labelled: the label, its place beside the mark in points, and how it is aligned.
SHORT = {
    "first exit": ("first {}", (-7, 0), "right"),
    "number of early exits": ("{} early", (7, 5), "left"),
    "threshold": ("{}", (0, 6), "center"),
    "fall-back": ("{}", (0, -12), "center"),
}


def two_attackers(table: pd.DataFrame) -> Figure:
    """Gains under a static attacker, to the right, and under one who knows the design, up; size of a mark: cost.

    Hollow: clean accuracy differs from the default's by more than 1 point. A line joins the levels of one factor in order. Bars are
    intervals of the design that was chosen.

    Args:
        table: rows of ``defences.both_gains``.
    """
    datasets = list(dict.fromkeys(table.dataset))
    fig, axes = plt.subplots(1, len(datasets), figsize=(max(5.2, PAGE * len(datasets) / 2), 3.7), squeeze=False)
    for panel, dataset in zip(axes[0], datasets, strict=True):
        rows = table[table.dataset == dataset]
        panel.axhline(0, color="0.6", lw=0.6, zorder=0)
        panel.axvline(0, color="0.6", lw=0.6, zorder=0)
        for factor, of_factor in rows.groupby("factor", sort=False):
            _factor(panel, factor, of_factor)
        start = rows[rows.default].iloc[0]
        panel.plot(0, 0, marker="*", ms=10, color="black", mec="white", ls="", label="default", zorder=4)
        about = f"default still right: {100 * start.static_share:.0f} % and {100 * start.knowing_share:.0f} %"
        panel.set_title(f"{DATASETS[dataset].display} ({about})")
        panel.set_xlabel("gain under the static attacker (points)")
        panel.margins(0.12)
    axes[0][0].set_ylabel("gain under Early PGD on the design (points)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    handles += [plt.Line2D([], [], ls="", marker="o", mfc="white", mec="0.3", ms=np.sqrt(_area(cost))) for cost in COSTS]
    labels += [f"cost {100 * cost:.0f} % of default" for cost in COSTS]
    fig.legend(handles, labels, loc="outside lower center", ncols=3)
    return fig


def _factor(panel: Axes, factor: str, rows: pd.DataFrame) -> None:
    marker, joined = LOOKS[factor]
    if joined:
        panel.plot(100 * rows.static, 100 * rows.knowing, color="0.7", lw=0.6, zorder=1)
    rows = rows[~rows.default]
    if rows.empty:
        return  # only the default was measured
    if factor not in SHORT:
        spread = {"xerr": whiskers(rows, "static", "static_low", "static_high"), "yerr": whiskers(rows, "knowing")}
        panel.errorbar(100 * rows.static, 100 * rows.knowing, **spread, ls="", color="0.3", lw=0.7, capsize=1.5)
    faces = ["0.3" if equal else "white" for equal in rows.equal]
    if factor not in SHORT:  # it may be one of the levels: a white rim sets it off
        panel.scatter(100 * rows.static, 100 * rows.knowing, 2.5 * _area(1 + rows.added), fc="white", marker=marker, zorder=4)
    above = 3 if factor in SHORT else 5
    panel.scatter(100 * rows.static, 100 * rows.knowing, _area(1 + rows.added), fc=faces, ec="0.3", marker=marker, zorder=above)
    panel.plot([], [], color="0.3", marker=marker, ls="", label=factor)
    for row in rows.iloc[sorted({0, len(rows) - 1})].itertuples() if factor in SHORT else ():  # the ends are enough
        text, place, aligned = SHORT[factor]
        where = {
            "xytext": place,
            "ha": aligned,
            "textcoords": "offset points",
            "fontsize": 6,
            "path_effects": [withStroke(linewidth=2, foreground="white")],
        }
        panel.annotate(text.format(row.level.replace("_", " ")), (100 * row.static, 100 * row.knowing), **where, zorder=4)


def _area(cost: Any) -> Any:
    """Of a mark, in square points: its diameter grows with the cost, a share of the default's."""
    return 28 * cost**2
