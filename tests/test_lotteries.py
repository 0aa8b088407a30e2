"""Cheap defences: what a lottery over designs is worth under the attack that is worst for each image."""

import numpy as np
import pandas as pd
import pytest
import torch

from dynlib.analysis import lotteries
from dynlib.analysis.design import Design
from dynlib.analysis.lotteries import DEFAULT, LEFT_OUT, STATIC, Pool, mixed
from dynlib.analysis.measured import Seen, measured
from dynlib.mechanisms import Answers, ConfidenceExit
from dynlib.networks.identity import Network

DYNN = Network("cifar10", "resnet56")
DEPLOYED, ALONE = Design(tuple(range(7)), ConfidenceExit()), Design((6,), ConfidenceExit())


def seen(first, final, truth=0):
    """Of each image the label of the first exit, which is sure, and of the final one; the others are unsure."""
    n = len(first)
    label = torch.full((7, n), 9)
    label[0], label[6] = torch.tensor(first), torch.tensor(final)
    confidence = torch.full((7, n), 0.2)
    confidence[0] = 0.99
    return Seen(DYNN, DYNN, "a", torch.full((n,), truth), Answers(label, confidence, confidence, confidence))


# Three images are right when clean, the last is not. One attack turns the first exit of two images, the other both exits of one.
QUIET = seen([0, 0, 0, 1], [0, 0, 0, 1])
ATTACKS = [seen([1, 1, 0, 1], [0, 0, 0, 1]), seen([0, 1, 0, 1], [0, 1, 0, 1])]


def test_each_image_meets_its_worst_attack():
    pool = Pool(QUIET, ATTACKS, [DEPLOYED, ALONE])
    deployed, alone = pool.judge({DEPLOYED: 1.0}), pool.judge({ALONE: 1.0})
    assert deployed.clean.tolist() == [1, 1, 1, 0]
    assert deployed.robust.tolist() == [0, 0, 1, 0]
    assert alone.robust.tolist() == [1, 0, 1, 0]
    assert deployed.shut.tolist() == [0, 0, 1, 1]  # the surface of the first two is open to the first attack
    assert alone.shut.tolist() == [1, 1, 1, 1]  # it has none
    assert deployed.cost < 0.2 < 0.9 < alone.cost < 1  # no head is paid for


def test_an_attacker_sees_the_lottery_and_not_the_draw():
    """Which attack is worst depends on the chances: the second image falls to one of them with any draw."""
    pool = Pool(QUIET, ATTACKS, [DEPLOYED, ALONE])
    lottery = mixed({DEPLOYED: 1.0}, {ALONE: 1.0}, 0.25)
    assert lottery == {DEPLOYED: 0.75, ALONE: 0.25}
    judged = pool.judge(lottery)
    assert judged.robust.tolist() == [0.25, 0, 1, 0]
    assert judged.cost == pytest.approx(0.75 * pool.cost[DEPLOYED] + 0.25 * pool.cost[ALONE])


def test_full_runs_cost_what_they_are_to_cost():
    pool = Pool(QUIET, ATTACKS, [DEPLOYED, ALONE])
    cheap, dear = {DEPLOYED: 1.0}, {ALONE: 1.0}
    for cost, share in ((pool.judge(mixed(cheap, dear, 0.3)).cost, 0.3), (0.0, 0), (1.0, 1)):
        assert pool.share_that_costs(cost, cheap, dear) == pytest.approx(share)


def test_lotteries_of_a_network():
    found = lotteries.lotteries(DYNN, ConfidenceExit())
    assert set(found) == {DEFAULT, STATIC, *lotteries.DEFENCES}
    assert all(sum(lottery.values()) == pytest.approx(1) for lottery in found.values())
    assert found[DEFAULT] == {DEPLOYED: 1}
    assert {design.exits for design in found[LEFT_OUT]} == {tuple(k for k in range(7) if k != out) for out in range(6)}


@pytest.mark.parametrize("run", ["published"])
def test_every_defence_is_attacked_by_someone_who_knows_it(run):
    campaign = measured(run, lotteries.CAMPAIGN).campaign
    for name in ("pgd", "early_pgd"):
        assert {*lotteries.RULES.values()} <= {p.attack.mechanism for p in campaign.attacks if p.attack.name == name}


def test_a_published_defence_by_another_path():
    """Two exits that agree, image by image and exit by exit, under every attack that was made on the network."""
    network = Network("cifar10", "resnet56", seed=1)
    table = lotteries.beside_full_runs("published")
    row = table[(table.network == network) & (table.defence == "two exits agree")].iloc[0]
    worst = None
    for name in ("clean", *lotteries.CAMPAIGNS):
        records = measured("published", name)
        for one in records.seen():
            if not one.source == one.target == network or records.attacks.eps_255[one.attack] not in (0, 2):
                continue
            right = []
            for image in range(200):
                labels, sure = one.answers.label[:, image].tolist(), one.answers.confidence[:, image].tolist()
                leaves = [k for k in range(1, 7) if labels[k] == labels[k - 1] and sure[k] >= np.float32(0.9)]
                right.append(labels[leaves[0] if leaves else -1] == one.truth[image].item())
            worst = np.array(right) if worst is None else worst & np.array(right)
    assert row.robust.tolist() == worst.astype(float).tolist()
    assert 0 < row.robust.mean() < row.clean.mean()


def test_the_defence_is_chosen_on_validation_images(monkeypatch):
    """Furthest ahead there, of those that lose no accuracy; its gain is that on test images."""
    good, poor = np.full(100, 0.9), np.full(100, 0.8)
    rows = {  # of each defence: clean accuracy, and how far it is ahead on validation and on test images
        "final exit falls back": (good, 0.1, -0.2),
        "threshold 0.99": (good, 0.2, -0.3),
        "two exits agree": (poor, 0.9, 0.9),
        LEFT_OUT: (good, 0.0, 0.5),
    }

    def table(run, split="test", knowing=True, eps=None):
        ahead = {name: validation if split == "validation" else test for name, (_, validation, test) in rows.items()}
        return pd.DataFrame(
            {
                "network": DYNN,
                "defence": name,
                "clean": clean,
                "full_clean": good,
                "robust": ahead[name] + good,
                "full_robust": good,
            }
            for name, (clean, _, _) in rows.items()
        )

    monkeypatch.setattr(lotteries, "beside_full_runs", table)
    monkeypatch.setattr(lotteries, "networks", lambda run: [DYNN])
    assert lotteries.chosen("run") == {DYNN: "threshold 0.99"}
    assert lotteries.gains("run")[0].values.mean() == pytest.approx(-0.3)
    assert lotteries.gains("run", defence=LEFT_OUT)[0].values.mean() == pytest.approx(0.5)
    for name in ("final exit falls back", "threshold 0.99", LEFT_OUT):
        rows[name] = (poor, *rows[name][1:])
    assert lotteries.chosen("run") == {DYNN: DEFAULT}
    assert lotteries.gains("run")[0].values.tolist() == [0] * 100
