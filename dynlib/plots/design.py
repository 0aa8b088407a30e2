"""The design space: what each choice of exits, threshold and fall-back is worth, and what it costs."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynlib.figures import PAGE, SURFACE, whiskers
from dynlib.networks.identity import KINDS, cell_name

# How figures show who attacks; see ``choices.attacker``.
ATTACKERS = {
    "a separate SDNN": ("black", "s", "-"),
    "the SDNN under it": ("0.55", "^", "-"),
    "another architecture": ("0.4", "o", ":"),
}
# How figures show what becomes of a design that is attacked; see ``defences.OUTCOMES``.
OUTCOMES = {"still right as deployed": ("black", "s", "-"), "surface closed": (SURFACE, "v", "--")}


def trade_off_panels(table: pd.DataFrame) -> Figure:
    """Robust over clean accuracy, a dot for each design, its colour the cost; ringed: the Pareto front.

    Args:
        table: rows of ``design.shares`` with ``dataset`` and ``model``, and the mask ``chosen`` where a design was.
    """
    cells = list(table.groupby(["dataset", "model"], sort=False))
    rows, columns = -(-len(cells) // 3), min(len(cells), 3)
    size = (max(4.6, PAGE * columns / 3), 2.3 * rows + 0.4)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for panel, ((dataset, model), cell) in zip(axes.flat, cells, strict=False):
        static = cell[cell.n_early == 0].iloc[[0]]
        look = {"cmap": "viridis", "vmin": 20, "vmax": 100, "lw": 0, "rasterized": True}
        dots = panel.scatter(100 * cell.clean, 100 * cell.robust, 9, 100 * cell.macs / static.macs.iloc[0], **look)
        _mark(panel, cell[cell.pareto], 20, "Pareto front", fc="none", ec="black", lw=0.6)
        _mark(panel, static, 45, "no early exit", c="black", marker="o")
        _mark(panel, cell[cell.default], 120, "default design", c="white", marker="*", ec="black", lw=0.5)
        if "chosen" in cell:
            _mark(panel, cell[cell.chosen], 22, "chosen on validation images", c="black", marker="D", ec="white", lw=0.5)
        panel.set_title(cell_name(dataset, model))
    for panel in axes.flat:
        panel.set_visible(panel.has_data())
    for column in axes.T:
        [panel for panel in column if panel.get_visible()][-1].set_xlabel("clean accuracy (%)")
    for row in axes:
        row[0].set_ylabel("robust accuracy (%)")
    fig.colorbar(dots, ax=axes, label="cost (% of no early exit)", pad=0.01, extend="both")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, columnspacing=1, handletextpad=0.2)
    return fig


def _mark(panel: Axes, rows: pd.DataFrame, size: float, label: str, **look: Any) -> None:
    panel.scatter(100 * rows.clean, 100 * rows.robust, size, label=label, **look)


def factor_panels(table: pd.DataFrame, by: str, looks: dict[str, tuple[Any, ...]], ylabel: str) -> Figure:
    """One choice changed at a time: a column for each factor; rows: the gain, the change of clean accuracy and that of cost.

    Hollow: the level changes clean accuracy by more than 1 point.

    Args:
        table: rows of ``design.pooled_factors``.
        by: the column that gives a curve its look.
        looks: colour, marker and dash of each of its values, in order.
        ylabel: what is gained.
    """
    names = list(dict.fromkeys(table.factor))
    levels = {name: list(dict.fromkeys(table[table.factor == name].level)) for name in names}
    shape = {"width_ratios": [max(len(levels[name]), 3) for name in names], "height_ratios": [2, 1, 1]}
    fig, axes = plt.subplots(3, len(names), figsize=(PAGE, 4.4), sharex="col", sharey="row", squeeze=False, **shape)
    for column, name in zip(axes.T, names, strict=True):
        here = table[table.factor == name]
        for number, (who, curve) in enumerate((who, here[here[by] == who]) for who in looks if who in set(here[by])):
            places = [levels[name].index(level) + 0.14 * (number - 1) for level in curve.level]
            _curves(column, places, curve, looks[who], who)
        for panel in column:
            panel.axhline(0, color="0.6", lw=0.6, zorder=0)
        column[-1].set_xticks(range(len(levels[name])), [level.replace("most_confident", "most\nconf.") for level in levels[name]])
        column[-1].set_xlim(-0.6, len(levels[name]) - 0.4)
        column[-1].set_xlabel(name)
    for row, label in zip(axes, (f"{ylabel}:\ngain (points)", "clean acc.:\nchange (points)", "cost:\nchange (%)"), strict=True):
        row[0].set_ylabel(label)
    fig.align_ylabels(axes[:, 0])
    fig.align_xlabels(axes[-1])
    handles, labels = axes[0][0].get_legend_handles_labels()
    hollow = plt.Line2D([], [], ls="", marker="s", mfc="white", mec="0.3")
    fig.legend([*handles, hollow], [*labels, "clean accuracy off by more than 1 point"], loc="outside lower center", ncols=4)
    return fig


def _curves(column: list[Axes], places: list[float], curve: pd.DataFrame, look: tuple[str, str, str], label: str) -> None:
    """One curve in all rows of a column of panels."""
    colour, marker, dash = look
    column[0].errorbar(places, 100 * curve.gain, whiskers(curve, "gain"), color=colour, ls=dash, lw=0.8, capsize=1)
    column[0].plot([], [], color=colour, ls=dash, lw=0.8, marker=marker, label=label)
    for panel, values in zip(column, (100 * curve.gain, -100 * curve.lost, 100 * curve.added), strict=True):
        panel.plot(places, values, color=colour, ls=dash, lw=0.8)
        for place, value, equal in zip(places, values, curve.equal, strict=True):
            panel.plot(place, value, marker, mfc=colour if equal else "white", mec=colour)


def retrained_panels(table: pd.DataFrame) -> Figure:
    """Designs trained for real beside choices from one network: robust accuracy, clean accuracy and cost.

    Args:
        table: rows of ``retrained.table``.
    """
    networks = list(dict.fromkeys(table.network))
    fig, axes = plt.subplots(1, 3, figsize=(PAGE, 0.35 * len(networks) + 0.9), sharey=True)
    for number, (trained, rows) in enumerate(table.groupby("trained", sort=False)):
        places = [networks.index(network) + 0.2 * (number - 0.5) for network in rows.network]
        look = {
            "color": KINDS["dynn"].colour,
            "mfc": (None, "white")[number],
            "marker": "so"[number],
            "ls": "",
            "label": f"trained {trained}",
        }
        for panel, name, low, high in zip(axes, ("robust", "clean"), ("low", "clean_low"), ("high", "clean_high"), strict=False):
            panel.errorbar(100 * rows[name], places, xerr=whiskers(rows, name, low, high), capsize=1.5, **look)
        axes[2].plot(rows.macs / 1e6, places, **look)
    exits = table.drop_duplicates("network").exits
    axes[0].set_yticks(range(len(networks)), [f"exits {chosen}" for chosen in exits])
    axes[0].set_ylim(len(networks) - 0.5, -0.5)
    axes[2].set_xlim(0, 1.1e-6 * table.macs.max())
    for panel, name in zip(axes, ("robust accuracy (%)", "clean accuracy (%)", "mean cost (million MACs)"), strict=True):
        panel.set_xlabel(name)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig
