"""Pictures, and what each classifier predicts for them."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from dynlib.figures import PAGE


def exit_gallery(pictures: dict[str, Tensor], answers: pd.DataFrame, classes: tuple[str, ...]) -> Figure:
    """Versions of some images side by side, and beside them what each classifier predicts for those that it was asked about.

    Args:
        pictures: for each version its images ``[n, 3, side, side]`` in [0, 1].
        answers: a row for each ``image``, ``version`` and ``classifier``: ``label``, ``confidence``, whether it is ``right``, and
            whether the network as deployed ``answers`` there.
        classes: names of the classes.
    """
    n, versions = len(next(iter(pictures.values()))), list(pictures)
    fig = plt.figure(figsize=(PAGE, 1.15 * n))
    grid = fig.add_gridspec(n, len(versions) + 1, width_ratios=[*[1] * len(versions), 8])
    for i in range(n):
        for j, version in enumerate(versions):
            axes = fig.add_subplot(grid[i, j])
            axes.imshow(pictures[version][i].permute(1, 2, 0).numpy())
            axes.set_axis_off()
            if i == 0:
                axes.set_title(version)
        _answers(fig.add_subplot(grid[i, -1]), answers[answers.image == i], classes, heading=i == 0)
    return fig


def _answers(axes: Axes, answers: pd.DataFrame, classes: tuple[str, ...], heading: bool) -> None:
    """A table of cells, wrong answers shaded, the answering exit framed."""
    classifiers, versions = (list(dict.fromkeys(answers[name])) for name in ("classifier", "version"))
    axes.set_xlim(0, len(classifiers))
    axes.set_ylim(len(versions), 0)
    for row in answers.itertuples():
        x, y = classifiers.index(row.classifier), versions.index(row.version)
        frame = {"ec": "black", "lw": 1.2, "zorder": 2} if row.answers else {"ec": "white", "lw": 0.5}
        axes.add_patch(plt.Rectangle((x + 0.02, y + 0.03), 0.96, 0.94, fc="#e3effa" if row.right else "#f0b8ae", **frame))
        text = f"{classes[row.label]}\n{100 * row.confidence:.0f} %"
        axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=5.5, zorder=3)
    axes.set_yticks([k + 0.5 for k in range(len(versions))], versions, fontsize=6)
    axes.set_xticks([k + 0.5 for k in range(len(classifiers))], classifiers if heading else [""] * len(classifiers), fontsize=6)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    sns.despine(ax=axes, left=True, bottom=True)
