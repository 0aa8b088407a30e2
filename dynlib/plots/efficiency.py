"""What attacks cost, and what they do to the cost of the network attacked."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from dynlib.attacks import ATTACKS
from dynlib.datasets import DATASETS
from dynlib.figures import PAGE, whiskers
from dynlib.networks.identity import KINDS
from dynlib.plots.exits import panels
from dynlib.plots.pooled import NARROW, dataset_panels, legend_below, source_look, source_name
from dynlib.plots.transfer import radius_axis


def _line(axes: Axes, x: pd.Series, curve: pd.DataFrame, kind: str, loss: str, **how: Any) -> None:
    """A share over ``x`` with the band of its intervals."""
    look = source_look(kind, loss) | {"marker": ""}
    axes.plot(x, 100 * curve.rate, label=source_name(kind, loss), drawstyle="steps-post" if how else "default", **look)
    axes.fill_between(x, 100 * curve.low, 100 * curve.high, color=look["color"], alpha=0.1, lw=0, **how)


def _cost_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def success_panels(curves: pd.DataFrame, over: str, xlabel: str) -> Figure:
    """Share of images that have fallen: a panel for each data set, a curve for each kind of network and loss.

    Args:
        curves: rows of ``cost.pooled_curves``.
        over: the column of the x axis; ``"passes"`` is drawn on a logarithmic one, ``"distance"`` in steps.
        xlabel: its name.
    """

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        for (kind, loss), curve in cell.groupby(["kind", "loss"], sort=False):
            _line(axes, curve[over], curve, kind, loss, **({"step": "post"} if over == "distance" else {}))
        axes.set_ylim(-3, 103)
        if over == "passes":
            _cost_axis(axes)

    return dataset_panels(curves, draw, xlabel, "images fooled (%)", height=2.5)


def success_over_cost(curves: pd.DataFrame) -> Figure:
    """Share of images that have fallen over the MACs spent on each: a panel for each cell.

    Args:
        curves: rows of ``cost.success_curves`` with ``dataset``, ``model`` and ``kind`` of the source.
    """

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        for (kind, loss), curve in cell.groupby(["kind", "loss"], sort=False):
            _line(axes, curve.macs / 1e9, curve, kind, loss)
        _cost_axis(axes)
        axes.set_ylim(-3, 103)

    return panels(curves, draw, "MACs per image (billions)", "images fooled (%)")


def computation_over_radius(table: pd.DataFrame) -> Figure:
    """Change in the cost of a dynamic network's answer over the radius: a row for each data set, a panel for each attack.

    Args:
        table: rows of ``transfer.pooled`` by ``dataset``, ``method``, ``kind`` and ``loss`` of the source, and ``eps_255``.
    """
    datasets, methods = list(dict.fromkeys(table.dataset)), list(dict.fromkeys(table.method))
    size = (PAGE if len(methods) > 1 else NARROW, 1.8 * len(datasets) + 0.6)
    fig, axes = plt.subplots(len(datasets), len(methods), figsize=size, sharex=True, sharey="row", squeeze=False)
    for (dataset, method), cell in table.groupby(["dataset", "method"], sort=False):
        panel = axes[datasets.index(dataset)][methods.index(method)]
        for (kind, loss), rows in cell.groupby(["kind", "loss"], sort=False):
            rows, name = rows.sort_values("eps_255"), f"made on the {KINDS[kind].display}"
            panel.errorbar(
                rows.eps_255, 100 * rows.value, whiskers(rows, "value"), capsize=1.5, label=name, **source_look(kind, loss)
            )
        panel.axhline(0, color="black", lw=0.6)
        panel.set_title(f"{ATTACKS[method].display}, {DATASETS[dataset].display}")
        radius_axis(panel, table.eps_255)
    for row in axes:
        row[0].set_ylabel("change in cost\n(points of a full run)")
    for panel in axes[-1]:
        panel.set_xlabel("radius (255ths)")
    legend_below(fig)
    return fig
