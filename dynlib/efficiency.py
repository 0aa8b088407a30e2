"""C2: what an adversarial example costs, from the records of ``experiments.efficiency``."""

import numpy as np
import pandas as pd

from dynlib.measures import bootstrap, clean_masks, rate
from dynlib.networks.identity import Network

NETWORKS = ["dataset", "model", "kind", "loss"]


def white_box(records: pd.DataFrame) -> pd.DataFrame:
    """The attack that stops at success: a row for each source and loss, its columns arrays ``[images]``.

    ``counts`` marks the images that the static and the dynamic networks of the architecture classify correctly as deployed, so that
    all attacks of a model are compared on the same ones. Of those ``success`` says whether the network as deployed is fooled,
    ``steps`` and ``mmacs`` (millions) what was spent on it; elsewhere they are 0.
    """
    clean, rows = clean_masks(records), []
    for record in records[(records.loss != "none") & (records.source == records.target)].itertuples():
        source = Network.parse(record.source)
        counts = np.logical_and.reduce([mask for name, mask in clean.items() if Network.parse(name).cell == source.cell])
        arrays = (counts, ~record.correct & counts, record.made * counts, record.macs / 1e6 * counts)
        rows.append((*source.parts, record.loss, record.seconds / len(counts), *arrays))
    return pd.DataFrame(rows, columns=[*NETWORKS, "seconds", "counts", "success", "steps", "mmacs"])


def cost_table(white: pd.DataFrame) -> pd.DataFrame:
    """For each source and loss: success, steps of the successful, and MACs per successful example in millions, with intervals.

    ``seconds`` is the time per image attacked, on the machine that measured it.
    """
    rows = []
    for row in white.itertuples():
        n, fooled = row.counts.sum(), row.success.sum()
        per_success = row.mmacs.sum() / fooled if fooled else np.inf
        columns = np.stack([row.mmacs, row.success], axis=1)
        low, high = bootstrap([("", columns)], lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 0.5))
        steps = row.steps[row.success].mean() if fooled else np.nan
        about = (row.dataset, row.model, row.kind, row.loss, n, *rate(fooled, n))
        rows.append((*about, steps, per_success, low, high, row.seconds))
    names = ["n", "success", "success_low", "success_high", "mean_steps", "mmacs_per_success", "low", "high", "seconds"]
    return pd.DataFrame(rows, columns=[*NETWORKS, *names])


def success_curves(white: pd.DataFrame) -> pd.DataFrame:
    """White box: for each source, loss and number of steps the share of images fooled by then, and the mean MACs (millions).

    An image that is fooled by then has been paid for in full, up to the pass that showed it.
    """
    rows = []
    for row in white.itertuples():
        n = row.counts.sum()
        # A successful image has paid one pass more than it made steps: the one that showed the success.
        passes = np.maximum(row.steps + row.success, 1)
        for steps in range(1, row.steps.max() + 1):
            spent = row.mmacs / passes * np.where(row.success & (row.steps <= steps), passes, np.minimum(passes, steps))
            about = (row.dataset, row.model, row.kind, row.loss, steps, spent.sum() / n)
            rows.append((*about, *rate((row.success & (row.steps <= steps)).sum(), n)))
    return pd.DataFrame(rows, columns=[*NETWORKS, "steps", "mmacs", "rate", "low", "high"])


def transfer_curves(records: pd.DataFrame) -> pd.DataFrame:
    """Black box: the same against the other kind of network of the architecture, for each number of steps that was tried."""
    clean, rows = clean_masks(records), []
    for record in records[(records.loss != "none") & (records.source != records.target)].itertuples():
        counts = clean[record.source] & clean[record.target]
        fooled, mmacs = ~record.correct[counts], record.macs[counts].mean() / 1e6
        about = (*Network.parse(record.source).parts, record.loss, record.steps, mmacs)
        rows.append((*about, *rate(fooled.sum(), len(fooled))))
    return pd.DataFrame(rows, columns=[*NETWORKS, "steps", "mmacs", "rate", "low", "high"])


def cost_ratios(white: pd.DataFrame, spent: str = "mmacs") -> pd.DataFrame:
    """C2, cell by cell: cost per successful example on the dynamic network over that on the static one, for each loss.

    ``log_ratio`` is its natural logarithm, with a bootstrap interval over images. ``columns`` ``[images, 4]`` holds what it is
    made from: cost and successes on the dynamic, then on the static network.

    Args:
        white: of ``white_box``.
        spent: its column that costs are counted in, ``"mmacs"`` or ``"steps"``.
    """
    rows, static = [], white[white.kind == "sdnn"].set_index(["dataset", "model"])
    for row in white[white.kind == "dynn"].itertuples():
        other = static.loc[(row.dataset, row.model)]
        columns = np.stack([getattr(row, spent), row.success, other[spent], other.success], axis=1).astype(float)
        interval = bootstrap([("", columns)], log_ratio)
        rows.append((row.dataset, row.model, row.loss, row.counts.sum(), log_ratio(columns.sum(axis=0)), *interval, columns))
    return pd.DataFrame(rows, columns=["dataset", "model", "loss", "n", "log_ratio", "low", "high", "columns"])


def log_ratio(sums: np.ndarray) -> np.ndarray:
    """Of ``[..., 4]`` sums as in ``cost_ratios``; where no example succeeded, half of one is taken to have."""
    costs, successes = sums[..., [0, 2]], np.maximum(sums[..., [1, 3]], 0.5)
    logs = np.log(costs / successes)
    return logs[..., 0] - logs[..., 1]
