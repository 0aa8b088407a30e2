"""Exit rules beside each other."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from dynlib.datasets import DATASETS
from dynlib.figures import PAGE, whiskers
from dynlib.plots.pooled import NARROW, legend_below

# Without colour: in the other figures a colour is a network or a loss.
RULE_LOOKS = {
    "confidence": {"color": "black", "ls": "-"},
    "entropy": {"color": "0.55", "ls": "--"},
    "thresholds per exit": {"color": "0.4", "ls": ":"},
    "patience": {"color": "black", "ls": "", "marker": "D", "mfc": "white"},
}


def rule_curves(table: pd.DataFrame) -> Figure:
    """Clean and robust accuracy over the cost of clean images: a column for each data set, a curve for each rule.

    Args:
        table: rows of ``matched.curves``.
    """
    datasets = list(table.groupby("dataset", sort=False))
    size = (PAGE if len(datasets) > 1 else NARROW, 3.9)
    fig, axes = plt.subplots(2, len(datasets), figsize=size, sharex=True, squeeze=False)
    for panels, (dataset, rows) in zip(axes.T, datasets, strict=True):
        for panel, name in zip(panels, ("clean", "robust"), strict=True):
            for rule, look in RULE_LOOKS.items():
                curve = rows[rows.rule == rule].sort_values("cost")
                panel.plot(100 * curve.cost, 100 * curve[name], label=rule, **look)
                if look["ls"] == "":
                    panel.errorbar(
                        100 * curve.cost,
                        100 * curve[name],
                        whiskers(curve, name, f"{name}_low", f"{name}_high"),
                        ls="",
                        color="black",
                        lw=0.7,
                    )
                elif rule == "confidence":
                    low, high = 100 * curve[f"{name}_low"], 100 * curve[f"{name}_high"]
                    panel.fill_between(100 * curve.cost, low, high, color="0.85", lw=0, zorder=0)
        panels[0].set_title(DATASETS[dataset].display)
        panels[1].set_xlabel("cost of clean images (% of a full run)")
    for panel, name in zip(axes[:, 0], ("clean accuracy (%)", "robust accuracy (%)"), strict=True):
        panel.set_ylabel(name)
    legend_below(fig)
    return fig
