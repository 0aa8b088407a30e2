"""One style for all figures, and one way to save them: PDF, PNG and the data behind them as CSV."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from PIL.PngImagePlugin import PngImageFile

from dynlib.files import atomic, home

COLUMN, PAGE = 3.3, 6.8  # widths in inches
# A hue means one thing in all figures: a kind of network (``identity.KINDS``), a loss on a dynamic network (``attacks``), or this:
SURFACE = "C2"  # only the network as deployed errs
# All else is black, grey, a marker, a dash, or a scale of colours with its bar beside it.


def style() -> None:
    """Set the style for all figures that follow, whatever the user's own matplotlibrc says."""
    matplotlib.rcdefaults()
    sns.set_theme(context="paper", style="ticks", palette=matplotlib.color_sequences["petroff10"])
    matplotlib.rcParams |= {
        "font.size": 8,
        "axes.labelsize": 8,
        "axes.titlesize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "lines.linewidth": 1.2,
        "lines.markersize": 4,
        "pdf.fonttype": 42,  # letters stay letters
        "figure.dpi": 130,
        "savefig.dpi": 200,
        "figure.constrained_layout.use": True,
    }


def save_figure(fig: Figure, name: str, data: pd.DataFrame, caption: str, run: str, key: Mapping[str, Any] | None = None) -> None:
    """Write a figure of a run as PDF, PNG and CSV; caption and key number travel inside the PNG.

    Args:
        fig: the figure, without a title of its own.
        name: such as ``"fig1b_transfer"``.
        data: what the figure shows, one row a mark.
        caption: what is seen.
        run: whose figure it is, see ``files.home``.
        key: the number that the figure is about, which the report of a run sets beside the published one: ``what`` it is, its
            ``value``, and its interval ``low`` to ``high``.
    """
    folder, texts = home(run) / "figures", {"Description": caption} | ({"Key": json.dumps(dict(key))} if key else {})
    for suffix, metadata in ((".pdf", {"CreationDate": None, "Subject": caption}), (".png", texts)):
        with atomic(folder / f"{name}{suffix}") as temporary:
            fig.savefig(temporary, metadata=metadata)
    with atomic(folder / f"{name}.csv") as temporary:
        data.to_csv(temporary, index=False, float_format="%.5g")


def read_caption(png: Path) -> str:
    """The caption that ``save_figure`` has put into a PNG."""
    with PngImageFile(png) as image:
        return image.text["Description"]


def read_key(png: Path) -> dict[str, Any] | None:
    """The key number, if there is one."""
    with PngImageFile(png) as image:
        return json.loads(image.text["Key"]) if "Key" in image.text else None


def whiskers(rows: pd.DataFrame, value: str, low: str = "low", high: str = "high") -> pd.DataFrame:
    """How far the intervals of shares reach below and above, in points, ``[2, rows]``: what ``errorbar`` takes."""
    return 100 * pd.concat([rows[value] - rows[low], rows[high] - rows[value]], axis=1).T.clip(lower=0)  # rounding, at 0 and 100 %
