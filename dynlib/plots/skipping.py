"""Block skipping beside early exits."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from dynlib.analysis.skipping import EXITS, GATES, STATIC
from dynlib.figures import PAGE
from dynlib.networks.identity import KINDS
from dynlib.plots.pooled import NARROW, legend_below

# In the hue of its kind each: a network with gates is a dynamic one.
LOOKS = {
    STATIC: {"color": KINDS["sdnn"].colour, "ls": "-", "marker": KINDS["sdnn"].marker},
    EXITS: {"color": KINDS["dynn"].colour, "ls": "-", "marker": KINDS["dynn"].marker},
    GATES: {"color": KINDS["dynn"].colour, "ls": "--", "marker": "D", "mfc": "white"},
}


def skipping_panels(table: pd.DataFrame) -> Figure:
    """How often each network is fooled, over the radius: by its own examples, by those of the static one, and it by theirs.

    Args:
        table: rows of ``skipping.fooled``.
    """
    panels = {
        "attacked itself": table[table.source_how == table.target_how],
        "shown examples of\nthe static network": table[(table.source_how == STATIC) & (table.target_how != STATIC)],
        "its examples shown to\nthe static network": table[(table.target_how == STATIC) & (table.source_how != STATIC)],
    }
    fig, axes = plt.subplots(1, len(panels), figsize=(PAGE, 2.7), sharey=True)
    for panel, (title, rows), side in zip(axes, panels.items(), ("source", "target", "source"), strict=True):
        _lines(panel, ((name, rows[rows[f"{side}_how"] == name]) for name in LOOKS), "rate")
        panel.set_title(title)
    axes[0].set_ylabel("images fooled (%)")
    legend_below(fig)
    return fig


def saving_lines(table: pd.DataFrame) -> Figure:
    """What is left of the saving over the radius of an attack on speed. Args: ``table``: rows of ``skipping.saved``."""
    fig, axes = plt.subplots(figsize=(NARROW, 2.7))
    _lines(axes, ((name, table[table.how == name]) for name in (EXITS, GATES)), "saving")
    axes.set(ylabel="saved of a full run (%)", ylim=(0, None))
    legend_below(fig)
    return fig


def _lines(axes: plt.Axes, lines: Iterable[tuple[str, pd.DataFrame]], value: str) -> None:
    for name, rows in lines:
        if len(rows):
            rows = rows.sort_values("eps_255")
            axes.plot(rows.eps_255, 100 * rows[value], label=name, **LOOKS[name])
            axes.fill_between(rows.eps_255, 100 * rows.low, 100 * rows.high, color=LOOKS[name]["color"], alpha=0.12, lw=0)
    axes.set_xlabel("radius (/255)")
