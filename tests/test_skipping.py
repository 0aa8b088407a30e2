"""The network that skips blocks in the published records: its numbers by another path, image by image."""

import numpy as np
import pytest
import torch

from dynlib import data
from dynlib.analysis import skipping, slowdown
from dynlib.analysis.measured import measured
from dynlib.files import CHECKPOINTS
from dynlib.networks.checkpoints import load_network, read_card
from dynlib.networks.identity import Network

GATED = Network("cifar10", "resnet56", "gates", seed=1)
RUN = "published"


def on_itself(campaign, network, **wanted):
    """What a network answers to the examples that an attack with these settings made on it."""
    records = measured(RUN, campaign)
    fits = {name for name, row in records.attacks.iterrows() if all(row[key] == value for key, value in wanted.items())}
    return next(s for s in records.seen() if s.attack in fits and s.source == s.target == network)


def test_what_gates_save_is_what_was_run():
    """From the costs that the records keep, and for clean images from the network itself."""
    full = read_card(GATED.path(CHECKPOINTS))["macs"][-1]
    table = skipping.saved(RUN)
    rows = table[table.how == skipping.GATES].set_index("eps_255").saving
    for eps in (1.0, 8.0):
        costs = on_itself(skipping.CAMPAIGN, GATED, loss="gates", eps_255=eps).answers.cost[0].tolist()
        assert rows[eps] == pytest.approx(1 - sum(costs) / len(costs) / full)
    images = data.load("cifar10", "test", 200).inputs
    with torch.no_grad():
        macs = load_network(GATED).run(images)[1]
    assert rows[0.0] == pytest.approx(1 - macs.double().mean().item() / full, abs=0.005)  # another processor rounds otherwise
    assert rows[0.0] > rows[1.0] > rows[8.0] > 0


def test_gate_use_adds_up_to_what_a_run_costs():
    use, rows = skipping.gate_use(RUN, 200), skipping.saved(RUN)
    saved = rows[(rows.how == skipping.GATES) & (rows.eps_255 == 0)].saving.iloc[0]
    assert ((1 - use.open) * use.cost).sum() == pytest.approx(saved, abs=0.005)


def test_who_is_fooled_counts_what_both_classify_correctly():
    table, static = skipping.fooled(RUN), GATED.static
    row = table[(table.source == static) & (table.target == GATED) & (table.eps_255 == 2)].iloc[0]
    clean = {s.target: s for s in measured(RUN, "clean").seen() if s.target in (static, GATED)}
    both = [all((clean[n].answers.label[-1] == clean[n].truth)[k] for n in (static, GATED)) for k in range(200)]
    records = measured(RUN, skipping.CAMPAIGN)
    attacked = next(s for s in records.seen() if (s.source, s.target) == (static, GATED) and records.attacks.eps_255[s.attack] == 2)
    wrong = (attacked.answers.label[-1] != attacked.truth).tolist()
    assert row.n == sum(both)
    assert row.rate == pytest.approx(np.mean([w for w, counts in zip(wrong, both, strict=True) if counts]))


def test_wrong_and_slow_at_once_by_another_path():
    network = Network("cifar10", "resnet56", seed=1)
    table = slowdown.pursued(RUN, {"cifar10": 2.0, "cifar100": 2.0})
    row = table[(table.network == network) & (table.wanted == "to be both")].iloc[0]
    answers = on_itself(slowdown.CAMPAIGN, network, loss="slow_and_wrong", eps_255=2.0)
    found = []
    for image, truth in enumerate(answers.truth.tolist()):
        confidence, label = answers.answers.confidence[:, image].tolist(), answers.answers.label[:, image].tolist()
        slow = max(confidence[:-1]) < np.float32(0.9)
        found.append(slow and label[confidence.index(max(confidence))] != truth)
    assert row.both.tolist() == found
    assert 0 < row.both.mean() <= min(row.wrong.mean(), row.slow.mean())
