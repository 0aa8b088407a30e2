"""What figures of pooled numbers share: a panel for each data set, the looks of losses, and forests of cells beside their mean."""

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from dynlib.attacks.losses import get_loss
from dynlib.datasets import DATASETS
from dynlib.figures import PAGE
from dynlib.networks.backbones import MODELS
from dynlib.networks.identity import KINDS

NARROW = 4.6  # inches, of a figure with one panel: room for the legend
MODEL_MARKERS = dict(zip(MODELS, "ov^<>pX", strict=False))


def source_look(kind: str, loss: str) -> dict[str, Any]:
    """Colour, dash and marker of what was made on a kind of network with a loss. A static network has but one loss."""
    if kind == "sdnn":
        return {"color": KINDS[kind].colour, "ls": "-", "marker": KINDS[kind].marker}
    return {"color": get_loss(loss).colour, "ls": get_loss(loss).dash, "marker": KINDS[kind].marker}


def source_name(kind: str, loss: str) -> str:
    """For legends, for example ``"DyNN, average"``."""
    return KINDS[kind].display if kind == "sdnn" else f"{KINDS[kind].display}, {get_loss(loss).display}"


def dataset_panels(
    table: pd.DataFrame,
    draw: Callable[[Axes, pd.DataFrame], None],
    xlabel: str,
    ylabel: str,
    height: float = 2.2,
) -> Figure:
    """A panel for each data set, with common axes; ``draw`` fills one from its rows. One legend below all.

    Args:
        table: with ``dataset``.
        draw: from axes and the rows of one panel.
        xlabel, ylabel: of the outer axes.
        height: of a panel, in inches.
    """
    cells = list(table.groupby("dataset", sort=False))
    size = (PAGE if len(cells) > 1 else NARROW, height + 0.5)
    fig, axes = plt.subplots(1, len(cells), figsize=size, sharex=True, sharey=True, squeeze=False)
    for panel, (dataset, rows) in zip(axes[0], cells, strict=True):
        draw(panel, rows)
        panel.set_title(DATASETS[dataset].display)
        panel.set_xlabel(xlabel)
    axes[0][0].set_ylabel(ylabel)
    legend_below(fig)
    return fig


def legend_below(fig: Figure) -> None:
    """One legend for all panels, each name once."""
    found: dict[str, Any] = {}
    for panel in fig.axes:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    if found:
        fits = sum(len(name) + 8 for name in found) < 14 * fig.get_figwidth()  # in one row, in letters
        columns = len(found) if fits else 4 if fig.get_figwidth() == PAGE else 2
        fig.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns, columnspacing=1)


def ratio_axis(axes: Axes) -> None:
    """A logarithmic x axis of ratios, with plain numbers."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))


def forest(table: pd.DataFrame, xlabel: str, ratio: bool = False) -> Figure:
    """Cells and their mean with intervals, a panel for each data set: a band of lines for each attack.

    Args:
        table: rows with ``dataset``, ``model`` (empty: the mean of the cells), ``line``, the name of the band; ``colour``;
            ``main``, whether it is the main reading, drawn filled; ``value``, ``low`` and ``high``.
        xlabel: what the values are.
        ratio: whether they are ratios, drawn on a logarithmic axis; else shares, drawn in points.
    """
    lines, models = list(dict.fromkeys(table.line)), [model for model in MODELS if model in set(table.model)]
    places = {model: place for place, model in enumerate([*models, ""])}
    scale, zero = (1, 1) if ratio else (100, 0)

    def draw(axes: Axes, rows: pd.DataFrame) -> None:
        axes.axvline(zero, color="black", lw=0.6)
        for row in rows.itertuples():
            height = lines.index(row.line) + 0.72 * ((places[row.model] + 0.5) / len(places) - 0.5)
            spread = [[scale * max(row.value - row.low, 0)], [scale * max(row.high - row.value, 0)]]
            filled = row.colour if row.main else "white"
            cell = {"marker": MODEL_MARKERS.get(row.model), "alpha": 0.75, "lw": 0.7, "ms": 3}
            look = cell if row.model else {"marker": "D", "lw": 1.6}
            axes.errorbar(scale * row.value, height, xerr=spread, color=row.colour, mfc=filled, **look)
        for line in set(lines) - set(rows.line):
            axes.annotate("no cell", (0.5, lines.index(line)), xycoords=("axes fraction", "data"), ha="center", va="center", size=6)
        for place in range(1, len(lines)):
            axes.axhline(place - 0.5, color="0.85", lw=0.5)
        axes.set_yticks(range(len(lines)), lines)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        for model in models:
            axes.errorbar([], [], xerr=[], color="0.3", mfc="white", marker=MODEL_MARKERS[model], label=MODELS[model].display)
        axes.errorbar([], [], xerr=[], color="0.3", mfc="white", marker="D", label="mean of the cells")
        if ratio:
            ratio_axis(axes)

    return dataset_panels(table, draw, xlabel, "", height=0.1 * len(lines) * len(places) + 0.5)


def offsets(n: int, width: float) -> np.ndarray:
    """Places around 0 for ``n`` marks beside each other."""
    return (np.arange(n) - (n - 1) / 2) * width
