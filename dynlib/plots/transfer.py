"""Rates of attacks that travel between networks."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynlib.attacks import ATTACKS
from dynlib.attacks.losses import get_loss
from dynlib.datasets import DATASETS
from dynlib.figures import COLUMN, PAGE, whiskers
from dynlib.networks.backbones import MODELS
from dynlib.networks.identity import KINDS, cell_name
from dynlib.plots.exits import panels


def rate_panels(table: pd.DataFrame, labels: dict[str, str], ylabel: str) -> Figure:
    """Rates over the radius: a row of panels for each cell, a column for each attack, a curve for each source and loss.

    Args:
        table: rows of ``measures.transfer_rates``.
        labels: for each kind of source its name in the legend.
        ylabel: what the rate is of.
    """
    cells, attacks = list(table.groupby(["dataset", "model"], sort=False)), [name for name in ATTACKS if name in set(table.attack)]
    size = (PAGE, 1.4 * len(cells) + 0.9)
    separator = ", " if len(attacks) <= 3 else "\n"  # no room for long titles beside each other
    fig, axes = plt.subplots(len(cells), len(attacks), figsize=size, sharex=True, sharey=True, squeeze=False)
    for row, ((dataset, model), cell) in zip(axes, cells, strict=True):
        for panel, attack in zip(row, attacks, strict=True):
            for (kind, loss), curve in cell[cell.attack == attack].groupby(["kind", "loss"], sort=False):
                name = labels[kind] if kind == "sdnn" else f"{labels[kind]}, {get_loss(loss).display}"
                rate_curve(panel, curve.sort_values("eps_255"), kind, loss, name)
            panel.set_title(f"{ATTACKS[attack].display}{separator}{cell_name(dataset, model)}")
            panel.set_xscale("log", base=2)
            panel.set_xticks(sorted(set(table.eps_255)), sorted(set(table.eps_255)))
            panel.set_ylim(-3, 103)
        row[0].set_ylabel(ylabel)
    for panel in axes[-1]:
        panel.set_xlabel("radius (255ths)")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, columnspacing=1)
    return fig


def rate_curve(axes: Axes, curve: pd.DataFrame, kind: str, loss: str, label: str) -> None:
    """One curve with its intervals; the source's kind gives the marker, the loss colour and dash."""
    colour, dash = (KINDS[kind].colour, "-") if kind == "sdnn" else (get_loss(loss).colour, get_loss(loss).dash)
    look = {"color": colour, "ls": dash, "marker": KINDS[kind].marker}
    axes.errorbar(curve.eps_255, 100 * curve.rate, whiskers(curve, "rate"), capsize=1.5, label=label, **look)


def rate_matrices(table: pd.DataFrame) -> Figure:
    """Rates between all pairs of networks: a matrix for each dataset, rows the sources, columns the targets.

    Args:
        table: rows of ``measures.transfer_rates``, one for each pair.
    """
    cells = list(table.groupby("dataset", sort=False))
    n = table.groupby(["model", "kind"]).ngroups
    size = (max(COLUMN, PAGE * len(cells) / 2), 0.36 * n + 1.2)
    fig, axes = plt.subplots(1, len(cells), figsize=size, squeeze=False)
    for panel, (dataset, cell) in zip(axes[0], cells, strict=True):
        names = [
            [f"{MODELS[model].display} {KINDS[kind].display}" for model, kind in zip(models, kinds, strict=True)]
            for models, kinds in ((cell.model, cell.kind), (cell.target_model, cell.target_kind))
        ]
        order = list(dict.fromkeys(names[0]))
        matrix = cell.assign(made=names[0], shown=names[1]).pivot(index="made", columns="shown", values="rate")
        heat(panel, matrix.loc[order, order], DATASETS[dataset].display)
        panel.tick_params(axis="x", rotation=45)
        plt.setp(panel.get_xticklabels(), ha="right", rotation_mode="anchor")
    return fig


def heat(axes: Axes, matrix: pd.DataFrame, title: str) -> None:
    """A matrix of shares in percent, rows the networks that examples were made on, columns those that they are shown to."""
    sns.heatmap(100 * matrix, annot=True, fmt=".0f", vmin=0, vmax=100, cmap="rocket_r", cbar=False, square=True, ax=axes)
    axes.set(title=title, xlabel="shown to", ylabel="made on")
    axes.tick_params(length=0)
    axes.tick_params(axis="y", rotation=0)


def difference_panels(table: pd.DataFrame, main: pd.Series) -> Figure:
    """Differences of two rates with their intervals: a panel for each dataset and model, a line for each attack and loss.

    Args:
        table: rows of ``measures.direction_differences`` of one radius and kind of dynamic network.
        main: mask of the main reading's rows, drawn filled.
    """

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        for height, row in enumerate(cell.itertuples()):
            loss, filled = get_loss(row.loss), main[row.Index]
            spread = [[100 * (row.difference - row.low)], [100 * (row.high - row.difference)]]
            look = {"color": loss.colour, "mfc": loss.colour if filled else "white", "marker": ATTACKS[row.attack].marker}
            axes.errorbar(100 * row.difference, height, xerr=spread, **look)
        axes.axvline(0, color="black", lw=0.6)
        axes.set_yticks(range(len(cell)), [f"{ATTACKS[r.attack].display}, {get_loss(r.loss).display}" for r in cell.itertuples()])
        axes.set_ylim(len(cell) - 0.5, -0.5)

    lines = table.groupby(["dataset", "model"]).size().max()
    return panels(table, draw, "difference (points)", "", height=0.17 * lines + 0.5, sharex=True)


def backbone_panels(table: pd.DataFrame) -> Figure:
    """Differences of two rates for both ways to train exits: a panel for each dataset and model, over the DyNN's loss.

    Args:
        table: rows of ``measures.direction_differences`` of one attack and radius.
    """
    losses = list(dict.fromkeys(table.loss))

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        for number, (kind, rows) in enumerate(cell.groupby("kind", sort=False)):
            look = {"color": KINDS[kind].colour, "marker": KINDS[kind].marker, "label": KINDS[kind].display}
            places = [losses.index(loss) + 0.16 * (number - 0.5) for loss in rows.loss]
            axes.errorbar(places, 100 * rows.difference, whiskers(rows, "difference"), ls="", capsize=1.5, **look)
        axes.axhline(0, color="black", lw=0.6)
        axes.set_xticks(range(len(losses)), [get_loss(loss).display for loss in losses])
        axes.set_xlim(-0.5, len(losses) - 0.5)

    return panels(table, draw, "loss on the DyNN", "difference (points)")


def reading_panels(table: pd.DataFrame) -> Figure:
    """How the difference depends on the reading: a panel for each dataset and model, a curve for each loss.

    Args:
        table: rows of ``measures.readings`` of one attack, radius and kind of dynamic network.
    """
    ticks = list(dict.fromkeys(table.reading))

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        for loss, rows in cell.groupby("loss", sort=False):
            look = {"color": get_loss(loss).colour, "ls": get_loss(loss).dash, "marker": KINDS["dynn"].marker}
            spread = whiskers(rows, "difference")
            shift = 0.08 * (list(dict.fromkeys(cell.loss)).index(loss) - 1)  # so that intervals do not hide each other
            places = [ticks.index(reading) + shift for reading in rows.reading]
            axes.errorbar(places, 100 * rows.difference, spread, capsize=1.5, label=get_loss(loss).display, **look)
        axes.axhline(0, color="black", lw=0.6)
        axes.set_xticks(range(len(ticks)), [tick.replace(" ", "\n") for tick in ticks])

    return panels(table, draw, "threshold of the DyNN", "difference (points)")
