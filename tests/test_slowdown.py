"""Attacks on speed: what efficacy is, and what the analyses make of costs."""

import numpy as np
import pandas as pd
import pytest

from dynlib.analysis import slowdown
from dynlib.networks.identity import Network

NETWORK = Network("cifar10", "resnet56")
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
