"""What the exits of a dynamic network do: their accuracy and cost, who leaves where, overthinking, calibration."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from dynlib.figures import PAGE, whiskers
from dynlib.networks.identity import KINDS, cell_name


def panels(
    table: pd.DataFrame,
    draw: Callable[[Axes, pd.DataFrame], None],
    xlabel: str,
    ylabel: str,
    height: float = 2.0,
    sharex: bool = False,
) -> Figure:
    """A row of panels for each dataset, a panel for each model; ``draw`` fills one from its rows. One legend below all.

    Args:
        table: with ``dataset`` and ``model``.
        draw: from axes and the rows of one panel.
        xlabel, ylabel: of the outer axes.
        height: of a panel, in inches.
        sharex: whether all panels have one range.
    """
    datasets, models = list(dict.fromkeys(table.dataset)), list(dict.fromkeys(table.model))
    width = max(4.6, PAGE * len(models) / 3)  # room for the legend
    size = (width, height * len(datasets) + 0.5)
    fig, axes = plt.subplots(len(datasets), len(models), figsize=size, sharex=sharex, sharey="row", squeeze=False)
    for (dataset, model), cell in table.groupby(["dataset", "model"], sort=False):
        panel = axes[datasets.index(dataset)][models.index(model)]
        draw(panel, cell)
        panel.set_title(cell_name(dataset, model))
    for panel in axes.flat:
        panel.set_visible(panel.has_data())  # not every model need be there for every data set
    for row in axes:
        first = next(panel for panel in row if panel.get_visible())
        first.set_ylabel(ylabel)
        first.tick_params(labelleft=True)
    for column in axes.T:
        last = [panel for panel in column if panel.get_visible()][-1]
        last.set_xlabel(xlabel)
        last.tick_params(labelbottom=True)
    handles, labels = axes[0][0].get_legend_handles_labels()
    if handles:
        fig.legend(handles, labels, loc="outside lower center", ncols=3 if width == PAGE else 2, columnspacing=1)
    return fig


def by_cell(table: pd.DataFrame) -> pd.DataFrame:
    """With what a figure sorts networks by, ``dataset``, ``model`` and ``kind``, from the column ``network``."""
    return table.assign(**{name: [getattr(network, name) for network in table.network] for name in ("dataset", "model", "kind")})


def accuracy_cost(exits: pd.DataFrame, thresholds: pd.DataFrame) -> Figure:
    """Accuracy over MACs: the static network as a point, each exit alone, and the network as deployed over the threshold.

    Args:
        exits: rows of ``exits.exit_table``.
        thresholds: rows of ``exits.threshold_table`` of one fall-back.
    """
    thresholds = by_cell(thresholds)

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        for kind, rows in cell.groupby("kind", sort=False):
            look = {"color": KINDS[kind].colour, "marker": KINDS[kind].marker, "zorder": 3 if kind == "sdnn" else 2}
            look |= {"label": KINDS[kind].display + (", each exit alone" if len(rows) > 1 else "")}
            spread = whiskers(rows, "accuracy", "accuracy_low", "accuracy_high")
            axes.errorbar(rows.macs / 1e6, 100 * rows.accuracy, spread, ls="", capsize=1.5, mfc="white", lw=0.8, **look)
        where = (thresholds.dataset == cell.dataset.iloc[0]) & (thresholds.model == cell.model.iloc[0])
        for kind, curve in thresholds[where].groupby("kind", sort=False):
            axes.plot(curve.macs / 1e6, 100 * curve.accuracy, color=KINDS[kind].colour, label=f"{KINDS[kind].display}, as deployed")
        axes.set_xlim(left=0)

    return panels(by_cell(exits), draw, "MACs (millions)", "accuracy (%)")


def leaving_bars(table: pd.DataFrame, by: str) -> Figure:
    """Bars cut into the shares of images that leave at each exit.

    Args:
        table: rows of ``exits.leaving_table`` of one kind of network, or such with ``network``, ``exit``, ``share`` and ``by``.
        by: the column that names the bars.
    """

    most = table.exit.max()

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        bars, last = list(dict.fromkeys(cell[by])), cell.exit.max()
        left = pd.Series(0.0, index=bars)
        for exit in (*range(1, last + 1), 0):
            share = cell[cell.exit == exit].set_index(by).share.reindex(bars)
            depth = 1.0 if exit == last else (exit - 1) / (most - 1)
            look = {"color": plt.get_cmap("viridis")(depth)} if exit else {"color": "0.85", "hatch": "////"}
            drawn = axes.barh(range(len(bars)), 100 * share, left=100 * left, ec="white", lw=0.4, **look)
            drawn.set_label((f"exit {exit}" if exit < last else "final exit") if exit else "none was confident")
            left += share
        axes.set_yticks(range(len(bars)), [f"{bar:g}" if isinstance(bar, float) else bar for bar in bars])
        axes.set_xlim(0, 100)

    return panels(by_cell(table), draw, "share of images (%)", by, height=1.6)


def overthinking_bars(table: pd.DataFrame) -> Figure:
    """Images that only one of an exit and the final exit answers correctly; rows of ``exits.exit_table`` of one kind."""
    thin = {"ls": "", "color": "black", "lw": 0.7, "capsize": 1.5}

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        early = cell[cell.exit < cell.exit.max()]
        axes.bar(early.exit, -100 * early.gained, color="0.75", label="correct at the final exit only")
        axes.errorbar(early.exit, -100 * early.gained, whiskers(early, "gained", "gained_low", "gained_high")[::-1], **thin)
        axes.bar(early.exit, 100 * early.lost, color="0.35", label="correct at this exit only: overthought")
        axes.errorbar(early.exit, 100 * early.lost, whiskers(early, "lost", "lost_low", "lost_high"), **thin)
        axes.axhline(0, color="black", lw=0.6)
        axes.set_xticks(early.exit)
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")

    return panels(by_cell(table), draw, "exit", "images (%)", height=1.7)


def calibration_lines(table: pd.DataFrame) -> Figure:
    """Expected calibration error along the exits; rows of ``exits.exit_table``."""

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        last = cell.exit.max()
        for kind, rows in cell.groupby("kind", sort=False):
            look = {"color": KINDS[kind].colour, "marker": KINDS[kind].marker, "label": KINDS[kind].display}
            if kind == "sdnn":  # where exits alone were trained it has their final exit: a ring around that
                axes.plot([last], 100 * rows.calibration_error, mfc="none", ms=7, ls="", zorder=3, **look)
            else:
                axes.plot(rows.exit, 100 * rows.calibration_error, **look)
        axes.set_xticks(range(1, last + 1))

    fig = panels(by_cell(table), draw, "exit", "calibration error (points)", height=1.7)
    for axes in fig.axes:
        axes.set_ylim(bottom=0)  # once all are drawn: panels of a row share their axis
    return fig


def easy_to_hard(images: Tensor, table: pd.DataFrame, classes: tuple[str, ...]) -> Figure:
    """Images ordered by the exit they leave at: a column for each exit.

    Args:
        images: ``[n, 3, side, side]`` in [0, 1].
        table: rows of ``gallery.first_to_leave``.
        classes: names of the classes.
    """
    names = list(dict.fromkeys(table.exit))
    rows = table.exit.value_counts().max()
    fig, axes = plt.subplots(rows, len(names), figsize=(PAGE, 0.92 * rows + 0.2), squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    for column, name in enumerate(names):
        axes[0][column].set_title(name)
        for panel, row in zip(axes[:, column], table[table.exit == name].itertuples(), strict=False):
            panel.imshow(images[row.image].permute(1, 2, 0).numpy())
            colour, weight = ("0.4", "normal") if row.right else ("black", "bold")
            panel.text(15.5, 33, classes[row.label], ha="center", va="top", fontsize=6, color=colour, fontweight=weight)
    return fig
