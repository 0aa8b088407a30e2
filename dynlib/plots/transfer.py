"""Rates of attacks that travel between networks."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynlib.attacks.losses import get_loss
from dynlib.datasets import DATASETS
from dynlib.figures import COLUMN, PAGE, whiskers
from dynlib.networks.backbones import MODELS
from dynlib.networks.identity import KINDS
from dynlib.plots.exits import panels
from dynlib.plots.pooled import NARROW, dataset_panels, legend_below, offsets, source_look, source_name

SIDE = 0.09  # by how much, in powers of two, marks of one radius stand apart


def direction_panels(rates: pd.DataFrame, differences: pd.DataFrame, radius: dict[str, float]) -> Figure:
    """Both directions over the radius, a column for each data set: above the rates, below their difference image by image.

    Args:
        rates: rows of ``transfer.pooled`` by ``dataset``, ``kind`` of the source and ``eps_255``.
        differences: the same by ``dataset`` and ``eps_255``.
        radius: of the main reading, by data set; marked.
    """
    names = {"dynn": "made on the DyNN, shown to the SDNN", "sdnn": "made on the SDNN, shown to the DyNN"}
    datasets = list(dict.fromkeys(rates.dataset))
    size = (PAGE if len(datasets) > 1 else NARROW, 3.9)
    fig, axes = plt.subplots(2, len(datasets), figsize=size, sharex=True, sharey="row", squeeze=False, height_ratios=(3, 2))
    for (above, below), dataset in zip(axes.T, datasets, strict=True):
        for kind, name in names.items():
            _curve(above, rates[(rates.dataset == dataset) & (rates.kind == kind)], source_look(kind, "average"), name)
        _curve(below, differences[differences.dataset == dataset], {"color": "0.3", "marker": "D", "ls": "-"}, "")
        below.axhline(0, color="black", lw=0.6)
        for panel in (above, below):
            panel.axvline(radius[dataset], color="0.85", lw=5, zorder=0)
        above.set_title(DATASETS[dataset].display)
        above.set_ylim(-3, 103)
        radius_axis(below, rates.eps_255)
        below.set_xlabel("radius (255ths)")
    axes[0][0].set_ylabel("transfer rate (%)")
    axes[1][0].set_ylabel("difference (points)")
    legend_below(fig)
    return fig


def radius_axis(axes: Axes, radii: pd.Series) -> None:
    """A logarithmic x axis with a tick for each radius."""
    ticks = sorted(set(radii) - {0})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])


def _curve(axes: Axes, rows: pd.DataFrame, look: dict[str, Any], label: str) -> None:
    rows = rows.sort_values("eps_255")
    axes.errorbar(rows.eps_255, 100 * rows.value, whiskers(rows, "value"), capsize=1.5, label=label or None, **look)


def rate_panels(table: pd.DataFrame, ylabel: str) -> Figure:
    """Rates over the radius: a panel for each cell, or for each data set; a curve for each kind of source and loss.

    A loss that was used at one radius only is a mark beside the others.

    Args:
        table: rows with ``dataset``, ``kind`` and ``loss`` of the source, ``eps_255``, ``value`` and its interval, and ``model``
            where a panel is to be a cell.
        ylabel: what the rate is of.
    """
    curves = table.groupby(["kind", "loss"], sort=False).eps_255.nunique()
    marks = [name for name, radii in curves.items() if radii == 1 and curves.max() > 1]
    aside = dict(zip(marks, offsets(len(marks) + 1, SIDE)[1:] + SIDE / 2 * (len(marks) + 1), strict=True))

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        for name, rows in cell.groupby(["kind", "loss"], sort=False):
            look = source_look(*name) | ({"ls": ""} if name in aside else {})
            _curve(axes, rows.assign(eps_255=rows.eps_255 * 2 ** aside.get(name, 0)), look, source_name(*name))
        axes.set_ylim(-3, 103)
        radius_axis(axes, table.eps_255)

    if "model" in table:
        return panels(table, draw, "radius (255ths)", ylabel, height=1.7)
    return dataset_panels(table, draw, "radius (255ths)", ylabel)


def rate_matrices(table: pd.DataFrame) -> Figure:
    """Rates between all pairs of networks: a matrix for each data set, rows the sources, columns the targets.

    Args:
        table: rows of ``transfer.rates``, one for each pair, with ``dataset``; several trainings of a model and kind are averaged.
    """
    cells = list(table.groupby("dataset", sort=False))
    n = max(cell.source.nunique() for _, cell in cells)
    size = (max(COLUMN, PAGE * len(cells) / 2), 0.36 * n + 1.2)
    fig, axes = plt.subplots(1, len(cells), figsize=size, squeeze=False)
    for panel, (dataset, cell) in zip(axes[0], cells, strict=True):
        order = sorted(set(cell.source), key=lambda network: network.rank)
        names = {network: f"{MODELS[network.model].display} {KINDS[network.kind].display}" for network in order}
        matrix = cell.assign(made=cell.source.map(names), shown=cell.target.map(names))
        matrix, places = matrix.pivot_table(index="made", columns="shown", values="rate"), list(dict.fromkeys(names.values()))
        heat(panel, matrix.loc[places, places], DATASETS[dataset].display)
        panel.tick_params(axis="x", rotation=45)
        plt.setp(panel.get_xticklabels(), ha="right", rotation_mode="anchor")
    return fig


def heat(axes: Axes, matrix: pd.DataFrame, title: str) -> None:
    """A matrix of shares in percent, rows the networks that examples were made on, columns those that they are shown to."""
    sns.heatmap(100 * matrix, annot=True, fmt=".0f", vmin=0, vmax=100, cmap="rocket_r", cbar=False, square=True, ax=axes)
    axes.set(title=title, xlabel="shown to", ylabel="made on")
    axes.tick_params(length=0)
    axes.tick_params(axis="y", rotation=0)


def reading_panels(table: pd.DataFrame) -> Figure:
    """How the difference depends on the mechanism of the DyNN: a panel for each data set, marks for each loss.

    Args:
        table: rows of ``transfer.pooled`` by ``dataset``, ``loss`` and ``reading``, in the order of the axis.
    """
    looks = {loss: source_look("dynn", loss) | {"label": get_loss(loss).display, "ls": ""} for loss in dict.fromkeys(table.loss)}
    ticks = list(dict.fromkeys(table.reading))
    return _beside(table, "reading", "loss", looks, [tick.replace(" ", "\n") for tick in ticks], "threshold of the DyNN")


def backbone_panels(table: pd.DataFrame) -> Figure:
    """Differences for both ways to train exits, over the loss on the DyNN: a panel for each data set.

    Args:
        table: rows of ``transfer.pooled`` by ``dataset``, ``loss`` and ``kind`` of the DyNN.
    """
    looks = {
        kind: {"color": KINDS[kind].colour, "marker": KINDS[kind].marker, "label": KINDS[kind].display, "ls": ""}
        for kind in dict.fromkeys(table.kind)
    }
    names = [get_loss(loss).display.replace(" ", "\n") for loss in dict.fromkeys(table.loss)]
    return _beside(table, "loss", "kind", looks, names, "loss on the DyNN")


def _beside(table: pd.DataFrame, x: str, by: str, looks: dict[str, dict[str, Any]], names: list[str], xlabel: str) -> Figure:
    """Differences over the values of ``x``, which ticks name; those of ``by`` stand beside each other."""
    ticks = list(dict.fromkeys(table[x]))
    aside = dict(zip(looks, offsets(len(looks), 0.1), strict=True))

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        for name, rows in cell.groupby(by, sort=False):
            places = [ticks.index(value) + aside[name] for value in rows[x]]
            axes.errorbar(places, 100 * rows.value, whiskers(rows, "value"), capsize=1.5, **looks[name])
        axes.axhline(0, color="black", lw=0.6)
        axes.set_xticks(range(len(ticks)), names)
        axes.set_xlim(-0.5, len(ticks) - 0.5)

    return dataset_panels(table, draw, xlabel, "difference (points)")
