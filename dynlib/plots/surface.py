"""What the Early Attack reaches, what of it works best, and which designs withstand it."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynlib.attacks.losses import get_loss
from dynlib.datasets import DATASETS
from dynlib.figures import PAGE, whiskers
from dynlib.networks.backbones import MODELS
from dynlib.networks.identity import KINDS, Network
from dynlib.plots.exits import panels
from dynlib.plots.transfer import heat

# How figures show the attacks in a ball: by name, loss unless the attack has only one here, and goal.
LOOKS = {
    ("pgd", "final", "none"): ("PGD, final exit", "C0", "o"),
    ("pgd", "taken", "none"): ("PGD, exit taken", "C1", "s"),
    ("pgd", "taken", "deployed"): ("PGD, exit taken, stops", "C2", "D"),
    ("early_pgd", "", "deployed"): ("Early PGD", "C3", "v"),
}
GOALS = {"deployed": ("surface", "C3", "o"), "strict": ("strict success", "C0", "s")}


def surface_panels(table: pd.DataFrame) -> Figure:
    """The surface over the radius: a panel for each dataset and model, a mark for each attack; hollow: exits on a frozen backbone.

    Args:
        table: rows of ``surface.surface_table`` of attacks in a ball, one loss of ``EarlyPGD`` and not its strict goal.
    """
    radii = sorted(set(table.eps_255))

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        for number, ((attack, loss, goal), (name, colour, marker)) in enumerate(LOOKS.items()):
            for kind, shift in (("dynn", 0.0), ("ic_only", 0.08)):
                here = (cell.attack == attack) & (cell.goal == goal) & (cell.kind == kind)
                rows = cell[here & (cell.loss == loss) if loss else here].sort_values("eps_255")
                places = [radii.index(eps) + 0.18 * (number - 1.5) + shift for eps in rows.eps_255]
                look = {"color": colour, "marker": marker, "mfc": "white" if shift else colour, "ls": "", "lw": 0.8}
                label = name if kind == "dynn" else None
                axes.errorbar(places, 100 * rows.surface, whiskers(rows, "surface"), capsize=1.5, label=label, **look)
        axes.set_xticks(range(len(radii)), radii)
        axes.set_ylim(-3, 103)

    return panels(table, draw, "radius (255ths)", "errs, its final exit does not (%)")


def ablation_panels(table: pd.DataFrame) -> Figure:
    """What each loss of ``EarlyPGD`` reaches: the surface where that is its goal, strict success where that is.

    Args:
        table: rows of ``surface.surface_table`` of one kind of network, of ``EarlyPGD`` at one radius.
    """
    losses = list(dict.fromkeys(table.loss))

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        for goal, (name, colour, marker) in GOALS.items():
            rows = cell[cell.goal == goal]
            value, low, high = ("surface", "low", "high") if goal == "deployed" else ("strict", "strict_low", "strict_high")
            spread = whiskers(rows, value, low, high)
            places = [losses.index(loss) + (0.12 if goal == "strict" else -0.12) for loss in rows.loss]
            axes.errorbar(100 * rows[value], places, xerr=spread, ls="", capsize=1.5, color=colour, marker=marker, label=name)
        axes.set_yticks(range(len(losses)), [get_loss(loss).display for loss in losses])
        axes.set_ylim(len(losses) - 0.5, -0.5)
        axes.set_xlim(-3, 103)

    return panels(table, draw, "share of images (%)", "", height=0.26 * len(losses) + 0.5)


def published_panels(table: pd.DataFrame) -> Figure:
    """Success of the published attack over alpha, strict and as deployed; rows of ``surface.published_table``."""

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        cell = cell.sort_values("alpha")
        for (name, colour, marker), value in zip(reversed(GOALS.values()), ("strict", "deployed"), strict=True):
            bounds = ("low", "high") if value == "strict" else ("deployed_low", "deployed_high")
            look = {"color": colour, "marker": marker, "label": name}
            axes.errorbar(cell.alpha, 100 * cell[value], whiskers(cell, value, *bounds), capsize=1.5, **look)
        axes.set_xscale("log")
        axes.set_ylim(-3, 103)

    return panels(table, draw, "alpha, the weight of the final exit", "share of images (%)")


def transfer_matrices(table: pd.DataFrame, measures: dict[str, str]) -> Figure:
    """Examples made on one network, shown to another: a row of matrices for each dataset, a matrix for each measure.

    Args:
        table: rows of ``surface.transfer_table`` of one attack, sources and targets dynamic and jointly trained.
        measures: names of columns, each with its title.
    """
    sources, targets = ([Network.parse(id) for id in ids] for ids in (table.source, table.target))
    table = table.assign(dataset=[n.dataset for n in sources], made=[n.model for n in sources], shown=[n.model for n in targets])
    datasets = list(dict.fromkeys(table.dataset))
    n = table.made.nunique()
    size = (PAGE * len(measures) / 2, (0.5 * n + 0.9) * len(datasets))
    fig, axes = plt.subplots(len(datasets), len(measures), figsize=size, squeeze=False)
    for row, dataset in zip(axes, datasets, strict=True):
        for panel, (measure, title) in zip(row, measures.items(), strict=True):
            matrix = table[table.dataset == dataset].pivot(index="made", columns="shown", values=measure)
            names = {model: about.display for model, about in MODELS.items() if model in matrix.index}
            shown = matrix.loc[[*names], [*names]].rename(index=names, columns=names)
            heat(panel, shown, f"{DATASETS[dataset].display}: {title}")
    return fig


def two_attackers(table: pd.DataFrame) -> Figure:
    """Each design against both attackers: examples of a static network, and the Early Attack on the design itself.

    Ringed: clean accuracy within 1 point of the default's.

    Args:
        table: rows of ``surface.design_factors`` with ``dataset``, ``model`` and ``transfer``, the share of the SDNN's examples
            that the design answers correctly, with its interval.
    """

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        def mark(rows: pd.DataFrame, **look) -> None:
            spread = {"xerr": whiskers(rows, "transfer", "transfer_low", "transfer_high"), "yerr": whiskers(rows, "robust")}
            axes.errorbar(100 * rows.transfer, 100 * rows.robust, **spread, ls="", elinewidth=0.3, **look)

        for number, (factor, rows) in enumerate(cell[~cell.default].groupby("factor", sort=False)):
            mark(rows, color=f"C{number}", marker="os^D"[number], label=factor)
            for row in rows.itertuples():
                where = (100 * row.transfer, 100 * row.robust)
                axes.annotate(row.level, where, (3, 3), textcoords="offset points", fontsize=5, color=f"C{number}")
        mark(cell[cell.default].iloc[[0]], color="black", marker="*", markersize=8, label="default")
        same = cell[cell.equal & ~cell.default]
        axes.scatter(100 * same.transfer, 100 * same.robust, 45, fc="none", ec="0.4", lw=0.6, label="accuracy within 1 point")

    label = "withstands the Early Attack (%)"
    return panels(table, draw, "withstands SDNN attacks (%)", label, height=2.6)


# How figures show the two ways to train exits, in the form that ``plots.factor_panels`` takes.
TRAINING = {KINDS[kind].display: (KINDS[kind].colour, KINDS[kind].marker, "-") for kind in ("dynn", "ic_only")}
