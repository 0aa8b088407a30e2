"""Statistics that all analyses share: rates and means with 95 % intervals, paired tests, and the bootstrap over cells."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

RESAMPLES = 10_000
FEW = 100  # images under which no percentile bootstrap is used


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a rate.

    Raises:
        ValueError: ``n`` is 0, or ``successes`` is not between 0 and ``n``.
    """
    if n < 1:
        raise ValueError("a rate of no images: nothing is in common")
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return interval.low, interval.high


def rate(hits: np.ndarray) -> tuple[float, float, float]:
    """The share of True in ``[n]``, and its Wilson interval.

    Raises:
        ValueError: no images.
    """
    return (float(np.mean(hits)) if len(hits) else np.nan, *wilson(np.sum(hits), len(hits)))


def points(value: float, low: float, high: float) -> str:
    """A difference of shares with its interval for people, for example ``"+2.0 points [+0.5, +3.5]"``."""
    return f"{100 * value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p value of the exact McNemar test, from the numbers of images on which only one of two events happened."""
    n = only_first + only_second
    return stats.binomtest(int(only_first), int(n)).pvalue if n else 1.0


def holm(p: np.ndarray) -> np.ndarray:
    """p values ``[tests]`` corrected for their number, by Holm's step-down method."""
    order, corrected = np.argsort(p), np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1)), 1)
    return corrected


def mean(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
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
    return float(middle), float(low), float(high)


def bootstrap(
    cells: Sequence[tuple[str, np.ndarray]], statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean over cells of a statistic of sums over images.

    Args:
        cells: for each the name of what its images are, and columns ``[images, m]``. Cells of one name are made on the same images,
            so those are resampled once for all of them.
        statistic: from sums ``[..., m]`` to values ``[...]``.
        seed: of the resampling.
    """
    # The nearest one: a resample without a success has an infinite cost, between which nothing can be interpolated.
    low, high = np.nanpercentile(_resampled(cells, statistic, seed), [2.5, 97.5], method="nearest")
    return float(low), float(high)


def _resampled(cells: Sequence[tuple[str, np.ndarray]], statistic: Callable[[np.ndarray], np.ndarray], seed: int) -> np.ndarray:
    """The mean over cells of the statistic, of each resampling: ``[RESAMPLES, ...]``."""
    rng, totals = np.random.default_rng(seed), np.array(0.0)
    for name in dict.fromkeys(name for name, _ in cells):
        columns = np.stack([columns for other, columns in cells if other == name])  # [cells, images, m]
        n, parts = columns.shape[1], []
        for part in np.split(np.arange(RESAMPLES), 20):
            drawn = rng.multinomial(n, np.full(n, 1 / n), len(part)).astype(float)  # how often each image is drawn
            parts.append(statistic(drawn @ columns).sum(axis=0))
        totals = totals + np.concatenate(parts)
    return (totals / len(cells)).round(12)  # a sum that is 0 is 0 in any order


def pooled_mean(cells: Sequence[tuple[str, np.ndarray]]) -> tuple[float, float, float]:
    """The mean over cells of the mean over images, NaN left out, with its interval; of each cell name and values ``[images]``."""
    sums = [(name, np.stack([np.nan_to_num(values), ~np.isnan(values)], axis=1)) for name, values in cells]
    low, high = bootstrap(sums, lambda sums: _shares(sums)[..., 0])
    return float(np.mean([np.nanmean(values) for _, values in cells])), low, high


def pooled_curve(cells: Sequence[tuple[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean over cells of the mean over images at each point of a curve, with its interval, ``[points]`` each.

    Args:
        cells: of each its name, see ``bootstrap``, and values ``[images, points]``; an image that does not count is a row of NaN.
    """
    sums = [(name, np.column_stack([np.nan_to_num(values), ~np.isnan(values[:, 0])])) for name, values in cells]
    low, high = np.nanpercentile(_resampled(sums, _shares, 0), [2.5, 97.5], axis=0)
    return np.mean([np.nanmean(values, axis=0) for _, values in cells], axis=0), low, high


def _shares(sums: np.ndarray) -> np.ndarray:
    """From sums ``[..., k + 1]`` the first k over the last, NaN where a resample has drawn no image that counts."""
    with np.errstate(invalid="ignore"):
        return sums[..., :-1] / sums[..., -1:]
