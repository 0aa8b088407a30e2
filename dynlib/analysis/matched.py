"""Beyond the paper: exit rules beside each other, each set so that clean images cost the same (B1).

Everything is read from stored answers. Rules are set on validation images, and judged on test images.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dynlib.analysis import choices, design, stats, surface, transfer
from dynlib.analysis.measured import Rule, Seen, costs, measured
from dynlib.analysis.stats import Training, of
from dynlib.mechanisms import Answers, ConfidenceExit, EntropyExit, Mechanism, PatienceExit, ThresholdPerExit
from dynlib.networks.identity import Network

BUDGETS = (0.25, 0.5, 0.75)  # mean cost of clean images, as a share of a full run
MAIN_BUDGET = 0.5
TOLERANCE = 0.05  # of a full run: how far from the budget a rule may be
CONFIDENCE = "confidence"
RULES = (CONFIDENCE, "entropy", "patience", "thresholds per exit")
GRID = tuple(k / 200 for k in range(1, 200))


@cache
def settings(run: str, network: Network) -> dict[str, dict[float, Mechanism]]:
    """Each of ``RULES`` of a network with all its settings, by the one number that each has.

    That is a threshold; a patience; or, for thresholds per exit, a precision, see ``precise``. Where no exit lets an image go, the
    final exit answers, whatever the rule: only the rules differ.
    """
    seen = choices.clean_answers(run, "validation")[network]
    return {
        CONFIDENCE: {t: ConfidenceExit(t, "final") for t in GRID},
        "entropy": {t: EntropyExit(t, "final") for t in GRID},
        "patience": {k: PatienceExit(k) for k in range(1, len(seen.answers))},
        "thresholds per exit": {share: precise(seen.answers, seen.truth, share) for share in GRID},
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


def at_cost(candidates: Mapping[float, Mechanism], answers: Answers, macs: Tensor, budget: float) -> Mechanism | None:
    """The candidate whose mean cost is nearest to the budget, None if it is more than ``TOLERANCE`` off."""
    off = {one: abs((one.decide(answers, macs).cost.double().mean() / macs[-1]).item() - budget) for one in candidates.values()}
    best = min(off, key=lambda one: off[one])
    return best if off[best] <= TOLERANCE else None


@cache
def matched(run: str, network: Network, budget: float = MAIN_BUDGET) -> dict[str, Mechanism]:
    """The rules of a network as set on validation images for a budget; one that cannot meet it is missing."""
    seen, found = choices.clean_answers(run, "validation")[network], settings(run, network)
    each = {rule: at_cost(candidates, seen.answers, costs(network), budget) for rule, candidates in found.items()}
    return {rule: mechanism for rule, mechanism in each.items() if mechanism}


def deciding(run: str, rule: str) -> Rule:
    """A rule at ``MAIN_BUDGET``, for each jointly trained network that can meet it; all others decide by confidence."""
    return lambda network: (matched(run, network) if network.kind == "dynn" else {}).get(rule, ConfidenceExit())


def judged(run: str, attacked: Seen, mechanisms: Mapping[Any, Mechanism], split: str = "test") -> pd.DataFrame:
    """Mechanisms of one network on examples that it was shown: a row for each, with its name as ``rule``.

    ``robust`` holds, per attacked image ``[n]``, whether it is answered correctly, ``clean`` the same of all clean images; ``cost``
    is the mean share of a full run that clean images take, ``attacked_cost`` that of the attacked ones.
    """
    network, rows = attacked.target, []
    quiet, macs = choices.clean_answers(run, split)[network], costs(network)
    for rule, mechanism in mechanisms.items():
        calm, pushed = (mechanism.decide(seen.answers, macs) for seen in (quiet, attacked))
        clean, robust = (calm.label == quiet.truth).numpy(), (pushed.label == attacked.truth).numpy()
        cost, attacked_cost = ((found.cost.double().mean() / macs[-1]).item() for found in (calm, pushed))
        rows.append((network, rule, clean, robust, cost, attacked_cost))
    return pd.DataFrame(rows, columns=["network", "rule", "clean", "robust", "cost", "attacked_cost"])


def attacks(run: str, who: str = choices.ATTACKERS[0]) -> list[tuple[Network, Network, str]]:
    """Source, target and attack of C3's main reading, by one of its attackers."""
    return [key for key in choices.static_attacks(run) if choices.attacker(*key[:2]) == who]


def gains(run: str, budget: float = MAIN_BUDGET, who: str = choices.ATTACKERS[0], rule: str = "") -> list[Training]:
    """For each network: robust accuracy of a rule less that of confidence at the same budget, on each test image ``[n]``.

    The rule is the one named; or the most robust one on validation images, of those at most 1 point less accurate than confidence
    there. That may be confidence itself.
    """
    found = []
    for key in attacks(run, who):
        rules = matched(run, key[1], budget)
        if CONFIDENCE not in rules or (rule and rule not in rules):
            continue
        best = rule or _most_robust(run, key, rules)
        test = judged(run, choices.attacked_by_static(run, "test")[key], rules).set_index("rule")
        found.append(of(test.robust[best].astype(float) - test.robust[CONFIDENCE], *key[:2]))
    return found


def chosen(run: str) -> dict[Network, str]:
    """The rule that B1 chooses for each network."""
    found = {}
    for key in attacks(run):
        rules = matched(run, key[1])
        if CONFIDENCE in rules:
            found[key[1]] = _most_robust(run, key, rules)
    return found


def _most_robust(run: str, key: tuple[Network, Network, str], rules: Mapping[str, Mechanism]) -> str:
    """On validation images, of those at most 1 point less accurate than confidence there."""
    validation = judged(run, choices.attacked_by_static(run, "validation")[key], rules, "validation").set_index("rule")
    good = validation[validation.clean.map(np.mean) >= validation.clean[CONFIDENCE].mean() - design.ONE_POINT]
    return str(good.robust.map(np.mean).idxmax())


def at_patience(run: str) -> pd.DataFrame:
    """Patience beside confidence at patience's own cost on validation images: a row for each network and patience.

    ``per_image`` ``[n]``: robust accuracy under a separate SDNN less that of confidence; ``lost``: clean accuracy less.
    """
    found = []
    for key in attacks(run):
        network, attacked = key[1], choices.attacked_by_static(run, "test")[key]
        seen, macs, every = choices.clean_answers(run, "validation")[network], costs(network), settings(run, network)
        for patience, mechanism in every["patience"].items():
            spent = (mechanism.decide(seen.answers, macs).cost.double().mean() / macs[-1]).item()
            if (other := at_cost(every[CONFIDENCE], seen.answers, macs, spent)) is None:
                continue
            patient, confident = judged(run, attacked, {"patience": mechanism, CONFIDENCE: other}).itertuples()
            found.append(
                {"network": network, "dataset": network.dataset, "patience": patience, "cost": patient.cost}
                | {
                    "per_image": patient.robust.astype(float) - confident.robust,
                    "lost": confident.clean.mean() - patient.clean.mean(),
                }
            )
    return pd.DataFrame(found)


def beside_confidence(run: str) -> pd.DataFrame:
    """The rules at each budget under a separate SDNN, one by one: a row for each network, ``budget`` and ``rule``.

    Columns as of ``judged``, ``dataset``, and ``per_image`` ``[n]``: robust accuracy less that of confidence at the same budget.
    """
    found = []
    for key in attacks(run):
        for budget in BUDGETS:
            table = judged(run, choices.attacked_by_static(run, "test")[key], matched(run, key[1], budget)).assign(budget=budget)
            for start in table.robust[table.rule == CONFIDENCE]:
                per_image = [robust.astype(float) - start for robust in table.robust]
                found.append(table.assign(dataset=key[1].dataset, per_image=per_image))
    return pd.concat(found, ignore_index=True)


def directions(run: str, radius: dict[str, float]) -> pd.DataFrame:
    """C1's main reading by each rule at ``MAIN_BUDGET``: rows of ``transfer.directions`` with ``rule``, ``dataset`` and ``model``.

    The examples were made on the network as deployed by the profile's mechanism: the attacker does not know the rule.
    """
    records, clean, found = measured(run, "transfer"), measured(run, "clean"), []
    for rule in RULES:
        decide = deciding(run, rule)
        table = transfer.directions(records.shown(mechanism=decide), transfer.right_when_clean(clean, mechanism=decide))
        found.append(table[[n.kind == "dynn" and rule in matched(run, n) for n in table.network]].assign(rule=rule))
    both = transfer.with_cell(pd.concat(found, ignore_index=True), "network")
    return both[transfer.is_main(both) & transfer.at_radius(both, radius)]


def surfaces(run: str, radius: dict[str, float]) -> pd.DataFrame:
    """What the attacks on a network that want only the network as deployed to err do to it by each rule at ``MAIN_BUDGET``.

    A row for each ``network`` and ``rule``, with ``dataset`` and ``model``; ``per_image`` ``[n]`` is 1 where one of the attacks at
    the radius makes only the network as deployed err, NaN where the clean image is not classified correctly, as deployed and at the
    final exit. The attacker knows the profile's mechanism, not the rule.
    """
    records, quiet = measured(run, "surface"), choices.clean_answers(run, "test")
    wanted = {name for name, about in records.attacks.iterrows() if about.goal == surface.GOAL}
    shown: dict[Network, list[Seen]] = {}
    for seen in records.seen():
        right_radius = records.attacks.eps_255[seen.attack] == radius.get(seen.target.dataset)
        if seen.source == seen.target and seen.target.kind == "dynn" and seen.attack in wanted and right_radius:
            shown.setdefault(seen.target, []).append(seen)
    found = []
    for network, attacks_on_it in shown.items():
        truth = attacks_on_it[0].truth
        clean = quiet[network].answers.images(slice(len(truth)))
        for rule, mechanism in matched(run, network).items():
            opened = [(mechanism.answer(s.answers) != truth) & (s.answers.label[-1] == truth) for s in attacks_on_it]
            counts = (mechanism.answer(clean) == truth) & (clean.label[-1] == truth)
            per_image = np.where(counts, torch.stack(opened).any(dim=0).double(), np.nan)
            found.append({"network": network, "rule": rule, "per_image": per_image})
    table = pd.DataFrame(found, columns=["network", "rule", "per_image"])
    return transfer.with_cell(table.sort_values("rule", key=lambda rules: rules.map(RULES.index), kind="stable"), "network")


def curves(run: str) -> pd.DataFrame:
    """Each rule over its settings under a separate SDNN: the means over a data set's networks, setting by setting.

    ``dataset``, ``rule``, ``setting``, and as shares ``cost``, and ``clean`` and ``robust`` with their intervals over images, such
    as ``clean_low``; ``n`` is the number of images. Of the settings on ``GRID`` every tenth is kept, and all near the ends; of
    patience those that all networks have.
    """
    rows = []
    for key in attacks(run):
        attacked, network = choices.attacked_by_static(run, "test")[key], key[1]
        for rule, every in settings(run, network).items():
            kept = {s: one for s, one in every.items() if rule == "patience" or round(200 * s) % 10 == 0 or not 0.05 < s < 0.95}
            table = judged(run, attacked, kept).rename(columns={"rule": "setting"})
            rows.append(table.assign(rule=rule, dataset=network.dataset, n=len(attacked.truth)))
    found, joined = [], pd.concat(rows)
    number = joined.groupby("dataset").network.nunique()
    for (dataset, rule, setting), same in joined.groupby(["dataset", "rule", "setting"], sort=False):
        if len(same) == number[dataset]:
            about = {"dataset": dataset, "rule": rule, "setting": setting, "cost": same.cost.mean(), "n": same.n.min()}
            for name in ("clean", "robust"):
                measured_so = [of(values.astype(float), n) for n, values in zip(same.network, same[name], strict=True)]
                about |= stats.pooled_mean(measured_so).columns(name, f"{name}_")
            found.append(about)
    return pd.DataFrame(found)
