"""What the threshold does to accuracy, robust accuracy and cost of a dynamic network."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from dynlib.figures import PAGE, cell_name, whiskers


def robustness_panels(table: pd.DataFrame) -> Figure:
    """Accuracy (above) and cost (below) over the threshold: a column for each network, a curve for each radius; 0 is clean.

    Args:
        table: rows of ``measures.robustness_table``, of each target one source, attack and loss, and the clean images.
    """
    cells, radii = list(table.groupby("target", sort=False)), sorted(set(table.eps_255))
    size = (max(4.6, PAGE * min(len(cells), 3) / 3), 3.4)
    fig, axes = plt.subplots(2, len(cells), figsize=size, sharex=True, sharey="row", squeeze=False)
    colours = sns.color_palette("flare", len(radii))
    for (above, below), (target, cell) in zip(axes.T, cells, strict=True):
        for (radius, curve), marker in zip(cell.sort_values("threshold").groupby("eps_255"), "osD^v", strict=False):
            look = {"color": colours[radii.index(radius)], "marker": marker, "label": f"{radius}/255" if radius else "clean"}
            above.errorbar(curve.threshold, 100 * curve.accuracy, whiskers(curve, "accuracy"), capsize=1.5, **look)
            below.plot(curve.threshold, 100 * curve.cost, **look)
        dataset, model, _ = target.split("-")
        above.set_title(cell_name(dataset, model))
        below.set_xlabel("threshold")
    axes[0][0].set(ylabel="right answers (%)", ylim=(-3, 103))
    axes[1][0].set(ylabel="MACs (%)", ylim=(0, 103))
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(radii))
    return fig
