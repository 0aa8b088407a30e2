"""Attacks on speed."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynlib.figures import PAGE
from dynlib.networks.identity import cell_name
from dynlib.plots.pooled import NARROW, dataset_panels


def answered_curves(table: pd.DataFrame) -> Figure:
    """The share of images that have been answered over the share of the full cost: a panel for each data set.

    Args:
        table: rows of ``slowdown.answered``; a curve for each radius, 0 being clean.
    """
    radii = sorted(set(table.eps_255))
    colours = ["black", *sns.color_palette("flare", len(radii) - 1)]  # 0, clean, is the first

    def draw(axes: Axes, rows: pd.DataFrame) -> None:
        for radius, curve in rows.groupby("eps_255"):
            look = {"color": colours[radii.index(radius)], "label": f"{radius:g}/255" if radius else "clean"}
            axes.plot(100 * curve.cost, 100 * curve.value, drawstyle="steps-post", **look)
            axes.fill_between(
                100 * curve.cost, 100 * curve.low, 100 * curve.high, color=look["color"], alpha=0.2, lw=0, step="post"
            )
        axes.set(xlim=(0, 100), ylim=(0, 103))

    return dataset_panels(table, draw, "computation spent (% of a full run)", "images answered (%)")


def accuracy_efficacy(table: pd.DataFrame) -> Figure:
    """What is left of robust accuracy and of the saving for each design: a panel for each network.

    Args:
        table: rows of ``slowdown.designs``; the saving on clean images is the colour, grey what is not ``near``.
    """
    cells = list(table.groupby(["dataset", "model"], sort=False))
    bands, columns = -(-len(cells) // 3), min(len(cells), 3)
    size = (max(NARROW, PAGE * columns / 3), 2.2 * bands + 0.4)
    fig, axes = plt.subplots(bands, columns, figsize=size, sharey="row", squeeze=False)
    for panel, (cell, rows) in zip(axes.flat, cells, strict=False):
        look = {"cmap": "viridis", "vmin": 0, "vmax": 80, "lw": 0, "rasterized": True}
        far, near = rows[~rows.near], rows[rows.near]
        panel.scatter(100 * far.efficacy, 100 * far.robust, 4, "0.88", lw=0, rasterized=True, zorder=0)
        dots = panel.scatter(100 * near.efficacy, 100 * near.robust, 9, 100 * near.saving, **look)
        front, start = rows[rows.pareto], rows[rows.default]
        panel.scatter(100 * front.efficacy, 100 * front.robust, 20, fc="none", ec="black", lw=0.6, label="Pareto front")
        panel.scatter(
            100 * start.efficacy, 100 * start.robust, 120, c="white", marker="*", ec="black", lw=0.5, label="default design"
        )
        panel.set_title(cell_name(*cell))
    for panel in axes.flat:
        panel.set_visible(panel.has_data())
    for panel in axes[-1]:
        panel.set_xlabel("saved under attack (%)")
    for panel in axes[:, 0]:
        panel.set_ylabel("robust accuracy (%)")
    fig.colorbar(dots, ax=axes, label="saved on clean images (%)", pad=0.01)
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig
