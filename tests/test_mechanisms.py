"""A mechanism decides the same from stored answers, from logits and in ``run``, whatever the batch."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from dynlib.mechanisms import (
    FALL_BACKS,
    AgreementExit,
    Answers,
    ConfidenceExit,
    Decision,
    Deployed,
    EntropyExit,
    Mechanism,
    PatienceExit,
    ThresholdPerExit,
)
from dynlib.networks.backbones import Backbone
from dynlib.networks.exits import MultiExitNetwork


def tiny(n_exits):
    """A network of ``n_exits`` small blocks, whose exits are of very different confidence."""
    torch.manual_seed(n_exits)
    blocks = [nn.Sequential(nn.Conv2d(3, 3, 3, 1, 1), nn.Tanh()) for _ in range(n_exits)]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10))
    net = MultiExitNetwork(Backbone(nn.Identity(), blocks, head), "cifar10", range(1, n_exits)).eval()
    with torch.no_grad():
        for k, exit in enumerate([*net.exits, net.backbone.head]):
            exit[-1].weight.mul_(4 + 12 * torch.rand(()))
            exit[-1].bias.mul_(k % 3)
    return net


NETS = {n: tiny(n) for n in (2, 7, 28)}
# Two by two large patches, so that images differ from each other.
IMAGES = torch.rand(24, 3, 2, 2, generator=torch.Generator().manual_seed(0)).repeat_interleave(16, 2).repeat_interleave(16, 3)
with torch.no_grad():
    LOGITS = {n: net(IMAGES) for n, net in NETS.items()}


@pytest.mark.parametrize(
    "mechanism", [ConfidenceExit(0.3), EntropyExit(0.8), PatienceExit(1), AgreementExit(0.2), ThresholdPerExit((0.3,) * 6)]
)
def test_mechanisms_do_different_things_with_different_images(mechanism):
    """Or tests of them would see nothing."""
    exits = mechanism.decide(Answers.of(LOGITS[7]), NETS[7].macs).exit
    assert len(exits.unique()) > 1
    assert exits.min() < 6


@pytest.mark.parametrize("fall_back", FALL_BACKS)
@pytest.mark.parametrize("threshold", [0.15, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("which", ["dynn", "sdnn", "untrained"])
def test_skipping_changes_no_decision_of_a_shipped_network(request, sample, which, threshold, fall_back):
    net, images = request.getfixturevalue(which), sample[0][:64]
    mechanism = ConfidenceExit(threshold, fall_back)
    with torch.no_grad():
        expected = mechanism.decide(Answers.of(net(images)), net.macs)
    seen = mechanism.run(net, images)
    for name in Decision._fields:
        assert getattr(seen, name).equal(getattr(expected, name)), name


def test_what_is_skipped_is_not_computed(dynn, sample):
    computed = []
    hooks = [exit.register_forward_hook(lambda module, inputs, output: computed.append(len(output))) for exit in dynn.exits]
    depth = torch.searchsorted(dynn.macs, ConfidenceExit(0.9).run(dynn, sample[0]).cost)
    for hook in hooks:
        hook.remove()
    assert computed == [(depth >= k).sum().item() for k in range(dynn.n_exits - 1)]
    assert computed[-1] < computed[0]  # on these images and this network some do leave early


COSTS = torch.tensor([10, 20, 40])
# Two classes, three exits; images: sure at exit 1, sure at exit 2, never sure but most so at exit 1, tie of the last two.
P = torch.tensor([[0.95, 0.6, 0.8, 0.5], [0.6, 0.05, 0.3, 0.2], [0.3, 0.4, 0.6, 0.8]])
BY_HAND = Answers.of(torch.stack([P, 1 - P], dim=-1).log())


def test_answers_by_hand():
    assert BY_HAND.label[:, 1].tolist() == [0, 1, 1]
    assert BY_HAND.confidence[:, 1].tolist() == pytest.approx([0.6, 0.95, 0.6], abs=1 / 65535)  # in these steps
    assert BY_HAND.margin[:, 1].tolist() == pytest.approx([0.2, 0.9, 0.2], abs=1 / 65535)
    assert BY_HAND.entropy[0].tolist() == pytest.approx([0.286, 0.971, 0.722, 1], abs=1e-3)  # in bits, as there are two classes


def test_certain_answers_have_no_entropy():
    assert Answers.of(torch.tensor([[[500.0, 0.0, 0.0]]])).entropy.item() == 0


@pytest.mark.parametrize(
    ("mechanism", "exits", "cost", "labels"),
    [
        (ConfidenceExit(0.9), [0, 1, 0, 1], [10, 20, 40, 40], [0, 1, 0, 1]),
        (ConfidenceExit(0.9, "final"), [0, 1, 2, 2], [10, 20, 40, 40], [0, 1, 0, 0]),
        (EntropyExit(0.5), [0, 1, 2, 2], [10, 20, 40, 40], [0, 1, 0, 0]),
        (EntropyExit(0.5, "most_confident"), [0, 1, 0, 1], [10, 20, 40, 40], [0, 1, 0, 1]),
        (PatienceExit(1), [1, 2, 2, 2], [20, 40, 40, 40], [0, 1, 0, 0]),
        (PatienceExit(2), [2, 2, 2, 2], [40, 40, 40, 40], [1, 1, 0, 0]),
        (AgreementExit(0.9), [2, 2, 2, 2], [40, 40, 40, 40], [1, 1, 0, 0]),
        (AgreementExit(0.6), [1, 2, 2, 2], [20, 40, 40, 40], [0, 1, 0, 0]),
        (ThresholdPerExit((0.75, 0.9)), [0, 1, 0, 2], [10, 20, 10, 40], [0, 1, 0, 0]),
    ],
)
def test_rules_by_hand(mechanism, exits, cost, labels):
    decision = mechanism.decide(BY_HAND, COSTS)
    assert decision.exit.tolist() == exits
    assert decision.cost.tolist() == cost
    assert decision.label.tolist() == labels


@dataclass(frozen=True)
class Gated(Mechanism):
    """Block skipping in place of exits: a block runs where the gate, the mean of its input, is above ``least``."""

    least: float

    @torch.no_grad()
    def run(self, net, images):
        features, per_block = net.normalise(images), 3 * 3 * 9 * 32 * 32
        cost = torch.full((len(images),), 48 * 10)  # the head always runs
        for block in net.backbone.blocks:
            opened = features.mean(dim=(1, 2, 3)) > self.least
            features[opened] = block(features[opened])
            cost += per_block * opened
        label = net.backbone.head(features).argmax(dim=-1)
        return Decision(label, torch.zeros_like(label), cost)


def test_a_mechanism_without_exits_fits_the_same_interface():
    net = NETS[7].with_exits([6])
    ran = []
    hooks = [block.register_forward_hook(lambda module, inputs, output: ran.append(len(output))) for block in net.backbone.blocks]
    decision = Gated(-0.05).run(net, IMAGES)
    for hook in hooks:
        hook.remove()
    assert decision.cost.sum() == 24 * 480 + 3 * 3 * 9 * 32 * 32 * sum(ran)  # what is counted is what has run
    assert 0 < sum(ran) < 7 * 24
    assert Gated(-1e9).run(net, IMAGES).label.equal(net(IMAGES)[-1].argmax(dim=-1))
    assert Gated(-1e9).run(net, IMAGES).cost.unique().tolist() == net.macs.tolist()


def test_deployed_module(dynn, sample):
    mechanism = ConfidenceExit(0.8)
    with torch.no_grad():
        labels = Deployed(dynn, mechanism)(sample[0]).argmax(dim=-1)
    assert labels.equal(mechanism.run(dynn, sample[0]).label)


def test_deployed_module_can_be_differentiated():
    images = IMAGES[:4].clone().requires_grad_()
    Deployed(NETS[7], ConfidenceExit(0.3))(images).sum().backward()
    assert (images.grad.flatten(1).abs().amax(dim=1) > 0).all()


ASKED = {
    "run": lambda net: ConfidenceExit().run(net, IMAGES),
    "deployed": lambda net: Deployed(net, ConfidenceExit())(IMAGES),
    "one exit": lambda net: net.as_static(0)(IMAGES),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_damaged_weights_are_refused(value, ask):
    net = tiny(2)
    net.exits[0][-1].weight.data[0, 0] = value
    with pytest.raises(ValueError, match="a logit is not finite"):
        ask(net)


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 1.5, float("nan")])
@pytest.mark.parametrize("mechanism", [ConfidenceExit, EntropyExit, AgreementExit])
def test_threshold_out_of_range(mechanism, threshold):
    with pytest.raises(ValueError, match=r"outside|finite"):
        mechanism(threshold)


def test_other_settings_out_of_range():
    with pytest.raises(ValueError, match="patience 0"):
        PatienceExit(0)
    with pytest.raises(ValueError, match=r"threshold 0\.0 is outside"):
        ThresholdPerExit((0.5, 0))
    for mechanism in (ConfidenceExit, EntropyExit):
        with pytest.raises(ValueError, match="unknown fall-back"):
            mechanism(0.9, "first")


@pytest.mark.parametrize("threshold", [0.01, 0.99])  # all images leave at once, or hardly any
@pytest.mark.parametrize("number", [1, 5, 7])
def test_a_wrong_number_of_thresholds_is_named(number, threshold):
    mechanism = ThresholdPerExit((threshold,) * number)
    with pytest.raises(ValueError, match=f"{number} thresholds for .*early exits"):
        mechanism.decide(Answers.of(LOGITS[7]), NETS[7].macs)
    with pytest.raises(ValueError, match=f"{number} thresholds for .*early exits"):
        mechanism.run(NETS[7], IMAGES)


@pytest.mark.parametrize("n_costs", [1, 6, 8])
def test_a_wrong_number_of_costs_is_named(n_costs):
    with pytest.raises(ValueError, match=f"{n_costs} costs for 7 exits"):
        ConfidenceExit().decide(Answers.of(LOGITS[7]), torch.arange(n_costs))


def test_answers_are_float32_whatever_the_logits_are():
    answers = Answers.of(LOGITS[7].double())
    assert {answers.confidence.dtype, answers.margin.dtype, answers.entropy.dtype} == {torch.float32}
