"""What attacks open that only the mechanism makes possible: how often, by which objective, and whether it travels."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynlib.analysis.surface import GOAL, OUTCOMES, PLAIN, of_kind
from dynlib.attacks import ATTACKS
from dynlib.attacks.losses import get_loss
from dynlib.datasets import DATASETS
from dynlib.figures import PAGE, SURFACE, whiskers
from dynlib.networks.backbones import MODELS
from dynlib.networks.identity import KINDS, cell_name
from dynlib.plots.exits import panels
from dynlib.plots.transfer import heat

# How figures show what becomes of an image, in the order of ``OUTCOMES``.
FILLS = dict(zip(OUTCOMES, ("0.9", SURFACE, "0.75", "0.55"), strict=True))
HATCHES = {"only final errs": "/////"}
# How they show attacks with the goal that only the network as deployed errs, and those without.
SIDES = {GOAL: ("with the goal", SURFACE, "o"), PLAIN: ("plain", "0.4", "s")}
SUCCESS = {"surface": ("surface", SURFACE, "o"), "strict": ("strict success", "0.3", "s")}


def attack_name(method: str, loss: str, goal: str) -> str:
    """For people, for example ``"PGD, exit taken, stopped"``."""
    ends = {"strict": ", strict goal", GOAL: "" if method == "early_pgd" else ", stopped"}
    return f"{ATTACKS[method].display}, {get_loss(loss).display}{ends.get(goal, '')}"


def with_cells(table: pd.DataFrame, network: str = "source") -> pd.DataFrame:
    """A table with ``dataset`` and ``model`` of the networks in a column."""
    return table.assign(dataset=[one.dataset for one in table[network]], model=[one.model for one in table[network]])


def published_panels(table: pd.DataFrame) -> Figure:
    """Success of the published attack over alpha, strict and as deployed; rows of ``early.published_table``."""

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        cell = cell.sort_values("alpha")
        for value, (name, colour, marker), bounds in (
            ("strict", SUCCESS["strict"], ("strict_low", "strict_high")),
            ("deployed", SUCCESS["surface"], ("low", "high")),
        ):
            shift = 0.92 if value == "strict" else 1.08
            look = {"color": colour, "marker": marker, "label": name}
            axes.errorbar(shift * cell.alpha, 100 * cell[value], whiskers(cell, value, *bounds), capsize=1.5, **look)
        axes.set_xscale("log")
        axes.set_xlim(table.alpha.min() / 2, table.alpha.max() * 2)
        axes.set_ylim(-3, 103)

    return panels(with_cells(table, "network"), draw, "alpha, the weight of the final exit", "share of images (%)", height=1.7)


def outcome_bars(table: pd.DataFrame) -> Figure:
    """What becomes of images over the radius, on the mean over networks: a panel for each data set, two bars for each radius.

    Args:
        table: rows of ``surface.pooled``, of one attack with the goal ``open_surface`` and of one plain one.
    """
    radii, datasets = sorted(set(table.eps_255)), list(dict.fromkeys(table.dataset))
    fig, axes = plt.subplots(1, len(datasets), figsize=(max(4.6, PAGE * len(datasets) / 2), 2.7), sharey=True, squeeze=False)
    for panel, dataset in zip(axes[0], datasets, strict=True):
        for (goal, (name, _, _)), shift in zip(SIDES.items(), (-0.2, 0.2), strict=True):
            rows = table[(table.dataset == dataset) & (table.goal == goal)]
            places, height = [radii.index(eps) + shift for eps in rows.eps_255], 0 * rows.n
            for outcome, colour in FILLS.items():
                look = {"color": colour, "hatch": HATCHES.get(outcome), "edgecolor": "white", "lw": 0.3}
                panel.bar(places, 100 * rows[outcome], 0.36, height, label=outcome, **look)
                height = height + 100 * rows[outcome]
            for place in places:
                panel.text(place, 101, name.removeprefix("with the "), ha="center", va="bottom", size=6)
        panel.set_xticks(range(len(radii)), [f"{eps:g}" for eps in radii])
        panel.set(title=DATASETS[dataset].display, xlabel="radius (255ths)", ylim=(0, 108))
        panel.title.set_position((0.5, 1.03))
    axes[0][0].set_ylabel("share of images (%)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles[: len(FILLS)], labels[: len(FILLS)], loc="outside lower center", ncols=len(FILLS), columnspacing=1)
    return fig


def surface_panels(table: pd.DataFrame) -> Figure:
    """The surface over the radius: a panel for each cell, a line for each attack; hollow: exits on a frozen backbone.

    Args:
        table: rows of ``surface.outcomes``, of one attack with the goal ``open_surface`` and of one plain one.
    """
    radii = sorted(set(table.eps_255))

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        for number, (goal, (name, colour, marker)) in enumerate(SIDES.items()):
            for kind, shift in (("dynn", 0.0), ("ic_only", 0.24)):
                rows = of_kind(cell[cell.goal == goal], kind).sort_values("eps_255")
                places = [radii.index(eps) + 0.12 * (number - 0.5) + shift for eps in rows.eps_255]
                look = {"color": colour, "marker": marker, "mfc": "white" if shift else colour}
                label = f"{name}: {KINDS[kind].display}"
                axes.errorbar(
                    places, 100 * rows.surface, whiskers(rows, "surface"), ls="-", lw=0.8, capsize=1.5, label=label, **look
                )
        axes.set_xticks(range(len(radii)), [f"{eps:g}" for eps in radii])
        axes.set_ylim(-3, 103)

    return panels(with_cells(table), draw, "radius (255ths)", "surface (%)", height=1.8)


def objective_panels(table: pd.DataFrame) -> Figure:
    """What each attack reaches at one radius: the surface, and strict success; filled where that was its goal.

    Args:
        table: rows of ``surface.outcomes``, of one kind of network and one radius, one of each attack.
    """
    names = list(dict.fromkeys(attack_name(*key) for key in zip(table.method, table.loss, table.goal, strict=True)))
    goals = {"surface": GOAL, "strict": "strict"}

    def draw(axes: Axes, cell: pd.DataFrame) -> None:
        for value, (label, colour, marker) in SUCCESS.items():
            bounds = ("low", "high") if value == "surface" else ("strict_low", "strict_high")
            shift = -0.15 if value == "surface" else 0.15
            for row, spread in zip(cell.itertuples(), whiskers(cell, value, *bounds).to_numpy().T, strict=True):
                filled = colour if row.goal == goals[value] else "white"
                place = names.index(attack_name(row.method, row.loss, row.goal)) + shift
                look = {"color": colour, "marker": marker, "mfc": filled, "ls": "", "lw": 0.8}
                axes.errorbar(100 * getattr(row, value), place, xerr=spread[:, None], **look)
            axes.plot([], [], ls="", color=colour, marker=marker, label=label)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(-3, 103)

    return panels(with_cells(table), draw, "share of images (%)", "", height=0.17 * len(names) + 0.5)


def vulnerability_dots(table: pd.DataFrame) -> Figure:
    """Stealth and vulnerability of each cell: how much surface is opened, and how many images are still right; a line each.

    Args:
        table: rows of ``surface.vulnerability``, one for each cell.
    """
    looks = {
        "surface": ("surface of the DyNN", SURFACE, "v"),
        "dynamic": ("DyNN still right as deployed, strongest attack here", KINDS["dynn"].colour, KINDS["dynn"].marker),
        "static": ("SDNN still right, its own PGD", KINDS["sdnn"].colour, KINDS["sdnn"].marker),
    }
    fig, axes = plt.subplots(figsize=(PAGE * 0.75, 0.34 * len(table) + 1.3))
    for number, (value, (name, colour, marker)) in enumerate(looks.items()):
        places = [place + 0.2 * (number - 1) for place in range(len(table))]
        spread = whiskers(table, value, f"{value}_low", f"{value}_high")
        axes.errorbar(100 * table[value], places, xerr=spread, ls="", capsize=1.5, color=colour, marker=marker, label=name)
    axes.set_yticks(range(len(table)), [f"{cell_name(*row.network.cell)}, {row.eps_255:g}/255" for row in table.itertuples()])
    axes.set(ylim=(len(table) - 0.5, -0.5), xlim=(-3, 103), xlabel="share of images (%)")
    fig.legend(loc="outside lower center", ncols=1)
    return fig


def transfer_matrices(table: pd.DataFrame, kinds: Mapping[str, tuple[str, str]]) -> Figure:
    """Examples made on one network, shown to another: a row of matrices for each data set, a matrix for each kind of target.

    Args:
        table: rows of ``early.travels`` of one attack, sources dynamic and jointly trained.
        kinds: by kind of target the column that is shown, and its title.
    """
    table = with_cells(table).assign(kind=[one.kind for one in table.target], shown=[one.model for one in table.target])
    datasets, n = list(dict.fromkeys(table.dataset)), table.model.nunique()
    size = (PAGE * len(kinds) / 2, (0.5 * n + 0.9) * len(datasets))
    fig, axes = plt.subplots(len(datasets), len(kinds), figsize=size, squeeze=False)
    for row, dataset in zip(axes, datasets, strict=True):
        for panel, (kind, (measure, title)) in zip(row, kinds.items(), strict=True):
            here = table[(table.dataset == dataset) & (table.kind == kind)]
            matrix = here.pivot(index="model", columns="shown", values=measure)
            names = {model: about.display for model, about in MODELS.items() if model in matrix.index}
            heat(panel, matrix.loc[[*names], [*names]].rename(index=names, columns=names), f"{DATASETS[dataset].display}: {title}")
    return fig
