"""How networks learned."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from dynlib.datasets import DATASETS
from dynlib.figures import PAGE
from dynlib.networks.backbones import MODELS
from dynlib.networks.identity import KINDS
from dynlib.plots.exits import by_cell
from dynlib.plots.pooled import NARROW

DASHES = dict(zip(MODELS, ("-", "--", ":"), strict=False))


def learning_curves(table: pd.DataFrame) -> Figure:
    """Validation accuracy and training loss over epochs: a column for each data set, a line for each network.

    Args:
        table: rows of ``exits.learning_table``.
    """
    table = by_cell(table)
    datasets = list(dict.fromkeys(table.dataset))
    size = (PAGE if len(datasets) > 1 else NARROW, 3.7)
    fig, axes = plt.subplots(2, len(datasets), figsize=size, sharex=True, sharey="row", squeeze=False)
    for (above, below), dataset in zip(axes.T, datasets, strict=True):
        for (kind, model, _), curve in table[table.dataset == dataset].groupby(["kind", "model", "network"], sort=False):
            look = {"color": KINDS[kind].colour, "ls": DASHES.get(model, "-"), "lw": 0.9}
            above.plot(curve.epoch, 100 * curve.accuracy, **look)
            below.plot(curve.epoch, curve.loss, **look)
        above.set_title(DATASETS[dataset].display)
        below.set_xlabel("epoch")
    axes[0][0].set_ylabel("validation accuracy (%)")
    axes[1][0].set_ylabel("training loss")
    for kind in dict.fromkeys(table.kind):
        axes[0][0].plot([], [], color=KINDS[kind].colour, label=KINDS[kind].display)
    for model in dict.fromkeys(table.model):
        axes[0][0].plot([], [], color="0.3", ls=DASHES.get(model, "-"), label=MODELS[model].display)
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=6, columnspacing=1)
    return fig
