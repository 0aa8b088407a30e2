"""What the exits of networks do on clean images: accuracy and cost, who leaves where, overthinking, calibration."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch

from dynlib.analysis import stats
from dynlib.analysis.measured import Seen, costs
from dynlib.behaviour import THRESHOLDS, calibration_error
from dynlib.mechanisms import FALL_BACKS, Answers, ConfidenceExit, Mechanism


def exit_table(clean: Iterable[Seen]) -> pd.DataFrame:
    """Each exit for itself: accuracy, MACs, calibration error, and overthinking.

    ``lost`` is the share of images that this exit answers correctly and the final exit wrongly, ``gained`` the reverse; both and
    ``accuracy`` have Wilson intervals.
    """
    found = []
    for seen in clean:
        right, error, macs = (
            (seen.answers.label == seen.truth).numpy(),
            calibration_error(seen.answers, seen.truth),
            costs(seen.target),
        )
        for k, good in enumerate(right):
            row = {
                "network": seen.target,
                "exit": k + 1,
                "n": len(good),
                "macs": macs[k].item(),
                "calibration_error": error[k].item(),
            }
            for name, hits in (("accuracy", good), ("lost", good & ~right[-1]), ("gained", right[-1] & ~good)):
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), stats.rate(hits), strict=True))
            found.append(row)
    return pd.DataFrame(found)


def threshold_table(clean: Iterable[Seen]) -> pd.DataFrame:
    """Dynamic networks as deployed over the threshold, for both fall-backs: accuracy with its Wilson interval, and mean MACs."""
    found = []
    for seen in clean:
        for fall_back in FALL_BACKS if len(seen.answers) > 1 else ():
            for threshold in THRESHOLDS:
                decision = ConfidenceExit(threshold, fall_back).decide(seen.answers, costs(seen.target))
                right = (decision.label == seen.truth).numpy()
                found.append((seen.target, fall_back, threshold, *stats.rate(right), decision.cost.double().mean().item()))
    return pd.DataFrame(found, columns=["network", "fall_back", "threshold", "accuracy", "low", "high", "macs"])


def leaving_table(clean: Iterable[Seen], thresholds: Sequence[float]) -> pd.DataFrame:
    """For each threshold and exit the share of images that leave there, and how many of those are answered correctly.

    ``exit`` counts from 1; 0 stands for images that no exit let go.
    """
    found = []
    for seen in clean:
        for threshold in thresholds if len(seen.answers) > 1 else ():
            mechanism = ConfidenceExit(threshold)
            places, right = leaving_places(mechanism, seen.answers), (mechanism.answer(seen.answers) == seen.truth).numpy()
            for exit in (*range(1, len(seen.answers) + 1), 0):
                here = places == exit
                found.append((seen.target, threshold, exit, here.mean(), right[here].mean() if here.any() else np.nan))
    return pd.DataFrame(found, columns=["network", "threshold", "exit", "share", "accuracy"])


def leaving_places(mechanism: Mechanism, answers: Answers) -> np.ndarray:
    """The exit, counted from 1, where each image leaves; 0 where no exit let it go: int64 ``[n]``."""
    exit, left = mechanism.answering(answers)
    return torch.where(left, exit + 1, 0).numpy()


def sureness(seen: Seen, mechanism: Mechanism) -> dict[str, float]:
    """Of a network as deployed: its accuracy, and on the images that it classifies correctly its mean confidence and margin."""
    exit, _ = mechanism.answering(seen.answers)
    right = mechanism.answer(seen.answers) == seen.truth
    means = {
        name: getattr(seen.answers, name).gather(0, exit[None])[0][right].double().mean().item()
        for name in ("confidence", "margin")
    }
    return {"accuracy": right.double().mean().item(), **means}
