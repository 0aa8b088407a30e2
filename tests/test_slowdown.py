"""Attacks on speed: what efficacy is, and what the analyses make of costs."""

import numpy as np
import pandas as pd
import pytest

from dynlib.analysis import slowdown
from dynlib.analysis.measured import measured
from dynlib.files import CHECKPOINTS
from dynlib.networks.checkpoints import read_card
from dynlib.networks.identity import Network

NETWORK = Network("cifar10", "resnet56", seed=1)
COSTS = np.array([0.25, 0.25, 0.5, 1.0])


def test_efficacy_is_the_area_under_the_curve():
    """By the definition: the share of images that have been answered, over the share of the full cost."""
    grid = np.linspace(0, 1, 100_001)
    answered = (COSTS[:, None] <= grid).mean(axis=0)
    assert slowdown.efficacy(COSTS) == pytest.approx(np.trapezoid(answered, grid), abs=1e-4)
    assert (slowdown.efficacy(np.zeros(3)), slowdown.efficacy(np.ones(3))) == (1, 0)


def effect(eps, cost, who=slowdown.OWN, network=NETWORK):
    return {"network": network, "who": who, "n": 4, "dataset": "cifar10", "eps_255": eps, "cost": cost, "clean_cost": COSTS}


def test_the_curve_counts_who_has_been_answered():
    table = pd.DataFrame([effect(2.0, np.ones(4))])
    found = slowdown.answered(table, np.array([0.25, 0.5, 1.0])).set_index(["eps_255", "cost"]).value
    assert found[0.0].tolist() == [0.5, 0.75, 1.0]
    assert found[2.0].tolist() == [0.0, 0.0, 1.0]


def test_beyond_half(monkeypatch):
    slow, other = np.ones(4), COSTS
    rows = [effect(2.0, slow), effect(4.0, COSTS), effect(2.0, slow, slowdown.ACROSS), effect(2.0, other, slowdown.ACROSS)]
    monkeypatch.setattr(slowdown, "effects", lambda run, mechanism=None: pd.DataFrame(rows))
    saved = 1 - COSTS.mean()
    for eps, who, value in (
        (2.0, slowdown.OWN, saved / 2),  # nothing is left
        (4.0, slowdown.OWN, -saved / 2),  # all is
        (2.0, slowdown.ACROSS, 0.0),  # one of two sources takes all, the other nothing
    ):
        (found,) = slowdown.beyond_half("run", {"cifar10": eps}, who)
        assert found.values.mean() == pytest.approx(value)
    assert slowdown.beyond_half("run", {"cifar10": 8.0}) == []


def test_a_published_efficacy_by_another_path():
    """Image by image and exit by exit, as a deployed network walks."""
    table = slowdown.effects("published")
    row = table[(table.network == NETWORK) & (table.who == slowdown.OWN) & (table.eps_255 == 1)].iloc[0]
    names = measured("published", slowdown.CAMPAIGN).attacks.eps_255
    attacked = next(
        s for s in slowdown.seen_by_dynamic("published") if s.source == s.target == NETWORK and names[s.attack] == row.eps_255
    )
    quiet = next(s for s in measured("published", "clean").seen() if s.target == NETWORK)
    macs = read_card(NETWORK.path(CHECKPOINTS))["macs"]
    for answers, expected in ((quiet.answers, row.clean), (attacked.answers, row.attacked)):
        spent = []
        for image in range(row.n):
            sure = [k for k, confidence in enumerate(answers.confidence[:, image].tolist()) if confidence >= 0.9]
            spent.append(macs[sure[0] if sure else -1] / macs[-1])
        assert expected == pytest.approx(1 - sum(spent) / len(spent))
    assert row.attacked < row.clean / 2
