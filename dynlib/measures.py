"""Rates with intervals and paired tests, all derived from what is stored per image in ``results/``."""

from collections.abc import Callable
from itertools import chain

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from dynlib import behaviour
from dynlib.files import CHECKPOINTS
from dynlib.mechanisms import FALL_BACKS, Answers, ConfidenceExit, Mechanism
from dynlib.networks.checkpoints import read_card
from dynlib.networks.identity import Network
from dynlib.results import Outputs, ResultsError

SETTING = ["attack", "loss", "eps_255"]
RESAMPLES = 10_000


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a rate.

    Raises:
        ValueError: ``n`` is 0, or ``successes`` is not between 0 and ``n``.
    """
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return interval.low, interval.high


def rate(successes: float, n: int) -> tuple[float, float, float]:
    """A rate and its Wilson interval."""
    return (float(successes) / n, *wilson(round(float(successes)), n))


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p value of the exact McNemar test, from the numbers of images on which only one of two events happened."""
    n = only_first + only_second
    return stats.binomtest(int(only_first), int(n)).pvalue if n else 1.0


def holm(p: np.ndarray) -> np.ndarray:
    """p values ``[tests]`` corrected for their number, by Holm's step-down method."""
    order, corrected = np.argsort(p), np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1)), 1)
    return corrected


def bootstrap_mean(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean over images, of values ``[n]``."""
    # The values are few and repeat: how often each is drawn is all that the mean depends on.
    distinct, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(values), counts / len(values), RESAMPLES)
    low, high = np.percentile(drawn @ distinct / len(values), [2.5, 97.5])
    return low.item(), high.item()


def bootstrap(
    cells: list[tuple[str, np.ndarray]], statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean over cells of a statistic of sums over images.

    Args:
        cells: for each the name of what its images are, and columns ``[images, m]``. Cells of one name are made on the same images,
            so those are resampled once for all of them.
        statistic: from sums ``[..., m]`` to values ``[...]``.
        seed: of the resampling.
    """
    rng, totals = np.random.default_rng(seed), np.zeros(RESAMPLES)
    for name in dict.fromkeys(name for name, _ in cells):
        columns = np.stack([columns for other, columns in cells if other == name])  # [cells, images, m]
        n = columns.shape[1]
        for part in np.split(np.arange(RESAMPLES), 20):
            drawn = rng.multinomial(n, np.full(n, 1 / n), len(part)).astype(float)  # how often each image is drawn
            totals[part] += statistic(drawn @ columns).sum(axis=0)
    low, high = np.percentile(totals / len(cells), [2.5, 97.5])
    return low.item(), high.item()


def exit_table(outputs: list[Outputs]) -> pd.DataFrame:
    """Each exit for itself: accuracy with its Wilson interval, MACs in millions, calibration error, and overthinking.

    ``lost`` is the share of images that this exit answers correctly and the final exit wrongly, ``gained`` the reverse, both with
    Wilson intervals.
    """
    rows = []
    for network, logits, labels, macs in outputs:
        right, error = behaviour.right(logits, labels), behaviour.calibration_error(logits, labels)
        for k, good in enumerate(right):
            changes = (rate((a & ~b).sum(), len(good)) for a, b in ((good, right[-1]), (right[-1], good)))
            cost = (macs[k].item() / 1e6, error[k].item())
            rows.append((*Network.parse(network).parts, k + 1, *rate(good.sum(), len(good)), *cost, *chain(*changes)))
    names = ["dataset", "model", "kind", "exit", "accuracy", "low", "high", "mmacs", "calibration_error"]
    changes = [f"{change}{end}" for change in ("lost", "gained") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=[*names, *changes])


def threshold_table(outputs: list[Outputs]) -> pd.DataFrame:
    """Dynamic networks as deployed over the threshold, for both fall-backs: accuracy with its interval, mean MACs in millions."""
    rows = []
    for network, logits, labels, macs in outputs:
        for fall_back in FALL_BACKS if len(logits) > 1 else ():
            for threshold, point in behaviour.sweep(logits, labels, macs, fall_back).items():
                accuracy = rate(point.accuracy * len(labels), len(labels))
                rows.append((*Network.parse(network).parts, fall_back, threshold, *accuracy, point.macs * macs[-1].item() / 1e6))
    return pd.DataFrame(rows, columns=["dataset", "model", "kind", "fall_back", "threshold", "accuracy", "low", "high", "mmacs"])


def leaving_table(outputs: list[Outputs], thresholds: list[float]) -> pd.DataFrame:
    """Where images leave: for each threshold and exit the share that leaves there, and how many of those are answered correctly.

    ``exit`` 0 stands for images that no exit was confident of; the most confident one answers them, at full cost.
    """
    rows = []
    for network, logits, labels, macs in outputs:
        answers = Answers.of(logits)
        for threshold in thresholds if len(logits) > 1 else ():
            mechanism = ConfidenceExit(threshold)
            decision, places = mechanism.decide(answers, macs), leaving_places(mechanism, answers)
            for exit in (*range(1, len(logits) + 1), 0):
                here = places == exit
                right = (decision.label == labels)[here].double().mean().item() if here.any() else None
                rows.append((*Network.parse(network).parts, threshold, exit, here.double().mean().item(), right))
    return pd.DataFrame(rows, columns=["dataset", "model", "kind", "threshold", "exit", "share", "accuracy"])


def leaving_places(mechanism: Mechanism, answers: Answers) -> Tensor:
    """The exit, counted from 1, where each image leaves; 0 where no exit was confident: int64 ``[n]``."""
    exit, left = mechanism.answering(answers)
    return torch.where(left, exit + 1, 0)


def confidence(outputs: Outputs, threshold: float) -> dict[str, float]:
    """Of a network as deployed: its accuracy, and on the images that it classifies correctly its mean confidence and margin.

    The margin is the difference between the two largest softmax probabilities of the exit that answers.
    """
    answers = Answers.of(outputs.logits)
    decision = ConfidenceExit(threshold).decide(answers, outputs.macs)
    right = decision.label == outputs.labels
    confidence, margin = (
        values.gather(0, decision.exit[None])[0][right].double().mean().item() for values in (answers.confidence, answers.margin)
    )
    return {"accuracy": right.double().mean().item(), "confidence": confidence, "margin": margin}


def as_deployed(records: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """The records of dynamic targets at one threshold, and those of static targets.

    Raises:
        ResultsError: there are none at this threshold.
    """
    if threshold not in set(records.threshold):
        known = ", ".join(f"{t:g}" for t in sorted(set(records.threshold.dropna())))
        raise ResultsError(f"nothing was measured at threshold {threshold}, but at {known}")
    return records[(records.threshold == threshold) | records.threshold.isna()]


def at_final_exit(records: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """The same with every network answering at its final exit, as if there were no mechanism."""
    one = as_deployed(records, threshold)
    return one.assign(correct=one.final)


def transfer_rates(records: pd.DataFrame) -> pd.DataFrame:
    """Share of images that an attack turns: a row for each source, target, attack, loss and radius, with its Wilson interval.

    ``model`` and ``kind`` are those of the source, ``target_model`` and ``target_kind`` those of the target.

    A rate counts the images that source and target both classify correctly as deployed when clean.

    Raises:
        ResultsError: a pair without such an image.
    """
    rows = []
    clean = clean_masks(records)
    for record in _attacked(records):
        counts = clean[record.source] & clean[record.target]
        n, fooled = counts.sum(), (counts & ~record.correct).sum()
        if n == 0:
            raise ResultsError(f"{record.source} and {record.target} classify no image correctly in common")
        low, high = wilson(fooled, n)
        target = Network.parse(record.target)
        about = (*Network.parse(record.source).parts, target.model, target.kind, record.attack, record.loss, record.eps_255)
        rows.append((*about, n, fooled, fooled / n, low, high))
    names = ["dataset", "model", "kind", "target_model", "target_kind", *SETTING, "n", "fooled", "rate", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def direction_differences(records: pd.DataFrame) -> pd.DataFrame:
    """C1, cell by cell: rate(DyNN -> SDNN) - rate(SDNN -> DyNN) for each dataset, model, kind of DyNN, attack, its loss and radius.

    Both rates are on the images that both networks classify correctly as deployed; the difference has a bootstrap interval over
    images and the p value of an exact McNemar test. Column ``per_image`` holds ``[images]`` differences, -1, 0 or 1, and NaN
    where an image does not count.
    """
    clean, rows = clean_masks(records), []
    attacked = {(r.source, r.target, r.attack, r.loss, r.eps_255): ~r.correct for r in _attacked(records)}
    for (source, target, attack, loss, eps), to_static in attacked.items():
        dynamic = Network.parse(source)
        if dynamic.is_static or Network.parse(target) != dynamic.sibling(exits="none"):
            continue
        per_image = to_static.astype(float) - attacked[target, source, attack, "final", eps]
        per_image[~(clean[source] & clean[target])] = np.nan
        difference = per_image[~np.isnan(per_image)]
        p = mcnemar((difference > 0).sum(), (difference < 0).sum())
        about = (*dynamic.parts, attack, loss, eps, len(difference))
        rows.append((*about, difference.mean(), *bootstrap_mean(difference), p, per_image))
    names = ["dataset", "model", "kind", *SETTING, "n", "difference", "low", "high", "p", "per_image"]
    return pd.DataFrame(rows, columns=names)


def readings(records: pd.DataFrame) -> pd.DataFrame:
    """``direction_differences`` for every way to read the records: column ``reading`` is a threshold, or ``"final exit"``."""
    thresholds = sorted(set(records.threshold.dropna()))
    tables = [direction_differences(as_deployed(records, t)).assign(reading=f"{t:g}") for t in thresholds]
    tables.append(direction_differences(at_final_exit(records, thresholds[0])).assign(reading="final exit"))
    return pd.concat(tables, ignore_index=True)


def side_effects(records: pd.DataFrame) -> pd.DataFrame:
    """What examples do to the computation of a dynamic network of the source's architecture, whatever they do to its answer.

    For each source, target, attack, loss and radius (0: clean images): the mean cost as a share of the MACs of a full run, with a
    bootstrap interval over images, and the shares of images that leave earlier and later than when clean.
    """
    rows, clean = [], {row.target: row.depth for row in records[records.attack == "none"].itertuples()}
    for row in records.itertuples():
        source, target = Network.parse(row.source), Network.parse(row.target)
        if source.model != target.model or target.is_static:
            continue
        macs = np.array(read_card(Network.parse(row.target).path(CHECKPOINTS))["macs"])
        cost, before = macs[row.depth] / macs[-1], clean[row.target]
        moved = (row.depth < before).mean(), (row.depth > before).mean()
        about = (*source.parts, target.kind, row.attack, row.loss, row.eps_255)
        rows.append((*about, cost.mean(), *bootstrap_mean(cost), *moved))
    names = ["dataset", "model", "kind", "target_kind", *SETTING, "cost", "low", "high", "earlier", "later"]
    return pd.DataFrame(rows, columns=names)


def robustness_table(records: pd.DataFrame) -> pd.DataFrame:
    """Dynamic networks as deployed over the threshold, clean (radius 0) and under each attack, on all images.

    A row for each source, target, attack, loss, radius and threshold: the share of right answers with its Wilson interval, and the
    mean cost as a share of the MACs of a full run.
    """
    rows = []
    for row in records[records.threshold.notna()].itertuples():
        macs = np.array(read_card(Network.parse(row.target).path(CHECKPOINTS))["macs"])
        shares = (*rate(row.correct.sum(), len(row.correct)), (macs[row.depth] / macs[-1]).mean())
        rows.append((row.source, row.target, row.attack, row.loss, row.eps_255, row.threshold, *shares))
    return pd.DataFrame(rows, columns=["source", "target", *SETTING, "threshold", "accuracy", "low", "high", "cost"])


def clean_masks(records: pd.DataFrame) -> dict[str, np.ndarray]:
    """For each network the mask of clean images that it classifies correctly as deployed."""
    rows = records[records.loss == "none"]
    return dict(zip(rows.target, rows.correct, strict=True))


def _attacked(records: pd.DataFrame):
    return records[records.attack != "none"].itertuples(index=False)
