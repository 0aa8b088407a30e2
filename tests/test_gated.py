"""A network with gates skips blocks image by image, counts what it runs, and is attacked, recorded and trained like any other."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dynlib import craft, records
from dynlib.analysis.design import Design, evaluate
from dynlib.analysis.measured import _blocks, kept_answers
from dynlib.attacks import PGD
from dynlib.behaviour import all_answers, describe
from dynlib.mechanisms import Answers, ConfidenceExit
from dynlib.networks import checkpoints
from dynlib.networks.backbones import MODELS, Backbone, BasicBlock, Model, conv_bn_relu
from dynlib.networks.checkpoints import CheckpointError
from dynlib.networks.exits import MultiExitNetwork, build
from dynlib.networks.folding import folded
from dynlib.networks.gated import GatedNetwork, gated
from dynlib.networks.identity import Network
from dynlib.networks.objectives import gates_loss
from dynlib.networks.queue import read_queue
from dynlib.networks.training import Training
from tests.conftest import killed_in_epoch, small_network

GATED = Network("cifar10", "resnet56", "gates")
MECHANISM = ConfidenceExit(0.9)
# Two by two large patches, so that images differ from each other.
IMAGES = torch.rand(24, 3, 2, 2, generator=torch.Generator().manual_seed(0)).repeat_interleave(16, 2).repeat_interleave(16, 3)


def small_backbone(classes):
    """Four blocks, the second of which has a projection in place of an identity shortcut."""
    stem = nn.Sequential(conv_bn_relu(3, 8, stride=2))
    blocks = [BasicBlock(8, 8, 1), BasicBlock(8, 16, 2), BasicBlock(16, 16, 1), BasicBlock(16, 16, 1)]
    return Backbone(stem, blocks, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes)))


def small_gated():
    """Its gates are closed for about half of these images."""
    torch.manual_seed(1)
    net = GatedNetwork(small_backbone(10), "cifar10").eval()
    with torch.no_grad():
        for k, gate in enumerate(net.gating.values()):
            nn.init.normal_(gate[2].weight)
            nn.init.normal_(gate[-1].weight)
            gate[-1].bias -= net.gates(IMAGES)[k].quantile(0.5)  # between two images
    return net


@pytest.fixture
def net():
    return small_gated()


@pytest.fixture
def models(monkeypatch):
    """In the place of ResNet-56 a network that trains in a second."""
    monkeypatch.setitem(MODELS, "resnet56", Model("ResNet-56", small_backbone, (1, 2), shortcuts=True))


def test_a_network_with_gates_has_a_name_of_its_own():
    network = Network.parse("cifar10-resnet56-dynn_gates-seed1")
    assert network == GATED.sibling(seed=1)
    assert network.id == "cifar10-resnet56-dynn_gates-seed1"
    assert network.title == "ResNet-56, CIFAR-10, DyNN, gates, seed 1"
    assert network.static.id == "cifar10-resnet56-sdnn-seed1"
    assert not network.is_static
    assert (network.exit_indices, network.exit_after) == ((), ())


@pytest.mark.parametrize("model", MODELS)
def test_models_say_whether_their_blocks_can_be_skipped(model):
    if MODELS[model].shortcuts:
        assert len(gated(build(model, "cifar10", ())).gating) == 25
        return
    with pytest.raises(ValueError, match=rf"^{model} has no block with an identity shortcut, which a gate could skip$"):
        Network("cifar10", model, "gates")
    with pytest.raises(ValueError, match=r"^no block of the backbone has an identity shortcut, which a gate could skip$"):
        gated(build(model, "cifar10", ()))


def test_gates_are_not_trained_as_heads():
    with pytest.raises(ValueError, match=r"^a network with gates has no exits whose heads could be trained$"):
        Network.parse("cifar10-resnet56-ic_only_gates")


def test_gates_begin_open():
    net, static = checkpoints.new(GATED).eval(), checkpoints.new(GATED.static)
    static.backbone = net.backbone
    with torch.no_grad():
        logits, macs = net.run(IMAGES[:4])
        assert logits.equal(static.eval()(IMAGES[:4]))
    assert macs.tolist() == [net.macs.item()] * 4
    assert static.macs.item() < net.macs.item() < 1.001 * static.macs.item()  # gates cost next to nothing


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [False, True])
def test_a_closed_gate_hands_its_blocks_input_on(net, training, precision):
    for gate in net.gating.values():
        nn.init.constant_(gate[-1].bias, -1e6)
    net.train(training)
    with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
        expected = net.backbone.head(net.backbone.blocks[1](net.backbone.stem(net.normalise(IMAGES))))
        torch.testing.assert_close(net(IMAGES)[0], expected)


@torch.no_grad()
@pytest.mark.parametrize("fold", [False, True])
def test_an_image_is_decided_on_its_own(net, fold):
    net = folded(net) if fold else net
    logits, macs = net.run(IMAGES)
    assert len(macs.unique()) > 3
    for batch in (1, 5, 24):
        parts = [net.run(part) for part in IMAGES.split(batch)]
        assert torch.cat([macs for _, macs in parts]).equal(macs)
        torch.testing.assert_close(torch.cat([logits for logits, _ in parts], dim=1), logits)
        torch.testing.assert_close(torch.cat([net(part) for part in IMAGES.split(batch)], dim=1), logits)
    order = torch.randperm(24)
    assert net.run(IMAGES[order])[1].equal(macs[order])


@torch.no_grad()
def test_what_is_counted_is_what_is_run(net):
    macs, most = net.run(IMAGES)[1], net.macs
    for image, counted in zip(IMAGES, macs, strict=True):
        with FlopCounterMode(display=False) as counter:
            net.run(image[None])
        assert counter.get_total_flops() == 2 * counted
    assert macs.dtype == torch.int64
    closed = net.gates(IMAGES) < 0
    assert macs.equal(most - (closed * net.block_macs[:, None]).sum(dim=0))
    opened = (net.gates(IMAGES) >= 0).all(dim=0)
    assert macs[opened].unique().tolist() in ([], most.tolist())
    assert (macs[~opened] < most).all()


def test_folding_changes_no_decision(net):
    quick = folded(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    assert quick.macs.equal(net.macs)
    for one, other in zip(MECHANISM.run(quick, IMAGES), MECHANISM.run(net, IMAGES), strict=True):
        assert one.equal(other)


def test_gradients_reach_images_and_gates(net):
    images = IMAGES.clone().requires_grad_()
    net(images)[0, :, 3].sum().backward()
    assert (images.grad.flatten(1).abs().amax(dim=1) > 0).all()
    net.zero_grad()
    net.train().run(IMAGES)[1].sum().backward()
    for parameter in net.gating.parameters():
        assert parameter.grad.any()


def test_training_decides_under_noise_that_can_be_turned_off(net):
    net.train()
    torch.manual_seed(0)
    _, _, one = net.walk(IMAGES)
    _, _, other = net.walk(IMAGES)
    assert set(one.unique().tolist()) == {0.0, 1.0}
    assert not one.equal(other)
    net.noise = 0.0
    _, logits, sober = net.walk(IMAGES)
    assert sober.equal((logits >= 0).float())


def test_decisions_take_the_cost_from_the_network(net):
    seen, deployed = craft.net_answers(net, IMAGES), MECHANISM.run(net, IMAGES)
    assert seen.cost.equal(net.run(IMAGES)[1][None])
    for one, other in zip(MECHANISM.decide(seen, net.macs), deployed, strict=True):
        assert one.equal(other)
    half = seen.images(slice(12)).exits([0])
    assert half.cost.equal(seen.cost[:, :12])
    assert half.joined(half).cost.shape == (2, 12)
    byte = (255 * IMAGES).byte()
    torch.testing.assert_close(all_answers(net, byte, batch=7).cost, net.run(byte / 255)[1][None])


def test_a_design_costs_what_the_network_ran(net, monkeypatch):
    monkeypatch.setattr("dynlib.analysis.design.costs", lambda network, exits: net.macs)
    seen = craft.net_answers(net, IMAGES)
    decision = evaluate(GATED, seen, Design((0,), MECHANISM))
    assert decision.cost.equal(seen.cost[0])


def test_costs_are_kept_in_records(net, tmp_path):
    """Also beside a target that does not tell any."""
    about = {"profile": "tiny", "campaign": "walk", "settings": {"attacks": {}}, "weights": {}, "data": {}}
    row = {**records.parts("source", GATED), "attack": "none", "split": "test"}
    told, quiet = craft.net_answers(net, IMAGES), craft.net_answers(small_network(1), IMAGES)
    blocks = [
        {**row, **records.parts("target", target), **craft._answered([seen])}
        for target, seen in ((GATED, told), (GATED.static, quiet))
    ]
    records.write(tmp_path, "answers", GATED, blocks, about)
    ((_, table),) = records.read(tmp_path, "answers", {})
    read = {key["target_exits"]: kept_answers(rows) for key, rows in _blocks(table, ("target_exits",))}
    for name in ("label", *records.FIXED_POINT, "cost"):
        assert getattr(read["gates"], name).equal(getattr(told, name)), name
    assert read["none"].cost is None
    for one, other in zip(MECHANISM.decide(read["gates"], net.macs), MECHANISM.run(net, IMAGES), strict=True):
        assert one.equal(other)


def test_records_without_costs_are_as_they_were(tmp_path):
    row = {**records.parts("source", GATED), **records.parts("target", GATED.static), "attack": "none", "split": "test"}
    block = {**row, **craft._answered([craft.net_answers(small_network(1), IMAGES)])}
    about = {"profile": "tiny", "campaign": "walk", "settings": {"attacks": {}}, "weights": {}, "data": {}}
    records.write(tmp_path, "answers", GATED, [block], about)
    ((_, table),) = records.read(tmp_path, "answers", {})
    assert table.schema.names == records.SCHEMAS["answers"].names
    with pytest.raises(records.RecordsError, match="cost is not finite"):
        records.write(tmp_path, "answers", GATED, [{**block, "cost": np.nan}], about)


def test_it_is_fooled(net):
    labels = MECHANISM.run(net, IMAGES).label
    made = PGD(eps=0.2, steps=10)(net, IMAGES, labels)
    assert made.reached.any()
    assert (MECHANISM.run(net, made.adversarial).label != labels).equal(made.reached)


def test_the_loss_of_gates_slows_it_down(net):
    labels = torch.zeros(24, dtype=torch.int64)
    before = MECHANISM.run(net, IMAGES).cost
    for changes in ({}, {"early_stop": True}, {"precision": "bfloat16"}):
        made = PGD(eps=0.2, steps=10, loss="gates", goal="slow_down", **changes)(net, IMAGES, labels)
        after = MECHANISM.run(net, made.adversarial).cost
        assert after.sum() > 1.05 * before.sum()
        assert made.reached.equal(after == net.macs)
        assert made.reached.sum() > (before == net.macs).sum()


def test_what_does_not_fit_is_refused(net):
    labels = torch.zeros(24, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"^the network has no gates, which loss 'gates' needs$"):
        PGD(loss="gates")(small_network(2), IMAGES, labels)
    with pytest.raises(ValueError, match=r"^the network has no early exits$"):
        PGD(loss="uniform")(net, IMAGES, labels)
    with pytest.raises(ValueError, match="no early exits, which goal 'strict' needs"):
        PGD(goal="strict")(net, IMAGES, labels)
    with pytest.raises(ValueError, match="training mode"):
        MECHANISM.run(net.train(), IMAGES)


def test_its_one_exit_is_the_only_choice(net):
    assert net.with_exits((0,)) is net
    with pytest.raises(ValueError, match="exits"):
        net.with_exits((0, 1))


def test_gates_loss_by_hand():
    logits, labels = torch.zeros(1, 4, 10), torch.zeros(4, dtype=torch.int64)
    cost = torch.tensor([0.5, 0.7, 0.9, 0.9])
    assert gates_loss(logits, labels, cost, target=0.6, weight=10.0).item() == pytest.approx(np.log(10) + 10 * 0.15**2)


def train(folder, network):
    return Training(network, "tiny", folder=folder).run()


@pytest.mark.usefixtures("models")
def test_it_trains_from_the_static_network_and_ships(workshop):
    with pytest.raises(CheckpointError, match=r"cifar10-resnet56-sdnn\.safetensors is missing"):
        train(workshop, GATED)
    file = workshop / "queue.txt"
    file.write_text(GATED.id)
    with pytest.raises(ValueError, match="cifar10-resnet56-dynn_gates needs cifar10-resnet56-sdnn first"):
        read_queue(file, "tiny", workshop)
    train(workshop, GATED.static)
    static = checkpoints.load_network(GATED.static, workshop)
    before = Training(GATED, "tiny", folder=workshop).net
    for name, tensor in static.state_dict().items():
        assert tensor.equal(before.state_dict()[name]), name
    train(workshop, GATED)
    net = checkpoints.load_network(GATED, workshop)
    assert isinstance(net, GatedNetwork)
    assert net.card["backbone_sha256"] == static.card["weights_sha256"]
    assert net.card["macs"] == net.macs.tolist()
    assert net.card["settings"]["gates"] == {"target": 0.6, "weight": 10.0}
    assert 0 < net.card["run_macs"] <= 100
    assert describe(net)["run_macs"] == net.card["run_macs"]
    assert "gates: " in checkpoints.table(workshop)
    assert not net.backbone.stem[0].weight.equal(static.backbone.stem[0].weight)  # it is trained further


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("regime", ["standard", "adversarial"])
def test_resumed_training_ends_with_the_same_weights(workshop, monkeypatch, regime):
    whole, broken, network = workshop / "whole", workshop / "broken", GATED.sibling(regime=regime)
    for folder in (whole, broken):
        train(folder, network.static)
    expected = load_file(train(whole, network))
    with killed_in_epoch(monkeypatch, 3):
        train(broken, network)
    resumed = load_file(train(broken, network))
    assert expected.keys() == resumed.keys()
    assert all(tensor.equal(resumed[name]) for name, tensor in expected.items())


def test_training_reaches_the_cost_that_is_wanted():
    """On 16 images with noise that fades, as in a training."""
    torch.manual_seed(0)
    net, labels = GatedNetwork(small_backbone(10), "cifar10").train(), torch.randint(0, 10, (16,))
    images = torch.rand(16, 3, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    optimiser = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, nesterov=True)
    for step in range(200):
        net.noise = max(0.0, 1 - step / 150)
        logits, macs = net.run(images)
        loss = gates_loss(logits, labels, macs / net.macs, target=0.6, weight=10.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        share = (net.run(images)[1] / net.macs).mean().item()
    assert share == pytest.approx(0.6, abs=0.12)


def test_answers_without_costs_stay_without():
    seen = Answers.of(torch.randn(3, 5, 10))
    for changed in (seen, seen.exits([0, 2]), seen.images(slice(2)), seen.joined(seen)):
        assert changed.cost is None


def test_a_multi_exit_network_tells_no_cost():
    assert isinstance(small_network(2), MultiExitNetwork)
    assert craft.net_answers(small_network(2), IMAGES).cost is None
