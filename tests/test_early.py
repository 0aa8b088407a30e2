import math
from functools import partial

import pytest
import torch
from torch import nn

from dynlib.attacks import PGD, EarlyAttack, EarlyPGD
from dynlib.attacks.goals import GOALS
from dynlib.attacks.losses import EARLY_VARIANTS, early_objective
from dynlib.mechanisms import ConfidenceExit
from tests.conftest import small_network


def own_labels(net, images):
    with torch.no_grad():
        return net(images)[-1].argmax(dim=-1)


@pytest.fixture
def batch(sample):
    """A small network with three exits, images, and what its final exit predicts for them."""
    net = small_network(3)
    return net, sample[0][:6], own_labels(net, sample[0][:6])


def plain_loop(net, image, label, start, steps, alpha, c, relu, classes):
    """The published attack as its formula says, on one image, without a thought of speed."""
    w = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([w], lr=0.01)
    mean, std = net.normalise.mean, net.normalise.std
    for _ in range(steps):
        x = (torch.tanh(w) + 1) / 2
        probabilities = [torch.softmax(exit[0], dim=0) for exit in net(x[None])]
        loss = (((x - mean) / std - (image - mean) / std) ** 2).sum()
        for p in probabilities[:-1]:
            loss = loss + c * p[label]
        for j in range(classes):
            if j != label:
                lead = probabilities[-1][label] - probabilities[-1][j]
                loss = loss - c * alpha * (torch.relu(lead) if relu else lead)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return (torch.tanh(w.detach()) + 1) / 2


@pytest.mark.parametrize(("alpha", "c", "relu", "classes"), [(1.0, 50.0, True, None), (0.1, 5.0, False, 7)])
def test_follows_the_plain_loop(batch, alpha, c, relu, classes):
    net, images, labels = batch
    attack = EarlyAttack(alpha=alpha, c=c, relu=relu, classes=classes, random_start=False, iterations=50)
    result = attack(net, images, labels)
    starts = torch.atanh((2 * images - 1).clamp(-1 + 1e-6, 1 - 1e-6))
    for k in range(len(images)):
        expected = plain_loop(net, images[k], labels[k].item(), starts[k], 50, alpha, c, relu, classes or 10)
        torch.testing.assert_close(result.adversarial[k], expected, atol=1e-4, rtol=0)
    assert (result.adversarial - images).abs().max() > 1e-3  # it went somewhere


def test_objective_by_hand():
    p = torch.tensor([[[0.6, 0.3, 0.1]], [[0.2, 0.5, 0.3]], [[0.5, 0.1, 0.4]]]).log()
    assert early_objective(p, torch.tensor([0]), alpha=2.0).item() == pytest.approx(0.6 + 0.2 - 2 * (0.4 + 0.1))
    assert early_objective(p, torch.tensor([0]), alpha=2.0, classes=2).item() == pytest.approx(0.8 - 2 * 0.4)
    overtaken = early_objective(p, torch.tensor([1]), alpha=2.0).item()
    assert overtaken == pytest.approx(0.3 + 0.5)  # the relu leaves what has overtaken alone
    assert early_objective(p, torch.tensor([1]), alpha=2.0, relu=False).item() == pytest.approx(0.8 + 2 * (0.4 + 0.3))


def test_success_by_hand():
    """Label 0. Image 1: both early exits differ, the final one does not. Image 2: one of them does. Image 3: the final one, too."""
    answers = torch.tensor([[1, 1, 1], [2, 0, 1], [0, 0, 1]])
    logits = 5.0 * torch.nn.functional.one_hot(answers, 3)
    labels = torch.zeros(3, dtype=torch.int64)
    assert GOALS["strict"].reached(logits, labels, ConfidenceExit(0.9)).tolist() == [True, False, False]
    assert GOALS["open_surface"].reached(logits, labels, ConfidenceExit(0.9)).tolist() == [True, True, False]


def test_finished_images_leave_and_the_rest_is_undisturbed(sample):
    net, images = small_network(3), sample[0][:12]
    torch.manual_seed(2)  # untrained weights whose exits say the same of some images and not of others
    for parameter in net.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)
    for head in (*(exit[-1] for exit in net.exits), net.backbone.head[-1]):
        head.weight.data *= 3
    labels = own_labels(net, images)
    attack = EarlyAttack(c=500.0, iterations=120, floor=5, learning_rate=0.05)
    together = attack(net, images, labels)
    assert len(together.steps.unique()) > 1
    assert together.reached[together.steps < 120].all()
    for k in range(0, len(images), 3):
        alone = attack(net, images[k : k + 1], labels[k : k + 1])
        torch.testing.assert_close(alone.adversarial[0], together.adversarial[k], atol=1e-4, rtol=0)
        assert alone.steps[0] == together.steps[k]
    assert (together.macs == 2 * net.macs[-1] * together.steps).all()


def test_start_is_random_as_published(batch):
    net, images, labels = batch
    one_step = EarlyAttack(iterations=1)(net, images, labels).adversarial
    assert one_step.min() > 0.5 - 0.01  # w in U(0, 1), moved by 0.01 at most
    assert one_step.max() < (math.tanh(1) + 1) / 2 + 0.01
    near = EarlyAttack(iterations=1, random_start=False)(net, images, labels).adversarial
    assert (near - images).abs().max() < 0.01


def test_fools_the_shipped_network_but_not_its_final_exit(dynn, sample):
    images = sample[0][:4]
    labels = own_labels(dynn, images)
    result = EarlyAttack(iterations=60, floor=20, learning_rate=0.05, random_start=False)(dynn, images, labels)
    with torch.no_grad():
        logits = dynn(result.adversarial)
    strict, surface = (GOALS[name].reached(logits, labels, ConfidenceExit(0.9)) for name in ("strict", "open_surface"))
    assert result.reached.equal(strict)
    assert (strict | surface).any()
    assert not result.stuck.any()


def test_in_bfloat16_as_well(dynn, sample):
    images = sample[0][:4]
    labels = own_labels(dynn, images)
    settings = {"iterations": 20, "floor": 15, "learning_rate": 0.05, "random_start": False}
    exact, rough = (EarlyAttack(**settings, precision=one)(dynn, images, labels) for one in ("float32", "bfloat16"))
    assert not rough.adversarial.equal(exact.adversarial)
    with torch.no_grad():
        early, logits = dynn(exact.adversarial), dynn(rough.adversarial)
    assert rough.reached.equal(GOALS["strict"].reached(logits, labels, ConfidenceExit(0.9)))
    turned = [(one[:-1].argmax(dim=-1) != labels).double().mean() for one in (early, logits)]
    assert turned[1] > 0.8 * turned[0] > 0.4


def test_inside_the_ball(dynn, sample):
    """The same goal by signed steps: more images on which the network as deployed errs and its final exit does not."""
    images = sample[0][:16]
    labels, mechanism = own_labels(dynn, images), ConfidenceExit(0.9)
    counts = {}
    for attack in (EarlyPGD(eps=4 / 255, steps=8), PGD(loss="final", eps=4 / 255, steps=8)):
        adversarial = attack(dynn, images, labels).adversarial
        assert (adversarial - images).abs().max() <= 4 / 255 + 1e-6
        with torch.no_grad():
            counts[attack.name] = GOALS["open_surface"].reached(dynn(adversarial), labels, mechanism).sum().item()
    assert counts["early_pgd"] > counts["pgd"] + 4


@pytest.mark.parametrize("goal", ["strict", "open_surface"])
def test_images_that_reach_the_goal_stay_there(dynn, sample, goal):
    images = sample[0][:12]
    labels = own_labels(dynn, images)
    result = EarlyPGD(eps=6 / 255, steps=10, goal=goal)(dynn, images, labels)
    with torch.no_grad():
        logits = dynn(result.adversarial)
    reached = GOALS[goal].reached(logits, labels, ConfidenceExit(0.9))
    assert result.reached.equal(reached)
    early = result.steps < 10
    assert early.any()
    assert reached[early].all()
    assert (result.macs == 2 * dynn.macs[-1] * (result.steps + early)).all()  # the pass that showed it is paid for


def test_variants_by_hand():
    """Three exits, one image of label 0, three classes."""
    p = torch.tensor([[[0.95, 0.04, 0.01]], [[0.2, 0.5, 0.3]], [[0.6, 0.1, 0.3]]])
    labels, mechanism, approx = torch.tensor([0]), ConfidenceExit(0.9), partial(pytest.approx, abs=1e-5)

    def value(evidence, weights, at=0.9):
        return EARLY_VARIANTS[f"early={evidence}/{weights}"](p.log(), labels, ConfidenceExit(at)).item()

    assert value("probability", "equal") == approx(2 * 0.6 - 0.95 - 0.2)
    assert value("probability", "confidence") == approx((0.95 + 0.5) * 0.6 - 0.95 * 0.95 - 0.5 * 0.2)
    assert value("probability", "answering") == approx(0.6 - 0.95)  # the first exit is confident
    assert value("probability", "answering", at=0.96) == approx(0.6 - 0.95)  # none is; the first is the most confident
    assert value("probability", "answering", at=0.55) == approx(0.6 - 0.95)
    assert value("log-probability", "equal") == approx(2 * math.log(0.6) - math.log(0.95) - math.log(0.2))
    lead = math.log(0.2 / 0.5)
    assert value("margin", "equal") == approx(2 * math.log(2) - math.log(0.95 / 0.04) - lead)
    far = torch.tensor([[[0.001, 0.998, 0.001]], [[0.001, 0.998, 0.001]], [[0.98, 0.01, 0.01]]]).log()
    assert EARLY_VARIANTS["early=margin/equal"](far, labels, mechanism).item() == approx(2 * 2 + 2 * 2)  # enough is enough
    last = torch.tensor([[[0.5, 0.3, 0.2]], [[0.4, 0.5, 0.1]], [[0.95, 0.04, 0.01]]]).log()
    assert EARLY_VARIANTS["early=probability/answering"](last, labels, mechanism).item() == approx(0.95 - 0.4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -1.0}, "alpha -1.0 is negative"),
        ({"c": -0.1}, "c -0.1 is negative"),
        ({"iterations": 0}, "at least 1"),
        ({"precision": "half"}, "unknown precision"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        EarlyAttack(**settings)


def test_bad_inputs(batch):
    net, images, labels = batch
    with pytest.raises(ValueError, match="not what the final exit predicts"):
        EarlyAttack(iterations=1)(net, images, (labels + 1) % 10)
    with pytest.raises(ValueError, match="not what the final exit predicts"):
        EarlyPGD()(net, images, (labels + 1) % 10)
    with pytest.raises(ValueError, match="unknown goal 'all'"):
        EarlyPGD(goal="all")
    with pytest.raises(ValueError, match="loss 'final' does not pursue"):
        EarlyPGD(loss="final")
    for attack in (EarlyAttack(iterations=1), EarlyPGD()):
        with pytest.raises(ValueError, match="no early exits"):
            attack(small_network(1), images, own_labels(small_network(1), images))
