"""Beyond the paper: exit rules beside each other, each set so that clean images cost the same (B1).

Everything is read from stored answers. Rules are set on validation images, and judged on test images.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dynlib.analysis import choices, design, stats
from dynlib.analysis.measured import Seen, costs, measured
from dynlib.mechanisms import Answers, ConfidenceExit, EntropyExit, Mechanism, PatienceExit, ThresholdPerExit
from dynlib.networks.identity import Network

BUDGETS = (0.25, 0.5, 0.75)  # mean cost of clean images, as a share of a full run
MAIN_BUDGET = 0.5
TOLERANCE = 0.05  # of a full run: how far from the budget a rule may be
CONFIDENCE = "confidence"
RULES = (CONFIDENCE, "entropy", "patience", "thresholds per exit")
GRID = tuple(k / 200 for k in range(1, 200))


def settings(answers: Answers, truth: Tensor) -> dict[str, list[Mechanism]]:
    """Each of ``RULES`` with all its settings, for a network whose exits answer so to validation images.

    Where no exit lets an image go, the final exit answers, whatever the rule: only the rules differ.
    """
    return {
        CONFIDENCE: [ConfidenceExit(t, "final") for t in GRID],
        "entropy": [EntropyExit(t, "final") for t in GRID],
        "patience": [PatienceExit(k) for k in range(1, len(answers))],
        "thresholds per exit": list(dict.fromkeys(precise(answers, truth, precision) for precision in GRID)),
    }


def precise(answers: Answers, truth: Tensor, precision: float) -> ThresholdPerExit:
    """For each early exit the lowest threshold at which so large a share of the images that leave there is answered correctly.

    Exit by exit, on the images that are left. Where no threshold is enough, nobody leaves but at a confidence of 1.
    """
    left, thresholds = torch.ones_like(truth, dtype=torch.bool), []
    for label, confidence in zip(answers.label[:-1], answers.confidence[:-1], strict=True):
        sure, order = confidence[left].sort(descending=True)
        right = (label == truth)[left][order].double().cumsum(0) / torch.arange(1, len(sure) + 1)
        # Images of one confidence leave together.
        last = torch.cat([sure[1:] < sure[:-1], torch.ones(min(1, len(sure)), dtype=torch.bool)])
        enough = sure[(right >= precision) & last]
        thresholds.append(float(enough[-1].clamp(min=1e-6)) if len(enough) else 1.0)
        left &= confidence < thresholds[-1]
    return ThresholdPerExit(tuple(thresholds))


def at_cost(candidates: list[Mechanism], answers: Answers, macs: Tensor, budget: float) -> Mechanism | None:
    """The candidate whose mean cost is nearest to the budget, None if it is more than ``TOLERANCE`` off."""
    off = [abs(one.decide(answers, macs).cost.double().mean().item() / macs[-1].item() - budget) for one in candidates]
    best = int(np.argmin(off))
    return candidates[best] if off[best] <= TOLERANCE else None


@cache
def matched(run: str, network: Network) -> dict[tuple[str, float], Mechanism]:
    """By rule and budget how a network's rule is set on validation images; a rule that cannot meet a budget is missing."""
    seen = choices.clean_answers(run, "validation")[network]
    found = {
        (rule, budget): at_cost(candidates, seen.answers, costs(network), budget)
        for rule, candidates in settings(seen.answers, seen.truth).items()
        for budget in BUDGETS
    }
    return {key: mechanism for key, mechanism in found.items() if mechanism}


def judged(run: str, attacked: Seen, split: str = "test") -> pd.DataFrame:
    """The rules of one network at all budgets, on examples that it was shown: a row for each ``rule`` and ``budget``.

    ``clean`` and ``robust`` hold, per image ``[n]``, whether the clean and the attacked image are answered correctly; ``cost`` is
    the mean share of a full run that clean images take, ``attacked_cost`` that of the attacked ones.
    """
    network, n = attacked.target, len(attacked.truth)
    quiet, macs, rows = choices.clean_answers(run, split)[network].answers.images(slice(n)), costs(attacked.target), []
    for (rule, budget), mechanism in matched(run, network).items():
        calm, pushed = mechanism.decide(quiet, macs), mechanism.decide(attacked.answers, macs)
        right, robust = ((found.label == attacked.truth).numpy() for found in (calm, pushed))
        cost, attacked_cost = ((found.cost.double().mean() / macs[-1]).item() for found in (calm, pushed))
        rows.append((network, rule, budget, mechanism, right, robust, cost, attacked_cost))
    names = ["network", "rule", "budget", "mechanism", "clean", "robust", "cost", "attacked_cost"]
    return pd.DataFrame(rows, columns=names)


def attackers(run: str, who: str = choices.ATTACKERS[0]) -> Iterator[tuple[Network, Network, str]]:
    """Source, target and attack of C3's main reading, by one of its attackers."""
    return (key for key in choices.static_attacks(run) if choices.attacker(*key[:2]) == who)


def gains(
    run: str, budget: float = MAIN_BUDGET, who: str = choices.ATTACKERS[0], rule: str = ""
) -> list[tuple[Network, np.ndarray]]:
    """For each network: robust accuracy of a rule less that of confidence at the same budget, on each test image ``[n]``.

    The rule is the one named; or the most robust one on validation images, of those at most 1 point less accurate than confidence
    there. That may be confidence itself.
    """
    found = []
    for key in attackers(run, who):
        validation, test = (
            judged(run, choices.attacked_by_static(run, split)[key], split).query("budget == @budget").set_index("rule")
            for split in ("validation", "test")
        )
        if CONFIDENCE not in test.index or (rule and rule not in test.index):
            continue
        good = validation[validation.clean.map(np.mean) >= validation.clean[CONFIDENCE].mean() - design.ONE_POINT]
        best = rule or good.robust.map(np.mean).idxmax()
        found.append((key[1], test.robust[best].astype(float) - test.robust[CONFIDENCE]))
    return found


def pooled(table: pd.DataFrame) -> pd.DataFrame:
    """Rules on the mean over a data set's networks, where all of them meet the budget: rows of ``judged``.

    ``robust`` has its 95 % interval over images; ``gain`` is over confidence at the same budget, with ``gain_low``, ``gain_high``.
    """
    found, table = [], table.assign(dataset=[network.dataset for network in table.network])
    for (dataset, budget), rows in table.groupby(["dataset", "budget"], sort=False):
        each = dict(list(rows.groupby("rule", sort=False)))
        for rule in RULES:
            if rule not in each or len(each[rule]) < rows.network.nunique():
                continue
            here, start = each[rule].set_index("network"), each[CONFIDENCE].set_index("network")
            pairs = [(n, here.robust[n].astype(float), start.robust[n].astype(float)) for n in here.index]
            robust = dict(zip(("robust", "low", "high"), stats.pooled_mean([(dataset, mine) for _, mine, _ in pairs]), strict=True))
            more = stats.pooled_mean([(dataset, mine - other) for _, mine, other in pairs])
            found.append(
                {
                    "dataset": dataset,
                    "budget": budget,
                    "rule": rule,
                    "cells": len(pairs),
                    "n": min(len(mine) for _, mine, _ in pairs),
                }
                | {"clean": here.clean.map(np.mean).mean(), "cost": here.cost.mean(), "attacked_cost": here.attacked_cost.mean()}
                | robust
                | dict(zip(("gain", "gain_low", "gain_high"), more, strict=True))
            )
    return pd.DataFrame(found)
