"""Rates with intervals and paired tests, all derived from the per-image records in ``results/``."""

import json

import numpy as np
import pandas as pd
from scipy import stats

from dynlib.checkpoints import read_card
from dynlib.files import CHECKPOINTS, RESULTS

SETTING = ["attack", "loss", "eps_255"]
RESAMPLES = 10_000


class ResultsError(RuntimeError):
    """Results that are missing, damaged or of other weights; the message is one line and names the file."""


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a rate.

    Raises:
        ValueError: ``n`` is 0, or ``successes`` is not between 0 and ``n``.
    """
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return interval.low, interval.high


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p value of the exact McNemar test, from the numbers of images on which only one of two events happened."""
    n = only_first + only_second
    return stats.binomtest(int(only_first), int(n)).pvalue if n else 1.0


def bootstrap_mean(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean over images, of values ``[n]``."""
    interval = stats.bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=seed, batch=1000)
    return interval.confidence_interval.low.item(), interval.confidence_interval.high.item()


def read_records(profile: str, experiment: str = "transferability") -> pd.DataFrame:
    """All records of an experiment; the per-image columns hold arrays ``[n]``, bool for ``correct`` and ``final``, else int.

    Raises:
        ResultsError: no records, damaged ones, or records of other weights than the shipped ones.
    """
    folder = RESULTS / profile / experiment
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        raise ResultsError(f"{folder} holds no records: run `./run_all.sh --profile {profile}`")
    frames = []
    for path in paths:
        try:
            about = json.loads(path.with_suffix(".json").read_text())
            frame = pd.read_csv(path, dtype=str)
            frame["eps_255"] = frame["eps_255"].astype(int)
            for column in ("correct", "final", "exit", "depth"):
                kind = bool if column in ("correct", "final") else int
                frame[column] = [np.array(list(text), dtype=int).astype(kind) for text in frame[column]]
        except (OSError, ValueError, KeyError) as error:
            raise ResultsError(f"{path} is damaged ({error}): delete it and run again") from None
        for network, weights in about["weights"].items():
            if weights != read_card(CHECKPOINTS / f"{network}.safetensors")["weights_sha256"]:
                raise ResultsError(f"{path} was measured with other weights of {network}: delete it and run again")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def transfer_rates(records: pd.DataFrame) -> pd.DataFrame:
    """Share of images that an attack turns: a row for each source, target, attack, loss and radius, with its Wilson interval.

    ``model`` and ``kind`` are those of the source, ``target_model`` and ``target_kind`` those of the target.

    A rate counts the images that source and target both classify rightly as deployed when clean.

    Raises:
        ResultsError: a pair without such an image.
    """
    rows = []
    clean = _clean(records)
    for record in _attacked(records):
        counts = clean[record.source] & clean[record.target]
        n, fooled = counts.sum(), (counts & ~record.correct).sum()
        if n == 0:
            raise ResultsError(f"{record.source} and {record.target} classify no image rightly in common")
        low, high = wilson(fooled, n)
        (dataset, model, kind), target = record.source.split("-"), record.target.split("-")
        about = (dataset, model, kind, *target[1:], record.attack, record.loss, record.eps_255)
        rows.append((*about, n, fooled, fooled / n, low, high))
    names = ["dataset", "model", "kind", "target_model", "target_kind", *SETTING, "n", "fooled", "rate", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def direction_differences(records: pd.DataFrame) -> pd.DataFrame:
    """C1, cell by cell: rate(DyNN -> SDNN) - rate(SDNN -> DyNN) for each dataset, model, attack, loss of the DyNN and radius.

    Both rates are on the images that both networks classify rightly as deployed; the difference has a bootstrap interval over
    images and the p value of an exact McNemar test. Column ``per_image`` holds the images' differences, -1, 0 or 1.
    """
    clean, rows = _clean(records), []
    attacked = {(r.source, r.target, r.attack, r.loss, r.eps_255): ~r.correct for r in _attacked(records)}
    for (source, target, attack, loss, eps), to_static in attacked.items():
        if not source.endswith("-dynn") or target != source.removesuffix("dynn") + "sdnn":
            continue
        counts = clean[source] & clean[target]
        forth, back = to_static[counts], attacked[target, source, attack, "final", eps][counts]
        difference = forth.astype(int) - back.astype(int)
        dataset, model, _ = source.split("-")
        p = mcnemar((difference > 0).sum(), (difference < 0).sum())
        rows.append(
            (dataset, model, attack, loss, eps, len(difference), difference.mean(), *bootstrap_mean(difference), p, difference)
        )
    return pd.DataFrame(rows, columns=["dataset", "model", *SETTING, "n", "difference", "low", "high", "p", "per_image"])


def _clean(records: pd.DataFrame) -> dict[str, np.ndarray]:
    """For each network the mask of clean images that it classifies rightly as deployed."""
    rows = records[records.attack == "none"]
    return dict(zip(rows.target, rows.correct, strict=True))


def _attacked(records: pd.DataFrame):
    return records[records.attack != "none"].itertuples(index=False)
