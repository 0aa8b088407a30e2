"""How the verdicts depend on their readings."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from dynlib.analysis.claims import CLAIMS
from dynlib.analysis.readings import MAIN
from dynlib.figures import PAGE

# How figures show verdicts: colour, marker, and whether it is filled.
VERDICTS = {
    "supported": ("C0", "^", True),
    "partly": ("C3", "D", True),
    "not supported": ("0.4", "o", False),
    "contradicted": ("C2", "v", True),
}
AXES = {
    "C1": "difference of transfer rates, DyNN to SDNN less SDNN to DyNN (points)",
    "C2": "cost per success, DyNN over SDNN",
    "C3": "robust accuracy gained by design (points)",
    "C4a": "surface opened by attacks with that goal, less by plain ones (points)",
    "C4b": "share gained by design under the Early Attack (points)",
    "B1": "robust accuracy gained by another exit rule at the same cost (points)",
}


def sensitivity_strips(readings: pd.DataFrame) -> Figure:
    """A strip for each claim, a line for each reading: pooled value, interval, the rule's verdict, and how many cells agree.

    Args:
        readings: of ``claims.read``. Ratios are drawn on a logarithmic axis.
    """
    strips = dict(list(readings.groupby("claim", sort=False)))
    heights = [len(table) + 1 for table in strips.values()]
    size = (PAGE, 0.155 * sum(heights) + 0.42 * len(strips))
    fig, axes = plt.subplots(len(strips), 1, figsize=size, height_ratios=heights, squeeze=False)
    for panel, (claim, table) in zip(axes.flat, strips.items(), strict=True):
        _strip(panel, table, CLAIMS[claim].ratio)
        panel.set_xlabel(AXES[claim], labelpad=1, loc="right")
        panel.set_title(claim, loc="left", fontweight="bold")
    first = axes.flat[0]
    first.annotate("cells", (1.02, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", size=7)
    for name, (colour, marker, filled) in VERDICTS.items():
        first.plot([], [], ls="", color=colour, marker=marker, mfc=colour if filled else "white", label=name)
    fig.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=len(VERDICTS))
    return fig


def _strip(panel: Axes, table: pd.DataFrame, ratio: bool) -> None:
    scale = 1 if ratio else 100
    for place, row in enumerate(table.itertuples()):
        colour, marker, filled = VERDICTS[row.ruled]
        spread = [[scale * (row.value - row.low)], [scale * (row.high - row.value)]]
        panel.errorbar(scale * row.value, place, xerr=spread, color=colour, marker=marker, mfc=colour if filled else "white")
        panel.annotate(f"{row.above}/{row.cells}", (1.02, place), xycoords=("axes fraction", "data"), va="center", size=7)
    panel.axvline(1 if ratio else 0, color="black", lw=0.6)
    panel.axhspan(-0.5, 0.5, color="0.92", lw=0, zorder=0)  # the main reading
    names = [row.reading if row.group == MAIN else f"{row.group}: {row.reading}" for row in table.itertuples()]
    panel.set_yticks(range(len(table)), names)
    panel.set_ylim(len(table) - 0.4, -0.6)
    panel.set_title("\N{LEFTWARDS ARROW} as claimed" if ratio else "as claimed \N{RIGHTWARDS ARROW}", loc="right", size=7)
    if ratio:
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_locator(LogLocator(base=2, subs=(1, 1.25, 1.5)))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
