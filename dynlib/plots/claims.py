"""How the verdicts depend on their readings."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from dynlib.analysis.claims import CLAIMS
from dynlib.analysis.readings import MAIN
from dynlib.datasets import DATASETS
from dynlib.figures import PAGE
from dynlib.networks.backbones import MODELS

# How figures show verdicts: colour, marker, and whether it is filled.
VERDICTS = {
    "supported": ("black", "^", True),
    "partly": ("0.5", "D", True),
    "not supported": ("0.4", "o", False),
    "contradicted": ("black", "v", True),
}
AXES = {
    "C1": "difference of transfer rates, DyNN to SDNN less SDNN to DyNN (points)",
    "C2": "cost per success, DyNN over SDNN",
    "C3": "robust accuracy gained by design (points)",
    "C4a": "surface opened by attacks with that goal, less by plain ones (points)",
    "C4b": "share gained by design under Early PGD (points)",
    "B1": "robust accuracy gained by another exit rule at the same cost (points)",
    "B2": "half of the saving, less what an attack on speed leaves of it (points of a full run)",
    "B3": "answers kept by a cheap defence beyond full runs at the same cost (points)",
}

DATASET_GREYS = {"cifar10": "black", "cifar100": "0.55"}
SHORT = {
    "C1": "transfer, DyNN to SDNN\nless the other way (points)",
    "C2": "computation to fool it,\nDyNN / SDNN (log axis)",
    "C3": "design against static\nattackers: gain (points)",
    "C4a": "only the network as\ndeployed errs (points)",
    "C4b": "design against that\nattack: gain (points)",
    "B1": "another exit rule at the\nsame cost: gain (points)",
    "B2": "saving taken away, beyond\nhalf of it (points)",
    "B3": "cheap defence beside full\nruns at the same cost (points)",
}


def story(main: pd.DataFrame, trainings: pd.DataFrame) -> Figure:
    """All claims at a glance: a line for each, the pooled value with its interval, and a letter for each training of a cell.

    Each line has an axis of its own; shaded is the side that the claim is on.

    Args:
        main: rows of ``claims.read``, the main reading of each claim.
        trainings: rows of ``claims.read`` of that name.
    """
    fig, axes = plt.subplots(len(main), 1, figsize=(PAGE, 0.52 * len(main) + 0.6), squeeze=False)
    for panel, row in zip(axes.flat, main.itertuples(), strict=True):
        claim = CLAIMS[row.claim]
        colour, marker, filled = VERDICTS[row.ruled]
        scale, none = (1, 1) if claim.ratio else (100, 0)
        if claim.ratio:
            _ratios(panel)
        cells = trainings[trainings.claim == row.claim].sort_values("value", kind="stable")
        places = _apart(cells.value.to_numpy(), [row.low, row.high, none / scale], claim.ratio)
        for place, (x, one) in enumerate(zip(places, cells.itertuples(), strict=True)):
            look = {
                "marker": f"${MODELS[one.model].display[0]}$",
                "color": DATASET_GREYS.get(one.dataset, "0.3"),
                "ls": "",
                "ms": 5,
            }
            panel.plot(scale * x, 0.12 + 0.4 * (place % 2), mew=0.2, **look)
        equal = places[(scale * cells.value == none).to_numpy()]
        if len(equal) > 1:  # letters beside each other would look like gains
            panel.annotate(
                f"{len(equal)} at {none}", (scale * equal[-1], 0.3), (6, 0), textcoords="offset points", va="center", size=6
            )
        spread = [[scale * (row.value - row.low)], [scale * (row.high - row.value)]]
        look = {"color": colour, "marker": marker, "mfc": colour if filled else "white", "ms": 6, "lw": 2}
        panel.errorbar(scale * row.value, -0.3, xerr=spread, **look)
        panel.axvline(none, color="black", lw=0.6)
        panel.set(xlim=panel.get_xlim(), ylim=(-0.7, 0.75), yticks=[])
        panel.axvspan(none, panel.get_xlim()[0 if claim.ratio else 1], color="0.93", lw=0, zorder=0)
        panel.spines["left"].set_visible(False)
        panel.annotate(f"{row.claim}  {SHORT[row.claim]}", (-0.02, 0.5), xycoords="axes fraction", ha="right", va="center", size=7)
    for model in dict.fromkeys(trainings.model):
        name = MODELS[model].display
        axes[0][0].plot([], [], marker=f"${name[0]}$", ls="", color="0.3", mew=0.2, label=name)
    for dataset in dict.fromkeys(trainings.dataset):
        axes[0][0].plot([], [], marker="s", ls="", color=DATASET_GREYS.get(dataset, "0.3"), label=DATASETS[dataset].display)
    for name in dict.fromkeys(main.ruled):
        colour, marker, filled = VERDICTS[name]
        axes[0][0].plot([], [], ls="", color=colour, marker=marker, mfc=colour if filled else "white", label=name)
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=9, columnspacing=0.8, handletextpad=0.1)
    return fig


def _apart(values: np.ndarray, others: list[float], ratio: bool) -> np.ndarray:
    """Ascending values as they are drawn, in two rows, alternately: in a row each is a letter's width from the one before.

    Args:
        values: ``[n]``.
        others: what else is on the axis.
        ratio: whether the axis is logarithmic.
    """
    at, seen = (np.log2(part) if ratio else np.asarray(part) for part in (values, [*values, *others]))
    width, drawn = 0.018 * np.ptp(seen), list[float]()
    for value in at:
        drawn.append(max(value, drawn[-2] + width) if len(drawn) > 1 else value)
    return np.exp2(drawn) if ratio else np.array(drawn)


def _ratios(panel: Axes) -> None:
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_locator(LogLocator(base=2, subs=(1, 1.5)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


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
        _ratios(panel)
