from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dynlib.attacks import FGSM, GOALS, PGD
from dynlib.attacks.losses import LOSSES, get_loss, on_one_exit
from dynlib.attacks.tools import uniform_noise
from dynlib.mechanisms import Answers, ConfidenceExit, Deployed, PatienceExit, ThresholdPerExit
from tests.conftest import small_network

LABELS = torch.zeros(4, dtype=torch.int64)


def test_goals_by_hand():
    """Label 0, three exits; the first is always confident and answers."""
    logits = 5.0 * F.one_hot(torch.tensor([[1, 1, 0, 0], [2, 0, 0, 1], [0, 1, 1, 0]]), 3)
    expected = {
        "misclassify": [True, True, False, False],
        "open_surface": [True, False, False, False],
        "mirror": [False, False, True, False],
        "strict": [True, False, False, False],
        "slow_down": [False, False, False, False],
        "slow_and_wrong": [False, False, False, False],
    }
    assert {name: goal.reached(logits, LABELS, ConfidenceExit(0.9)).tolist() for name, goal in GOALS.items()} == expected


@pytest.mark.parametrize("goal", ["open_surface", "mirror", "strict", "slow_down", "slow_and_wrong"])
def test_a_static_network_cannot_have_every_goal(goal):
    with pytest.raises(ValueError, match=f"no early exits, which goal '{goal}' needs"):
        FGSM(goal=goal)(small_network(1), torch.rand(4, 3, 32, 32), LABELS)


@pytest.mark.parametrize("mechanism", [ConfidenceExit(0.5), ThresholdPerExit((0.4, 0.6)), PatienceExit(1)])
def test_slowed_down_is_who_costs_all_there_is(mechanism):
    """From all exits, from the early ones alone, and as the network is run."""
    logits = 3 * torch.randn(3, 200, 10, generator=torch.Generator().manual_seed(0))
    labels, costs, goal = torch.zeros(200, dtype=torch.int64), torch.tensor([1, 2, 3]), GOALS["slow_down"]
    slow = mechanism.decide(Answers.of(logits), costs).cost == 3
    assert 0 < slow.sum() < 200
    assert goal.reached(logits, labels, mechanism).equal(slow)
    assert goal.noticed(logits[:2], labels, mechanism, 3).equal(slow)
    assert not goal.noticed(logits[:1], labels, mechanism, 3).any()
    both, wrong = GOALS["slow_and_wrong"], mechanism.answer(Answers.of(logits)) != labels
    assert both.reached(logits, labels, mechanism).equal(slow & wrong)
    assert not both.noticed(logits[:2], labels, mechanism, 3).any()  # who answers is not known yet
    net, images = small_network(3), torch.rand(20, 3, 32, 32)
    with torch.no_grad():
        for one in (goal, both):
            assert one.holds(net, images, labels[:20], mechanism).equal(one.reached(net(images), labels[:20], mechanism))


def test_early_exits_pushed_to_uniform_by_a_plain_formula():
    logits = torch.randn(2, 5, 10)  # of two early exits
    expected = torch.stack([sum(torch.log_softmax(exit[k], 0).sum() / 10 for exit in logits) / 2 for k in range(5)])
    torch.testing.assert_close(LOSSES["uniform"](logits, LABELS, ConfidenceExit()), expected)
    with_final = torch.cat([logits, torch.randn(1, 5, 10)])
    own = torch.zeros(5, dtype=torch.int64)
    with_final[-1, :2, 0] = torch.tensor([-9.0, 9.0])  # of one image another class is far ahead, which counts as 1
    expected += (with_final[-1, :, 1:].amax(dim=-1) - with_final[-1, :, 0]).clamp(max=1)
    torch.testing.assert_close(LOSSES["slow_and_wrong"](with_final, own, ConfidenceExit()), expected)
    assert LOSSES["uniform"].depth(small_network(3), ConfidenceExit(), torch.rand(4, 3, 32, 32))[0].tolist() == [1] * 4
    with pytest.raises(ValueError, match="no early exits"):
        PGD(loss="uniform")(small_network(1), torch.rand(4, 3, 32, 32), LABELS)


def test_slowing_a_shipped_network_down(dynn, sample):
    """Nearly all that there is to save is lost; an attack that stays where it starts changes little."""
    images, labels = sample[0][:40], sample[1][:40]
    settings = {"loss": "uniform", "goal": "slow_down"}
    result, idle = (kind(**settings)(dynn, images, labels) for kind in (PGD, StartOnly))
    clean, slowed, started = (
        (PGD().mechanism.run(dynn, x).cost / dynn.macs[-1]).mean() for x in (images, result.adversarial, idle.adversarial)
    )
    assert clean < 0.7
    assert started < 0.8
    assert slowed > 0.97
    assert result.reached.equal(PGD().mechanism.run(dynn, result.adversarial).cost == dynn.macs[-1])
    stopped = PGD(**settings, early_stop=True)(dynn, images, labels)
    assert (stopped.steps < 10).any()
    assert stopped.reached[stopped.steps < 10].all()
    assert (stopped.macs == 2 * dynn.macs[-2] * (stopped.steps + (stopped.steps < 10))).all()  # the final exit is not run


def test_margin_pulls_where_cross_entropy_does_not(dynn, sample):
    """With a last layer of a hundred times the weight, cross-entropy is 0 and flat for most images."""
    images, labels = sample[0][:24], sample[1][:24]
    sharp = deepcopy(dynn)
    sharp.backbone.head[-1].weight.data *= 100
    sharp.backbone.head[-1].bias.data *= 100
    settings = {"steps": 5, "goal": "misclassify", "eps": 4 / 255, "mechanism": ConfidenceExit(0.999, "final")}
    with pytest.warns(UserWarning, match="the gradient was zero on every pixel"):
        flat = PGD(loss="final", **settings)(sharp, images, labels)
    steep = PGD(loss="final/margin", **settings)(sharp, images, labels)
    assert flat.stuck.sum() > 6
    assert not steep.stuck.any()
    fooled = [(sharp(found.adversarial)[-1].argmax(dim=-1) != labels).sum() for found in (flat, steep)]
    assert fooled[1] > fooled[0] + 6


@pytest.mark.parametrize("place", ["final", "taken", "answering", "average", "exit=1", "max_average"])
def test_margin_stands_at_the_places_of_cross_entropy(place):
    net, mechanism, images = small_network(3), ConfidenceExit(0.12), torch.rand(4, 3, 32, 32)
    usual, margin = get_loss(place), get_loss(f"{place}/margin")
    assert margin.display == f"{usual.display}, margin"
    if place == "max_average":
        assert [(loss.exit, loss.criterion) for loss in margin.candidates(net)] == [(k, "margin") for k in range(3)]
        return
    depths = [loss.depth(net, mechanism, images)[0] for loss in (usual, margin)]
    assert depths[0].equal(depths[1])
    logits = torch.randn(3, 4, 10)
    wrong = torch.tensor([[max(exit[k, 1:]) - exit[k, 0] for k in range(4)] for exit in logits])  # the label is 0
    answering, _ = mechanism.answering(Answers.of(logits))
    expected = {"average": wrong.mean(dim=0), "answering": wrong[answering, torch.arange(4)]}.get(place, wrong[-1])
    torch.testing.assert_close(margin(logits, LABELS, mechanism), expected)


@pytest.mark.parametrize("name", ["early/margin", "uniform/margin", "final/", "final/cross-entropy", "exit=/margin", "margin"])
def test_only_places_have_a_criterion(name):
    with pytest.raises(ValueError, match="unknown loss"):
        get_loss(name)


def test_losses_on_one_exit():
    names = ("average", "taken/margin", "early=margin/equal", "uniform")
    assert [on_one_exit(name) for name in names] == ["final", "final/margin", "final", "final"]


def test_zero_gradients_are_counted():
    net = small_network(2)
    for weight in (net.exits[0][-1].weight, net.backbone.head[-1].weight):
        weight.data.zero_()
    with pytest.warns(UserWarning, match="4 of 4 images"):
        assert PGD(steps=2)(net, torch.rand(4, 3, 32, 32), LABELS).stuck.all()


def test_numbers_that_are_not_finite_are_refused():
    net = small_network(2)
    net.backbone.head[-1].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="logits of the attack has numbers that are not finite"):
        FGSM()(net, torch.rand(4, 3, 32, 32), LABELS)


def test_noise_does_not_depend_on_memory_layout():
    images = torch.rand(4, 3, 32, 32)
    assert uniform_noise(images.contiguous(memory_format=torch.channels_last), 0).equal(uniform_noise(images, 0))


def test_inference_mode_and_numpy_seeds_change_nothing():
    net, images = small_network(2), torch.rand(4, 3, 32, 32)
    usual = PGD(steps=2, seed=3)(net, images, LABELS).adversarial
    with torch.inference_mode():
        assert PGD(steps=2, seed=np.int64(3))(net, images.clone(), LABELS).adversarial.equal(usual)
    assert PGD(steps=2, seed=3)(net, images.clone().requires_grad_(), LABELS).adversarial.equal(usual)


@dataclass(frozen=True, kw_only=True)
class StartOnly(PGD):
    """Never leaves its random start."""

    def step(self, adversarial, direction):
        return adversarial


def test_restarts_keep_the_first_that_reaches_the_goal():
    net, images = small_network(2), torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = ConfidenceExit().run(net, images).label
    settings = {"eps": 1.0, "steps": 1, "goal": "misclassify"}
    one, many = (StartOnly(restarts=n, **settings)(net, images, labels) for n in (1, 5))
    assert (many.reached | ~one.reached).all()
    assert many.reached.sum() > one.reached.sum()
    assert many.adversarial[one.reached].equal(one.adversarial[one.reached])
    assert (many.steps == 5).all()
    assert many.macs.equal(5 * one.macs)


def test_restarts_out_of_range():
    with pytest.raises(ValueError, match="restarts 0"):
        PGD(restarts=0)
    with pytest.raises(ValueError, match="draws nothing"):
        FGSM(restarts=2)


def test_answering_is_the_loss_of_the_network_as_deployed():
    net, mechanism = small_network(3), ConfidenceExit(0.12)
    images = torch.rand(4, 3, 32, 32)
    expected = F.cross_entropy(Deployed(net, mechanism)(images), LABELS, reduction="none")
    torch.testing.assert_close(LOSSES["answering"](net(images), LABELS, mechanism), expected)


def test_displays_count_exits_from_one():
    assert [get_loss(name).display for name in ("exit=0", "exit=1", "final")] == ["exit 1", "exit 2", "final exit"]
