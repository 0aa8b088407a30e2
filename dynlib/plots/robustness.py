"""What the threshold does to accuracy, robust accuracy and cost of a dynamic network."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from dynlib.figures import PAGE, whiskers


def robustness_panels(table: pd.DataFrame) -> Figure:
    """Accuracy (above) and cost (below) over the threshold: a pair of panels for each network, a curve for each radius; 0 is clean.

    Args:
        table: rows of ``robustness.over_threshold``; a panel for each ``target``.
    """
    cells, radii = list(table.groupby("target", sort=False)), sorted(set(table.eps_255))
    bands, columns = -(-len(cells) // 3), min(len(cells), 3)
    size = (max(4.6, PAGE * columns / 3), 3.1 * bands + 0.3)
    fig, axes = plt.subplots(2 * bands, columns, figsize=size, sharex=True, sharey="row", squeeze=False)
    pairs = list(zip(axes[::2].flat, axes[1::2].flat, strict=True))
    colours = sns.color_palette("flare", len(radii))
    for (above, below), (target, cell) in zip(pairs, cells, strict=False):
        for (radius, curve), marker in zip(cell.sort_values("threshold").groupby("eps_255"), "osD^v", strict=False):
            look = {"color": colours[radii.index(radius)], "marker": marker, "label": f"{radius:g}/255" if radius else "clean"}
            above.errorbar(curve.threshold, 100 * curve.accuracy, whiskers(curve, "accuracy"), capsize=1.5, **look)
            below.plot(curve.threshold, 100 * curve.cost, **look)
        above.set_title(target.title)
        below.set_xlabel("threshold")
        below.tick_params(labelbottom=True)
    for panel in sum(pairs[len(cells) :], ()):
        panel.remove()
    for above, below in zip(axes[::2, 0], axes[1::2, 0], strict=True):
        above.set(ylabel="accuracy (%)", ylim=(-3, 103))
        below.set(ylabel="MACs (%)", ylim=(0, 103))
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(radii))
    return fig
