"""The design space: what each choice of exits, threshold and fall-back is worth."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from dynlib.figures import PAGE, whiskers
from dynlib.networks.identity import cell_name

# How figures show who attacks; see ``dynlib.design.attacker``.
ATTACKERS = {
    "the SDNN under it": ("black", "^", "-"),
    "a separate SDNN": ("C0", "s", "-"),
    "another architecture": ("C1", "o", "--"),
}


def trade_off_panels(table: pd.DataFrame) -> Figure:
    """Robust over clean accuracy, a dot for each design, its colour the cost; ringed: the Pareto front.

    Args:
        table: rows of ``design.trade_off`` with ``dataset``, ``model`` and the mask ``default``.
    """
    cells = list(table.groupby(["dataset", "model"], sort=False))
    rows = -(-len(cells) // 3)
    size = (max(4.6, PAGE * min(len(cells), 3) / 3), 2.4 * rows)
    fig, axes = plt.subplots(rows, min(len(cells), 3), figsize=size, squeeze=False)
    for panel, ((dataset, model), cell) in zip(axes.flat, cells, strict=False):
        share = 100 * cell.mmacs / cell.mmacs.max()
        dots = panel.scatter(100 * cell.clean, 100 * cell.robust, 9, share, cmap="viridis", vmin=0, vmax=100, lw=0)
        front, static, usual = cell[cell.pareto], cell[cell.n_early == 0].iloc[[0]], cell[cell.default]
        panel.scatter(100 * front.clean, 100 * front.robust, 22, fc="none", ec="C3", lw=0.7, label="Pareto front")
        panel.scatter(100 * static.clean, 100 * static.robust, 45, c="black", marker="o", label="no early exit")
        panel.scatter(100 * usual.clean, 100 * usual.robust, 70, c="C1", marker="*", ec="black", lw=0.5, label="default design")
        panel.set_title(cell_name(dataset, model))
        panel.set_xlabel("clean accuracy (%)")
    for panel in axes.flat:
        panel.set_visible(panel.has_data())
    for row in axes:
        row[0].set_ylabel("robust accuracy (%)")
    fig.colorbar(dots, ax=axes, label="mean MACs (% of a full run)", pad=0.01)
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def factor_panels(
    table: pd.DataFrame, by: str = "attacker", looks: dict[str, tuple] = ATTACKERS, ylabel: str = "robust accuracy (%)"
) -> Figure:
    """The share ``robust`` over the levels of each factor: a row for each dataset and model, a curve for each attacker and source.

    Hollow: the level changes clean accuracy by more than 1 point.

    Args:
        table: rows of ``design.factors`` with ``dataset``, ``model``, ``source`` and the column ``by``.
        by: what gives a curve its look.
        looks: colour, marker and dash of each.
        ylabel: what the share is of.
    """
    cells, names = list(table.groupby(["dataset", "model"], sort=False)), list(dict.fromkeys(table.factor))
    levels = {name: list(dict.fromkeys(table[table.factor == name].level)) for name in names}
    widths = [max(len(levels[name]), 3) for name in names]
    size = (PAGE, 1.6 * len(cells) + 0.9)
    fig, axes = plt.subplots(len(cells), len(names), figsize=size, sharey="row", squeeze=False, width_ratios=widths)
    for row, ((dataset, model), cell) in zip(axes, cells, strict=True):
        for panel, name in zip(row, names, strict=True):
            for number, ((who, _), curve) in enumerate(cell[cell.factor == name].groupby([by, "source"], sort=False)):
                colour, marker, dash = looks[who]
                places = [levels[name].index(level) + 0.1 * (number - 1) for level in curve.level]
                spread = whiskers(curve, "robust")
                panel.errorbar(places, 100 * curve.robust, spread, color=colour, ls=dash, lw=0.8, capsize=1)
                panel.plot([], [], color=colour, ls=dash, lw=0.8, marker=marker, label=who)
                for equal, face in ((True, colour), (False, "white")):
                    here = curve.equal.to_numpy() == equal
                    chosen = [place for place, h in zip(places, here, strict=True) if h]
                    panel.plot(chosen, 100 * curve.robust[here], marker, mfc=face, mec=colour)
            panel.set_xticks(range(len(levels[name])), [level.replace("_", "\n") for level in levels[name]])
            panel.set_xlim(-0.6, len(levels[name]) - 0.4)
            panel.set_xlabel(name)
        row[0].set_ylabel(ylabel)
        row[0].set_title(cell_name(dataset, model), loc="left")
    handles, labels = axes[0][0].get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))  # several sources have one look
    fig.legend(named.values(), named, loc="outside lower center", ncols=3)
    return fig


def retrained_panels(table: pd.DataFrame) -> Figure:
    """Designs trained for real beside choices from one network: robust accuracy, clean accuracy and cost.

    Args:
        table: rows of ``design.retrained_table``.
    """
    exits = list(dict.fromkeys(table.exits))
    fig, axes = plt.subplots(1, 3, figsize=(PAGE, 2.2), sharey=True)
    for number, (trained, rows) in enumerate(table.groupby("trained", sort=False)):
        places = [exits.index(chosen) + 0.2 * (number - 0.5) for chosen in rows.exits]
        look = {"color": f"C{number}", "marker": "so"[number], "ls": "", "label": f"trained {trained}"}
        for panel, name in zip(axes, ("robust", "clean"), strict=False):
            panel.errorbar(100 * rows[name], places, xerr=whiskers(rows, name, f"{name}_low", f"{name}_high"), capsize=1.5, **look)
        axes[2].plot(rows.mmacs, places, **look)
    axes[0].set_yticks(range(len(exits)), [f"exits {chosen}" for chosen in exits])
    axes[0].set_ylim(len(exits) - 0.5, -0.5)
    for panel, name in zip(axes, ("robust accuracy (%)", "clean accuracy (%)", "mean MACs (millions)"), strict=True):
        panel.set_xlabel(name)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig
