"""RQ2: the design of a mechanism, that is, which exits a network has, when an image leaves, and who answers if none is confident.

Everything is read from stored outputs of all exits, so no design needs another pass. ``evaluate`` answers for one design:

    outputs = {o.network: o for o in results.read_outputs("quick")}
    design.evaluate(outputs["cifar10-resnet56-dynn"], exits=(1, 3, 6), mechanism=ConfidenceExit(0.8))
"""

from collections.abc import Sequence
from functools import cache
from itertools import chain, combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dynlib.measures import bootstrap_mean, leaving_places, rate
from dynlib.mechanisms import FALL_BACKS, Answers, ConfidenceExit, Mechanism
from dynlib.networks.checkpoints import new
from dynlib.networks.exits import checked_exits
from dynlib.networks.identity import Network
from dynlib.results import Outputs, ResultsError

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
ONE_POINT = 0.01 + 1e-9  # of accuracy; shares of images are rarely exact
DEFAULT_THRESHOLD, DEFAULT_FALL_BACK = 0.9, "most_confident"


class Evaluation(NamedTuple):
    """What a design does with each image, ``[n]`` each: whether it is right, the index of the answering exit, MACs in millions."""

    correct: Tensor
    exit: Tensor
    mmacs: Tensor


def attacker(source: str, target: str) -> str:
    """What the static network that examples were made on is to the dynamic one that they are shown to."""
    static, dynamic = Network.parse(source), Network.parse(target)
    if static.model != dynamic.model:
        return "another architecture"
    return "the SDNN under it" if dynamic.trained == "heads" else "a separate SDNN"


def subsets(n_exits: int) -> list[tuple[int, ...]]:
    """All choices of exits; each holds the final one. Of 7 exits there are 64, the first of them the static network."""
    early = range(n_exits - 1)
    return [(*chosen, n_exits - 1) for size in range(n_exits) for chosen in combinations(early, size)]


def costs(network: str, macs: Tensor, exits: Sequence[int]) -> Tensor:
    """MACs of leaving at each of the chosen exits, ``[chosen]``, from those of all: heads that are not chosen are not paid for."""
    exits, heads = checked_exits(exits, len(macs)), _head_macs(network)
    dropped = torch.tensor([k not in exits for k in range(len(heads))])
    return (macs - (heads * dropped).cumsum(0))[list(exits)]


@cache
def _head_macs(network: str) -> Tensor:
    return torch.cat([new(Network.parse(network)).head_macs, torch.zeros(1, dtype=torch.int64)])


def evaluate(outputs: Outputs, exits: Sequence[int], mechanism: Mechanism) -> Evaluation:
    """One design on stored outputs.

    Args:
        outputs: of all exits of a network.
        exits: indices of the chosen ones, increasing, the final one last.
        mechanism: the exit rule.
    Raises:
        ValueError: no exit, an unknown one, out of order, or without the final one.
    """
    return _evaluate(outputs, Answers.of(outputs.logits), exits, mechanism)


def _evaluate(outputs: Outputs, answers: Answers, exits: Sequence[int], mechanism: Mechanism) -> Evaluation:
    paid = costs(outputs.network, outputs.macs, exits)  # which checks the exits
    decision = mechanism.decide(answers.exits(list(exits)), paid)
    return Evaluation(decision.label == outputs.labels, torch.tensor(exits)[decision.exit], decision.cost / 1e6)


def space(clean: Outputs, attacked: Outputs) -> pd.DataFrame:
    """Every design of a network: all subsets of its exits, ``THRESHOLDS`` and both fall-backs.

    ``clean`` and ``robust`` hold, per image ``[n]``, whether the clean and the attacked image are answered correctly; ``mmacs`` is
    the mean cost on clean images, in millions. The outputs of clean images may be of more images; the first are used.

    Raises:
        ResultsError: the two do not belong together.
    """
    n = len(attacked.labels)
    if clean.network != attacked.network or not clean.labels[:n].equal(attacked.labels):
        raise ResultsError(f"outputs of {clean.network} and {attacked.network} are not of one network and the same images")
    clean = clean._replace(logits=clean.logits[:, :n], labels=clean.labels[:n])
    both, rows = [(outputs, Answers.of(outputs.logits)) for outputs in (clean, attacked)], []
    for exits in subsets(len(clean.logits)):
        for threshold in THRESHOLDS:
            for fall_back in FALL_BACKS:
                mechanism = ConfidenceExit(threshold, fall_back)
                quiet, loud = (_evaluate(outputs, answers, exits, mechanism) for outputs, answers in both)
                rows.append((exits, threshold, fall_back, quiet.correct.numpy(), loud.correct.numpy(), quiet.mmacs.mean().item()))
    return pd.DataFrame(rows, columns=["exits", "threshold", "fall_back", "clean", "robust", "mmacs"])


def default(table: pd.DataFrame) -> pd.Series:
    """Of the rows of ``space`` the one that all other notebooks use: all exits, threshold 0.9, the most confident exit answers."""
    every = max(table.exits, key=len)
    same = (table.exits == every) & (table.threshold == DEFAULT_THRESHOLD) & (table.fall_back == DEFAULT_FALL_BACK)
    return table[same].iloc[0]


def trade_off(table: pd.DataFrame) -> pd.DataFrame:
    """Each design's accuracies and cost, and whether it is on the Pareto front.

    It is unless another design is at least as accurate, at least as robust and at most as costly, and better in one of the three.
    """
    accuracy = table[["clean", "robust"]].map(np.mean)
    gains = np.stack([accuracy.clean, accuracy.robust, -table.mmacs], axis=1)
    better = (gains[:, None] >= gains).all(axis=-1) & (gains[:, None] > gains).any(axis=-1)  # [by whom, whom]
    early = table.exits.map(len) - 1
    shown = {"n_early": early, "exits": table.exits.map(exit_names), "pareto": ~better.any(axis=0)}
    return table[["threshold", "fall_back", "mmacs"]].assign(**accuracy, **shown)


def exit_names(exits: Sequence[int]) -> str:
    """For example ``"1 3 7"``, counted from 1."""
    return " ".join(str(k + 1) for k in exits)


def factors(table: pd.DataFrame) -> pd.DataFrame:
    """The default design with one factor changed at a time, each level with what it does on clean and on attacked images.

    Factors: the ``first exit`` (with all behind it), the ``number of early exits`` (mean over all choices of so many), the
    ``threshold`` and the ``fall-back``. ``robust`` has a Wilson interval, ``gain`` over the default a bootstrap interval over
    images; ``equal`` marks levels whose clean accuracy is within 1 point of the default's.
    """
    start, every = default(table), max(table.exits, key=len)
    usual = (table.threshold == start.threshold) & (table.fall_back == start.fall_back)
    levels = [("first exit", k + 1, usual & (table.exits == every[k:])) for k in range(len(every))]
    levels += [("number of early exits", k, usual & (table.exits.map(len) == k + 1)) for k in range(len(every))]
    whole = table.exits == every
    levels += [("threshold", t, whole & (table.threshold == t) & (table.fall_back == start.fall_back)) for t in THRESHOLDS]
    levels += [("fall-back", f, whole & (table.threshold == start.threshold) & (table.fall_back == f)) for f in FALL_BACKS]
    rows = []
    for factor, level, mask in levels:
        clean, robust = (np.mean(np.stack(table[mask][name].tolist()), axis=0) for name in ("clean", "robust"))
        gain = robust - start.robust
        about = (clean.mean(), table[mask].mmacs.mean(), *rate(robust.sum(), len(robust)), gain.mean(), *bootstrap_mean(gain))
        rows.append((factor, str(level), *about, abs(clean.mean() - start.clean.mean()) <= ONE_POINT))
    names = ["clean", "mmacs", "robust", "low", "high", "gain", "gain_low", "gain_high", "equal"]
    return pd.DataFrame(rows, columns=["factor", "level", *names])


def chosen(table: pd.DataFrame) -> dict:
    """C3 and C4, one cell: the most robust design that is at most 1 point less accurate than the default, and what it gains.

    ``robust`` may be NaN where an image does not count. The design is chosen on the first half of the images, and everything that
    is returned of it is measured on the second: the ``gain`` in robust accuracy over the default with a bootstrap interval,
    ``per_image`` the images' gains, and the loss of clean accuracy.
    """
    start = default(table)
    half = len(start.clean) // 2
    clean, robust = (np.nanmean(np.stack(table[name].tolist())[:, :half], axis=1) for name in ("clean", "robust"))
    allowed = clean >= start.clean[:half].mean() - ONE_POINT
    best = table.iloc[np.where(allowed, robust, -1).argmax()]
    per_image = best.robust[half:].astype(float) - start.robust[half:]
    gain = per_image[~np.isnan(per_image)]
    low, high = bootstrap_mean(gain)
    lost = start.clean[half:].mean() - best.clean[half:].mean()
    about = {"exits": exit_names(best.exits), "threshold": best.threshold, "fall_back": best.fall_back, "mmacs": best.mmacs}
    return {**about, "n": len(gain), "clean_lost": lost, "gain": gain.mean(), "low": low, "high": high, "per_image": per_image}


def retrained_table(clean: dict[str, Outputs], attacked: dict[str, Outputs]) -> pd.DataFrame:
    """Designs trained for real, beside the same choice of exits of the network that was trained with all of them; default rule.

    Args:
        clean, attacked: outputs by network: the jointly trained one with all exits first, then the designs trained for real.
    Returns:
        A row for each design and way of training, accuracies with Wilson intervals; ``per_image`` holds whether the attacked images
        are answered correctly, ``[n]``.
    """
    mechanism, rows = ConfidenceExit(DEFAULT_THRESHOLD, DEFAULT_FALL_BACK), []
    whole, last = next(iter(attacked)), len(next(iter(attacked.values())).logits) - 1
    for name in attacked:
        network = Network.parse(name)
        kind, exits = network.kind, (*network.exit_indices, last)
        own = tuple(range(len(exits)))
        for trained, measured, chosen in (("for these exits", name, own), ("for all exits", whole, exits)):
            quiet, loud = (evaluate(outputs[measured], chosen, mechanism) for outputs in (clean, attacked))
            shares = chain(*(rate(found.correct.sum(), len(found.correct)) for found in (quiet, loud)))
            rows.append((kind, exit_names(exits), trained, *shares, quiet.mmacs.mean().item(), loud.correct.numpy()))
    names = ["clean", "clean_low", "clean_high", "robust", "robust_low", "robust_high", "mmacs", "per_image"]
    return pd.DataFrame(rows, columns=["design", "exits", "trained", *names])


def retrained_gains(table: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracy of one design over another's on the same images, for each way of training, with its bootstrap interval.

    Args:
        table: of ``retrained_table``.
    Returns:
        A row for early over late exits and for few over all, ``first`` over ``second``, and each way of training.
    """
    per_image, rows = table.set_index(["design", "trained"]).per_image, []
    exits = table.drop_duplicates("design").set_index("design").exits
    for first, second in (("dynn_early", "dynn_late"), ("dynn_sparse", "dynn")):
        for trained in table.trained.unique():
            gain = per_image[first, trained].astype(float) - per_image[second, trained]
            rows.append((exits[first], exits[second], trained, gain.mean(), *bootstrap_mean(gain)))
    return pd.DataFrame(rows, columns=["first", "second", "trained", "gain", "low", "high"])


def leaving_groups(clean: Outputs, attacked: Outputs) -> pd.DataFrame:
    """Where images leave the default design: all of them when clean; attacked, those still answered correctly and those fooled.

    Only images that are answered correctly when clean are among the attacked. ``exit`` 0: no exit was confident.
    """
    mechanism, n = ConfidenceExit(DEFAULT_THRESHOLD, DEFAULT_FALL_BACK), len(attacked.labels)
    calm, pushed, labels = Answers.of(clean.logits[:, :n]), Answers.of(attacked.logits), attacked.labels
    counts, right = (mechanism.decide(answers, clean.macs).label == labels for answers in (calm, pushed))
    quiet, loud = leaving_places(mechanism, calm), leaving_places(mechanism, pushed)
    groups = {"fooled": loud[counts & ~right], "saved": loud[counts & right], "clean": quiet}
    rows = []
    for group, places in groups.items():
        for exit in (*range(1, len(calm) + 1), 0):
            rows.append((*Network.parse(clean.network).parts, group, exit, len(places), (places == exit).double().mean().item()))
    return pd.DataFrame(rows, columns=["dataset", "model", "kind", "images", "exit", "n", "share"])
