from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dynlib.attacks import FGSM, GOALS, PGD
from dynlib.attacks.losses import LOSSES, get_loss
from dynlib.attacks.tools import uniform_noise
from dynlib.mechanisms import ConfidenceExit, Deployed
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
    }
    assert {name: goal.reached(logits, LABELS, ConfidenceExit(0.9)).tolist() for name, goal in GOALS.items()} == expected


@pytest.mark.parametrize("goal", ["open_surface", "mirror", "strict"])
def test_a_static_network_cannot_have_every_goal(goal):
    with pytest.raises(ValueError, match=f"no early exits, which goal '{goal}' needs"):
        FGSM(goal=goal)(small_network(1), torch.rand(4, 3, 32, 32), LABELS)


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
