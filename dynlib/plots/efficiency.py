"""What attacks cost, and what they do to the cost of the network attacked."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from dynlib.attacks.losses import get_loss
from dynlib.figures import whiskers
from dynlib.networks.identity import KINDS
from dynlib.plots.exits import panels


def look(kind: str, loss: str) -> dict:
    """Colour and dash of a curve, and its name; the source's kind gives the marker."""
    if kind == "sdnn":
        return {"color": KINDS[kind].colour, "ls": "-", "marker": KINDS[kind].marker, "label": KINDS[kind].display}
    name = f"{KINDS[kind].display}, {get_loss(loss).display}"
    return {"color": get_loss(loss).colour, "ls": get_loss(loss).dash, "marker": KINDS[kind].marker, "label": name}


def success_over_cost(curves: pd.DataFrame, ylabel: str) -> Figure:
    """Success over the MACs spent on an image, a mark for each number of steps.

    Args:
        curves: rows of ``efficiency.success_curves`` or ``efficiency.transfer_curves``.
        ylabel: what the rate is of.
    """

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        for (kind, loss), curve in cell.groupby(["kind", "loss"], sort=False):
            style = look(kind, loss)
            axes.plot(curve.mmacs, 100 * curve.rate, **style)
            axes.fill_between(curve.mmacs, 100 * curve.low, 100 * curve.high, color=style["color"], alpha=0.12, lw=0)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.xaxis.set_major_formatter(lambda mmacs, _: f"{mmacs:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(-3, 103)

    return panels(curves, draw, "MACs per image (millions)", ylabel)


def cost_ratio_panels(ratios: pd.DataFrame, main: pd.Series) -> Figure:
    """Cost per success on the dynamic network over that on the static one, with intervals: a line for each loss.

    Args:
        ratios: rows of ``efficiency.cost_ratios``.
        main: mask of the main reading's rows, drawn filled.
    """

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        for height, row in enumerate(cell.itertuples()):
            colour, (value, low, high) = get_loss(row.loss).colour, np.exp([row.log_ratio, row.low, row.high])
            filled = colour if main[row.Index] else "white"
            axes.errorbar(value, height, xerr=[[value - low], [high - value]], color=colour, mfc=filled, marker="s")
        axes.axvline(1, color="black", lw=0.6)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}")
        axes.xaxis.set_major_locator(LogLocator(base=2, subs=(1, 1.25, 1.5)))
        axes.set_yticks(range(len(cell)), [get_loss(loss).display for loss in cell.loss])
        axes.set_ylim(len(cell) - 0.5, -0.5)

    return panels(ratios, draw, "cost per success, DyNN / SDNN", "", height=1.2, sharex=True)


def computation_over_radius(table: pd.DataFrame) -> Figure:
    """Mean cost of a dynamic network's answer over the radius, for each source and loss; rows of ``measures.side_effects``."""

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        clean = cell[cell.attack == "none"].iloc[0]
        axes.axhline(100 * clean.cost, color="0.6", lw=0.8, ls="-", label="clean images")
        for (kind, loss), curve in cell[cell.attack != "none"].groupby(["kind", "loss"], sort=False):
            style = look(kind, loss)
            curve = curve.sort_values("eps_255")
            spread = whiskers(curve, "cost")
            axes.errorbar(curve.eps_255, 100 * curve.cost, spread, capsize=1.5, **{**style, "label": f"made on {style['label']}"})
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(set(cell.eps_255) - {0}), sorted(set(cell.eps_255) - {0}))

    return panels(table, draw, "radius (255ths)", "mean cost (% of a full run)")
