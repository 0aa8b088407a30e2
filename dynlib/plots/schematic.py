"""The networks drawn: blocks as wide as they are costly and as high as their feature maps, and the exits above them."""

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynlib.figures import PAGE
from dynlib.networks.backbones import MODELS
from dynlib.networks.exits import build


@torch.no_grad()
def architecture(model: str, dataset: str = "cifar10") -> pd.DataFrame:
    """A row for each block: feature maps ``channels`` x ``side`` x ``side`` before any pooling, ``macs`` up to its end.

    ``exit`` numbers the exit after it, if there is one; ``share`` is the cost of leaving there, in MACs of the static network.
    """
    blocks = len(MODELS[model].build(10).blocks)
    net = build(model, dataset, range(1, blocks)).eval()  # an exit after every block: each is a segment
    paper, static = build(model, dataset).macs, build(model, dataset, ()).macs[-1]
    rows, x = [], torch.zeros(1, *net.shape)
    for k, macs in enumerate(net.macs.tolist()):
        x = net.segment(k, x)
        exit = (*MODELS[model].exit_after, blocks).index(k + 1) + 1 if k + 1 in (*MODELS[model].exit_after, blocks) else None
        share = (paper[exit - 1] / static).item() if exit else None
        side = x.shape[2] * (2 if hasattr(net.backbone.blocks[k], "pool") else 1)
        rows.append((model, k + 1, x.shape[1], side, macs, exit, share))
    return pd.DataFrame(rows, columns=["model", "block", "channels", "side", "macs", "exit", "share"])


def schematic(table: pd.DataFrame) -> Figure:
    """A strip for each model of the rows of ``architecture``."""
    models = list(dict.fromkeys(table.model))
    fig, axes = plt.subplots(len(models), 1, figsize=(PAGE, 1.25 * len(models)), squeeze=False)
    for panel, model in zip(axes[:, 0], models, strict=True):
        strip = table[table.model == model]
        _strip(panel, strip)
        panel.set_title(f"{MODELS[model].display}, {strip.macs.max() / 1e6:.0f} million MACs", loc="left", pad=2)
    axes[-1, 0].set_xlabel("share of the computation (MACs)")
    return fig


def _strip(axes: Axes, table: pd.DataFrame) -> None:
    total, highest, left = table.macs.max(), table.side.max(), 0.0
    sides, named = sorted(set(table.side), reverse=True), ""
    for row in table.itertuples():
        right, height = row.macs / total, (row.side / highest) ** 0.5
        shade = plt.get_cmap("Blues")(0.2 + 0.5 * sides.index(row.side) / len(sides))
        axes.add_patch(plt.Rectangle((left, -height / 2), right - left, height, fc=shade, ec="white", lw=0.8))
        if (name := f"{row.channels} x {row.side}²") != named:
            axes.text(left + 0.004, -0.56, name, va="top", fontsize=5.5, color="0.35")
            named = name
        if row.exit > 0:
            final = row.block == table.block.max()
            axes.annotate("", (right, 0.85), (right, height / 2), arrowprops={"arrowstyle": "->", "lw": 0.9, "color": "black"})
            exit = "final" if final else f"exit {row.exit:.0f}"
            axes.text(right, 0.87, f"{exit}\n{row.share:.2f}", ha="center", va="bottom", fontsize=6, linespacing=0.95)
        left = right
    axes.set_xlim(-0.005, 1.02)
    axes.set_ylim(-0.9, 1.35)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
