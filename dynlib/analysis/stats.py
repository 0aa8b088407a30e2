"""Statistics that all analyses share: rates and means with 95 % intervals, paired tests, and the bootstrap over cells."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from dynlib.networks.identity import Network

RESAMPLES = 10_000
FEW = 100  # images under which no percentile bootstrap is used


class Estimate(NamedTuple):
    """A number, or an array of them, with its 95 % interval."""

    value: Any
    low: Any
    high: Any

    def columns(self, name: str, prefix: str = "") -> dict[str, Any]:
        """For a row of a table: ``name``, ``low`` and ``high``, the bounds with a prefix."""
        return {name: self.value, f"{prefix}low": self.low, f"{prefix}high": self.high}


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a rate.

    Raises:
        ValueError: ``n`` is 0, or ``successes`` is not between 0 and ``n``.
    """
    if n < 1:
        raise ValueError("a rate of no images: nothing is in common")
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return interval.low, interval.high


def rate(hits: np.ndarray) -> Estimate:
    """The share of True in ``[n]``, and its Wilson interval.

    Raises:
        ValueError: no images.
    """
    return Estimate(float(np.mean(hits)) if len(hits) else np.nan, *wilson(np.sum(hits), len(hits)))


def points(value: float, low: float, high: float) -> str:
    """A difference of shares with its interval for people, for example ``"+2.0 points [+0.5, +3.5]"``."""
    return f"{signed(value)} points [{signed(low)}, {signed(high)}]"


def several(n: int, what: str) -> str:
    """For people, for example ``"1 cell"`` or ``"3 cells"``."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def signed(share: float) -> str:
    """In percent, and never minus zero."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p value of the exact McNemar test, from the numbers of images on which only one of two events happened."""
    n = only_first + only_second
    return stats.binomtest(int(only_first), int(n)).pvalue if n else 1.0


def holm(p: np.ndarray) -> np.ndarray:
    """p values ``[tests]`` corrected for their number, by Holm's step-down method."""
    order, corrected = np.argsort(p), np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1)), 1)
    return corrected


def mean(values: np.ndarray, seed: int = 0) -> Estimate:
    """The mean of ``[n]`` over images, NaN left out, and its 95 % interval.

    From ``FEW`` images on by the percentile bootstrap. Under that, a difference of two events, so values -1, 0 and 1, gets a score
    interval (the two shares' Wilson intervals, put together by Newcombe's method), and anything else Student's.

    Raises:
        ValueError: no images.
    """
    values = values[~np.isnan(values)].astype(float)
    n = len(values)
    if n == 0:
        raise ValueError("a mean of no images: nothing is in common")
    middle = values.mean()
    if n >= FEW:
        # The values are few and repeat: how often each is drawn is all that the mean depends on.
        distinct, counts = np.unique(values, return_counts=True)
        drawn = np.random.default_rng(seed).multinomial(n, counts / n, RESAMPLES)
        low, high = np.percentile(drawn @ distinct / n, [2.5, 97.5])
    elif np.isin(values, (-1, 0, 1)).all():
        (up, up_low, up_high), (down, down_low, down_high) = rate(values > 0), rate(values < 0)
        low, high = middle - np.hypot(up - up_low, down_high - down), middle + np.hypot(up_high - up, down - down_low)
    else:
        half = stats.t.ppf(0.975, max(n - 1, 1)) * values.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
        low, high = middle - half, middle + half
    return Estimate(float(middle), float(low), float(high))


class Training(NamedTuple):
    """What was measured on one training of a cell's networks.

    ``images`` names the images, which all trainings of that name have in common; those of one ``cell`` differ only in the seed of
    their training; ``values`` are ``[n]``, or ``[n, m]``, of each image.
    """

    images: str
    cell: tuple[Network, ...]
    values: np.ndarray


def trainings(rows: pd.DataFrame, column: str) -> list[Training]:
    """The values of a column, ``[n]`` or ``[n, m]`` a row, with the networks that the columns beside it name."""
    names = [name for name in ("network", "source", "target") if name in rows]
    return [of(values, *networks) for values, *networks in zip(rows[column], *(rows[name] for name in names), strict=True)]


def of(values: np.ndarray, *networks: Network) -> Training:
    """Values that were measured on these networks."""
    return Training(networks[0].dataset, tuple(network.sibling(seed=0) for network in networks), values)


def number_of_cells(measured: Sequence[Training]) -> int:
    """How many cells were measured, each by one training or more."""
    return len({one.cell for one in measured})


def bootstrap(
    measured: Sequence[Training],
    statistic: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
    method: Literal["nearest", "linear"] = "nearest",
) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile interval of the mean over cells, and over the trainings of each, of a statistic of sums over images.

    Two stages: the trainings of a cell are resampled, and the images. One draw of images serves all that is measured on them, as
    one network's hard images are the others' too. Where a cell was trained once, the interval is over images alone.

    Args:
        measured: values are columns ``[images, m]``.
        statistic: from sums ``[..., m]`` to values ``[...]``.
        seed: of the resampling.
        method: of ``numpy.percentile``. By default the nearest value: a resample without a success has an infinite cost, between
            which nothing can be interpolated.
    Returns:
        The bounds, of the shape of the statistic of one sum.
    """
    groups: dict[str, list[int]] = {}
    weights, totals = _weights(measured, seed), np.array(0.0)
    for k, one in enumerate(measured):
        groups.setdefault(one.images, []).append(k)
    for same, drawn in zip(groups.values(), _drawn(seed, *(len(measured[k].values) for k, *_ in groups.values())), strict=True):
        columns, found = np.stack([measured[k].values for k in same]), []
        for rounds in np.split(np.arange(RESAMPLES), 20):
            values = statistic(drawn[rounds].astype(float) @ columns)  # [trainings, rounds, ...]
            shares = weights[same][:, rounds].reshape(values.shape[:2] + (1,) * (values.ndim - 2))
            found.append((shares * np.where(shares > 0, values, 0)).sum(axis=0))
        totals = totals + np.concatenate(found)
    means = (totals / number_of_cells(measured)).round(12)  # a sum that is 0 is 0 in any order
    low, high = np.nanpercentile(means, [2.5, 97.5], axis=0, method=method)
    return low, high


@lru_cache(maxsize=2)  # the draws take most of the time, and readings of one campaign share them
def _drawn(seed: int, *sizes: int) -> list[np.ndarray]:
    """How often each of so many images is drawn in each round, ``[RESAMPLES, n]``, for each number of images."""
    rng = np.random.default_rng(seed)
    return [
        np.concatenate([rng.multinomial(n, np.full(n, 1 / n), RESAMPLES // 20).astype(np.uint8) for _ in range(20)]) for n in sizes
    ]


def _weights(measured: Sequence[Training], seed: int) -> np.ndarray:
    """The share that each training has in the mean of its cell in each round, ``[trainings, RESAMPLES]``."""
    rng = np.random.default_rng([seed, 1])  # whoever has one training only gets the images' draws that it would get alone
    drawn = {
        cell: iter(rng.multinomial(k, np.full(k, 1 / k), RESAMPLES).T / k) for cell, k in Counter(m.cell for m in measured).items()
    }
    return np.stack([next(drawn[one.cell]) for one in measured])


def over_cells(measured: Sequence[Training], statistic: Callable[[np.ndarray], Any]) -> np.ndarray:
    """The mean over cells of the mean over trainings of a statistic of the values."""
    cells: dict[tuple[Network, ...], list[Any]] = {}
    for one in measured:
        cells.setdefault(one.cell, []).append(statistic(one.values))
    return np.mean([np.mean(values, axis=0) for values in cells.values()], axis=0)


def pooled_mean(measured: Sequence[Training]) -> Estimate:
    """The mean over cells, and over the trainings of each, of the mean over images ``[n]``, NaN left out, with its interval."""
    sums = [one._replace(values=np.stack([np.nan_to_num(one.values), ~np.isnan(one.values)], axis=1)) for one in measured]
    low, high = bootstrap(sums, lambda sums: _shares(sums)[..., 0])
    return Estimate(float(over_cells(measured, np.nanmean)), float(low), float(high))


def pooled_curve(measured: Sequence[Training]) -> Estimate:
    """The same at each point of a curve: from values ``[n, points]``, an image that does not count being a row of NaN."""
    sums = [one._replace(values=np.column_stack([np.nan_to_num(one.values), ~np.isnan(one.values[:, 0])])) for one in measured]
    low, high = bootstrap(sums, _shares, method="linear")
    return Estimate(over_cells(measured, lambda values: np.nanmean(values, axis=0)), low, high)


def _shares(sums: np.ndarray) -> np.ndarray:
    """From sums ``[..., k + 1]`` the first k over the last, NaN where a resample has drawn no image that counts."""
    with np.errstate(invalid="ignore"):
        return sums[..., :-1] / sums[..., -1:]
