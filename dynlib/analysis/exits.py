"""What the exits of networks do on clean images: accuracy and cost, who leaves where, overthinking, calibration."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch

from dynlib.analysis import stats
from dynlib.analysis.measured import Seen, costs
from dynlib.behaviour import THRESHOLDS, calibration_error
from dynlib.files import CHECKPOINTS
from dynlib.mechanisms import FALL_BACKS, Answers, ConfidenceExit, Mechanism
from dynlib.networks.checkpoints import read_card
from dynlib.networks.identity import Network


def usual(clean: Iterable[Seen]) -> list[Seen]:
    """Of each cell the networks with all exits or none; where one was trained more than once, the first."""
    first: dict[tuple[str, str, str], Seen] = {}
    for seen in clean:
        if seen.target.exits in ("all", "none"):
            first.setdefault(seen.target.parts, seen)
    return list(first.values())


def exit_table(clean: Iterable[Seen]) -> pd.DataFrame:
    """Each exit for itself: accuracy, MACs, calibration error, and overthinking.

    ``lost`` is the share of images that this exit classifies correctly and the final exit does not, ``gained`` the reverse; both
    and ``accuracy`` have Wilson intervals.
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
                row |= stats.rate(hits).columns(name, f"{name}_")
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


def deployed_table(clean: Sequence[Seen], mechanism: Mechanism) -> pd.DataFrame:
    """Dynamic networks as deployed, beside the static network of their training: a row for each network that has one.

    ``early`` is the share of images that leave before the final exit, ``early_accuracy`` that of those and ``late_accuracy`` of
    the others. Per image ``[n]``: ``gain`` is 1 where only the dynamic network is correct, -1 where only the static one is;
    ``cost`` is a share of the static network's MACs.
    """
    static, found = {seen.target: seen for seen in clean if seen.target.is_static}, []
    for seen in clean:
        other = static.get(seen.target.static)
        if seen.target.is_static or other is None:
            continue
        decision = mechanism.decide(seen.answers, costs(seen.target))
        right, usually = ((label == seen.truth).numpy() for label in (decision.label, other.answers.label[-1]))
        early = np.isin(leaving_places(mechanism, seen.answers), range(1, len(seen.answers)))
        row = {"network": seen.target, "n": len(right), "accuracy": right.mean(), "static": usually.mean(), "early": early.mean()}
        row |= {f"{name}_accuracy": right[on].mean() if on.any() else np.nan for name, on in (("early", early), ("late", ~early))}
        cost = decision.cost.numpy() / costs(other.target)[-1].item()
        found.append(row | {"gain": right.astype(float) - usually, "cost": cost})
    return pd.DataFrame(found)


def overthinking_table(clean: Iterable[Seen]) -> pd.DataFrame:
    """Dynamic networks: the share of images that some early exit classifies correctly and the final exit does not.

    ``lost`` has a Wilson interval; ``accuracy`` is the final exit's; per image ``[n]``: ``overthought``.
    """
    found = []
    for seen in clean:
        if not seen.target.is_static:
            right = (seen.answers.label == seen.truth).numpy()
            hits = right[:-1].any(axis=0) & ~right[-1]
            found.append((seen.target, len(hits), right[-1].mean(), *stats.rate(hits), hits.astype(float)))
    return pd.DataFrame(found, columns=["network", "n", "accuracy", "lost", "low", "high", "overthought"])


def head_costs(exits: pd.DataFrame) -> pd.Series:
    """By dynamic network: what the heads of all its exits add to the static network of its cell, as a share of that one's MACs.

    Takes rows of ``exit_table``; a network without a static one is left out.
    """
    full = exits.groupby("network", sort=False).macs.max()
    shares = {n: macs / full[n.static] - 1 for n, macs in full.items() if not n.is_static and n.static in full}
    return pd.Series(shares, dtype=float)


def pooled(table: pd.DataFrame, column: str) -> stats.Estimate:
    """The mean over networks of a per-image column, with its 95 % interval."""
    return stats.pooled_mean(stats.trainings(table, column))


def leaving_groups(clean: Seen, attacked: Seen, mechanism: Mechanism) -> pd.DataFrame:
    """Where images leave a network with all its exits: a row for each group of ``images`` and exit, with the ``share`` and ``n``.

    Groups: all ``clean`` images; and of those classified correctly when clean, the attacked ones that still are (``saved``) or are
    not (``fooled``). ``exit`` counts from 1; 0: no exit let the image go. A group without images is left out.
    """
    quiet = clean.answers.images(slice(len(attacked.truth)))
    right, still = ((mechanism.answer(answers) == attacked.truth).numpy() for answers in (quiet, attacked.answers))
    calm, pushed = (leaving_places(mechanism, answers) for answers in (quiet, attacked.answers))
    groups = {"fooled": pushed[right & ~still], "saved": pushed[right & still], "clean": calm}
    return pd.DataFrame(
        {"network": clean.target, "images": name, "exit": exit, "n": len(places), "share": np.mean(places == exit)}
        for name, places in groups.items()
        for exit in (*range(1, len(quiet) + 1), 0)
        if len(places)
    )


def leaving_summary(groups: pd.DataFrame) -> pd.DataFrame:
    """For each group of ``images`` the shares that leave at the ``first`` exit, an ``early``, the ``final`` one, or ``none``.

    Means over networks; rows of ``leaving_groups``.
    """
    exit, last = groups.exit, groups.groupby("network", sort=False).exit.transform("max")
    masks = {"first": exit == 1, "early": (exit > 0) & (exit < last), "final": exit == last, "none": exit == 0}
    each = groups.assign(**{name: groups.share * mask for name, mask in masks.items()})
    sums = each.groupby(["network", "images"], sort=False)[[*masks]].sum()
    return sums.groupby(level="images", sort=False).mean()


def learning_table(networks: Iterable[Network]) -> pd.DataFrame:
    """How networks learned, from their cards: a row for each epoch, with the mean training ``loss`` and ``accuracy``.

    That is the final exit's on validation images, a share. Cards of older trainings tell no epochs; such networks have no rows.
    """
    found = []
    for network in networks:
        curve = read_card(network.path(CHECKPOINTS)).get("curve", [])
        found += [(network, epoch, loss, accuracy / 100) for epoch, (loss, accuracy) in enumerate(curve, start=1)]
    return pd.DataFrame(found, columns=["network", "epoch", "loss", "accuracy"])
