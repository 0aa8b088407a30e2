import json
import math
import shutil
from itertools import product

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from dynlib import data
from dynlib.files import ROOT
from dynlib.networks import checkpoints, recipes, training
from dynlib.networks.checkpoints import CheckpointError
from dynlib.networks.identity import Network
from dynlib.networks.objectives import joint_loss
from dynlib.networks.optimisers import Muon, optimiser, orthogonal
from dynlib.networks.queue import lacking, read_queue, train_queue
from dynlib.networks.recipes import linear, stepwise
from dynlib.networks.training import Training, TrainingError, augment
from tests.conftest import killed_in_epoch

STATIC = Network("cifar10", "mobilenet", "none")


def train(folder, kind, seed=0, regime="standard"):
    network = Network.of("mobilenet", "cifar10", kind, seed).sibling(regime=regime)
    return Training(network, "tiny", folder=folder).run()


def test_every_kind_trains_and_ships(workshop):
    path = train(workshop, "sdnn")
    net = checkpoints.load("mobilenet", "cifar10", "sdnn", folder=workshop)
    assert net.n_exits == 1
    assert net.card["weights_sha256"] == checkpoints.sha256(path)
    log = (workshop / "training" / "cifar10-mobilenet-sdnn-tiny.csv").read_text().splitlines()
    assert len(log) == 1 + recipes.find("tiny", STATIC).epochs

    train(workshop, "ic_only")
    heads = checkpoints.load("mobilenet", "cifar10", "ic_only", folder=workshop)
    for name, tensor in net.state_dict().items():  # weights and batch-norm statistics of the backbone
        assert tensor.equal(heads.state_dict()[name]), name
    assert {name.split(".")[0] for name in load_file(workshop / "cifar10-mobilenet-ic_only.safetensors")} == {"exits"}
    torch.manual_seed(0)
    untrained = checkpoints.new(STATIC.sibling(exits="all", trained="heads")).exits.state_dict()
    assert not any(t.half().equal(untrained[name].half()) for name, t in heads.exits.state_dict().items())

    train(workshop, "dynn")
    card = checkpoints.load("mobilenet", "cifar10", "dynn", folder=workshop).card
    assert len(card["test_accuracy"]) == len(card["validation_accuracy"]) == len(card["macs"]) == 6
    assert set(card["operating_points"]) == {"most_confident", "final"}


@pytest.mark.parametrize(("kind", "regime"), [("dynn", "standard"), ("ic_only", "standard"), ("dynn", "adversarial")])
def test_resumed_training_ends_with_the_same_weights(workshop, monkeypatch, kind, regime):
    whole, broken = workshop / "whole", workshop / "broken"
    if kind == "ic_only":
        for folder in (whole, broken):
            train(folder, "sdnn")
    expected = load_file(train(whole, kind, regime=regime))
    with killed_in_epoch(monkeypatch, 2):
        train(broken, kind, regime=regime)
    resumed = load_file(train(broken, kind, regime=regime))
    assert expected.keys() == resumed.keys()
    assert all(tensor.equal(resumed[name]) for name, tensor in expected.items())


def test_trainings_of_two_seeds_lie_beside_each_other(workshop):
    first, second = (load_file(train(workshop, "sdnn", seed)) for seed in (0, 1))
    assert checkpoints.load("mobilenet", "cifar10", "sdnn", seed=1, folder=workshop).card["seed"] == 1
    assert not all(tensor.equal(second[name]) for name, tensor in first.items())


@pytest.mark.parametrize("kind", ["sdnn", "dynn"])
def test_adversarial_training_shows_examples_against_the_network(workshop, monkeypatch, kind):
    shown = []
    monkeypatch.setattr(Training, "_step", lambda self, inputs, labels, progress: shown.append((inputs, labels)) or torch.zeros(()))
    network = Network.of("mobilenet", "cifar10", kind)
    for regime in ("standard", "adversarial"):
        each = Training(network.sibling(regime=regime), "tiny", folder=workshop)
        each.net = checkpoints.load_network(network)  # a trained one, which can be fooled
        each._epoch(0)
    clean, attacked = shown[: len(shown) // 2], shown[len(shown) // 2 :]
    net, eps = each.net.train(), recipes.ADVERSARY["eps"]
    for (before, labels), (after, same) in zip(clean, attacked, strict=True):
        assert labels.equal(same)
        assert (after - before).abs().max() <= eps + 1e-6
        assert after.clamp(0, 1).equal(after)
        noise = (before + eps * torch.rand_like(before).mul(2).sub(1).sign()).clamp(0, 1)
        losses = [joint_loss(net(x), labels, 1.0, network.exit_indices) for x in (before, noise, after)]
        assert losses[2] > max(losses[:2])  # more than noise of the same size does


def test_the_card_names_the_attack_of_the_training(workshop):
    path = train(workshop, "sdnn", regime="adversarial")
    assert path.name == "cifar10-mobilenet-sdnn-adversarial.safetensors"
    assert checkpoints.read_card(path)["settings"]["adversary"] == recipes.ADVERSARY
    assert "adversary" not in checkpoints.read_card(train(workshop, "sdnn"))["settings"]


def test_training_learns():
    """Twenty-five steps on 64 images drive the joint loss to a fraction of what it was."""
    images, labels = data.load("cifar10", "test", 64)
    torch.manual_seed(0)
    net = checkpoints.new(STATIC.sibling(exits="all")).train()
    optimiser = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    losses = []
    for _ in range(25):
        loss = joint_loss(net(images.float() / 255), labels, 0.5, range(5))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3


def test_diverged_loss_names_epoch_and_rate(workshop, monkeypatch):
    monkeypatch.setattr(training, "joint_loss", lambda logits, labels, progress, exits: logits.sum() * math.nan)
    with pytest.raises(TrainingError, match=r"diverged in epoch 1, at learning rate \d"):
        train(workshop, "sdnn")
    assert not list(workshop.rglob("*.safetensors"))


def test_damaged_state_is_named(workshop):
    train(workshop, "sdnn")
    state = workshop / "training" / "cifar10-mobilenet-sdnn-tiny.safetensors"
    state.write_bytes(state.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"sdnn-tiny\.safetensors is damaged"):
        train(workshop, "sdnn")


def test_joint_loss_by_hand():
    logits, labels = torch.randn(4, 5, 10), torch.randint(0, 10, (5,))
    ce = [F.cross_entropy(exit, labels) for exit in logits]
    halfway = ce[3] + 0.085 * ce[0] + 0.16 * ce[1] + 0.235 * ce[2]  # 0.01 + half of .15, .30, .45
    torch.testing.assert_close(joint_loss(logits, labels, 0.5, range(3)), halfway)
    nearly = ce[3] + 0.15 * ce[0] + 0.30 * ce[1] + 0.45 * ce[2]
    torch.testing.assert_close(joint_loss(logits, labels, 0.99, range(3)), nearly)
    others = ce[3] + 0.30 * ce[0] + 0.60 * ce[1] + 0.90 * ce[2]  # a design's exits weigh what they would among all
    torch.testing.assert_close(joint_loss(logits, labels, 1.0, (1, 3, 5)), others)
    torch.testing.assert_close(joint_loss(logits[-1:], labels, 0.5, ()), ce[3])


def test_augmentation_crops_and_flips():
    images = torch.randint(1, 256, (64, 3, 32, 32), dtype=torch.uint8)
    out = augment(images, torch.Generator().manual_seed(0))
    padded = F.pad(images, (4, 4, 4, 4))
    places = set()
    for image, seen in zip(padded, out, strict=True):
        found = []
        for top, left in product(range(9), repeat=2):
            crop = image[:, top : top + 32, left : left + 32]
            found += [(top, left, flip) for flip in (False, True) if seen.equal(crop.flip(2) if flip else crop)]
        assert len(found) == 1  # it is one of the 162 variants of its own image
        places.add(found[0])
    assert len(places) > 40
    assert out.equal(augment(images, torch.Generator().manual_seed(0)))


def test_schedules():
    assert [stepwise(p) for p in (0, 0.34, 0.35, 0.6, 0.85)] == pytest.approx([1, 1, 0.1, 0.01, 0.001])
    assert [linear(p) for p in (0, 0.075, 0.15, 0.575, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_unknown_recipe():
    with pytest.raises(ValueError, match="unknown recipe"):
        Training(STATIC, "long")


@pytest.mark.parametrize("recipe", recipes.RECIPES)
@pytest.mark.parametrize("model", ["vgg16", "resnet56", "mobilenet"])
def test_static_and_dynamic_networks_have_one_recipe(recipe, model):
    """With another one, a difference between them would say nothing of the exits."""
    for dataset in ("cifar10", "cifar100"):
        dynamic = Network(dataset, model)
        assert recipes.find(recipe, dynamic) == recipes.find(recipe, dynamic.sibling(exits="none"))


@pytest.mark.parametrize("shape", [(8, 27), (27, 8), (16, 16)])
def test_orthogonal_directions(shape):
    """All singular values come near 1; five steps, and fewer come less near."""
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape), steps=5).float())
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muon_turns_kernels_and_leaves_vectors_without_decay():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 8, 3, groups=8, bias=False))
    muon = Muon(net, rate=0.1, weight_decay=0.5)
    kernel, scale, depthwise = net[0].weight, net[1].weight, net[2].weight
    before = depthwise.detach().clone()
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    kernel.grad = torch.randn_like(kernel)
    muon.step()
    assert scale.equal(torch.ones(8))
    torch.testing.assert_close(depthwise, before * (1 - 0.1 * 0.5 * 1.85))  # decay with Nesterov momentum
    assert kernel.norm().item() == pytest.approx(8**0.5, rel=0.1)  # its new norm, and one step of 0.05


def test_unknown_optimiser():
    with pytest.raises(ValueError, match="unknown optimiser 'lion'"):
        optimiser("lion", torch.nn.Linear(2, 2), 0.1, 0.0)


def test_exits_only_needs_the_static_network(workshop):
    with pytest.raises(CheckpointError, match=r"cifar10-mobilenet-sdnn\.safetensors is missing"):
        train(workshop, "ic_only")


def test_exits_belong_to_one_backbone(workshop):
    train(workshop, "sdnn")
    train(workshop, "ic_only")
    train(workshop, "sdnn", seed=1)
    for suffix in (".safetensors", ".json"):
        shutil.copy(STATIC.sibling(seed=1).path(workshop).with_suffix(suffix), STATIC.path(workshop).with_suffix(suffix))
    with pytest.raises(CheckpointError, match=r"ic_only\.safetensors was trained on another backbone"):
        checkpoints.load("mobilenet", "cifar10", "ic_only", folder=workshop)


def test_what_is_there_is_trained_again_by_a_better_recipe_only(workshop):
    assert lacking(STATIC, "tiny", workshop)
    train(workshop, "sdnn")
    assert not lacking(STATIC, "tiny", workshop)
    assert lacking(STATIC.sibling(seed=1), "tiny", workshop)
    assert lacking(STATIC, "cpu", workshop)


def test_queue(workshop):
    """It is read as a whole before anything starts."""
    file = workshop / "queue.txt"
    file.write_text("# seed 1\ncifar10-mobilenet-sdnn-seed1\n\ncifar10-mobilenet-ic_only-seed1  # on its backbone\n")
    wanted = [STATIC.sibling(seed=1), Network("cifar10", "mobilenet", trained="heads", seed=1)]
    assert read_queue(file, "tiny", workshop) == wanted
    train(workshop, "sdnn", seed=1)
    assert read_queue(file, "tiny", workshop) == wanted[1:]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cifar10-lenet-dynn", r"line 2: unknown model 'lenet'"),
        ("resnet56", r"line 2: 'resnet56' is not the id of a network"),
        ("cifar10-mobilenet-sdnn", r"line 2: cifar10-mobilenet-sdnn is there twice"),
        ("cifar10-resnet56-ic_only", r"line 2: cifar10-resnet56-ic_only needs cifar10-resnet56-sdnn first"),
    ],
)
def test_wrong_line_of_a_queue_is_named(workshop, line, message):
    file = workshop / "queue.txt"
    file.write_text(f"cifar10-mobilenet-sdnn\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_queue(file, "tiny", workshop)


def test_shipped_queue_is_the_campaign(tmp_path):
    queue = read_queue(ROOT / "workflow" / "networks.txt", "cpu", tmp_path)
    cells = {network.cell for network in queue}
    assert len(cells) == 6
    assert all(Network(*cell, exits) in queue for cell in cells for exits in ("none", "all"))
    assert {network.seed for network in queue if network.model == "resnet56"} == {0, 1, 2}


def test_train_queue(workshop, monkeypatch):
    """The networks are trained in processes of their own; those need real data, so here they only meet an error, by name."""
    monkeypatch.setenv("DYNLIB_DATA", str(workshop))
    with pytest.raises(data.DataError, match=r"cifar10\.npz is missing"):
        train_queue([STATIC, STATIC.sibling(exits="all", trained="heads")], "tiny", "cpu", 1, workshop)


def test_other_recipe_is_refused(workshop, monkeypatch):
    train(workshop, "sdnn")
    state = workshop / "training" / "cifar10-mobilenet-sdnn-tiny.safetensors"
    about = {"recipe": {"epochs": 1}, "history": []}
    save_file(load_file(state), state, {"about": json.dumps(about)})
    with pytest.raises(CheckpointError, match="another recipe"):
        train(workshop, "sdnn")
