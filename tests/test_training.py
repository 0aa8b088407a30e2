import json
import math
import shutil
from itertools import product

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from dynlib import data
from dynlib.networks import checkpoints, recipes, training
from dynlib.networks.checkpoints import RETRAINED, CheckpointError
from dynlib.networks.recipes import one_cycle, restarted, stepwise
from dynlib.networks.training import Training, TrainingError, augment, joint_loss, missing, train_all


@pytest.fixture
def workshop(monkeypatch, tmp_path):
    """A folder for tiny trainings; images of the bundled sample play all splits, and precision does not hang on timings."""
    sample = data.load("cifar10", "test", 400)
    parts = {"train": slice(0, 256), "validation": slice(256, 320), "test": slice(320, 400)}

    def load(dataset, split, n=None):
        return data.Split(sample.images[parts[split]], sample.labels[parts[split]])

    monkeypatch.setattr(training.data, "load", load)
    monkeypatch.setattr(Training, "_bfloat16_is_faster", lambda self: False)
    return tmp_path


def train(folder, kind, seed=0):
    return Training("mobilenet", "cifar10", kind, "tiny", seed, folder=folder).run()


def test_every_kind_trains_and_ships(workshop):
    path = train(workshop, "sdnn")
    net = checkpoints.load("mobilenet", "cifar10", "sdnn", workshop)
    assert net.n_exits == 1
    assert net.card["weights_sha256"] == checkpoints.sha256(path)
    log = (workshop / "training" / "cifar10-mobilenet-sdnn-tiny-0.csv").read_text().splitlines()
    assert len(log) == 1 + recipes.find("tiny", "resnet56", "cifar10", "sdnn").epochs

    train(workshop, "ic_only")
    heads = checkpoints.load("mobilenet", "cifar10", "ic_only", workshop)
    for name, tensor in net.state_dict().items():  # weights and batch-norm statistics of the backbone
        assert tensor.equal(heads.state_dict()[name]), name
    assert {name.split(".")[0] for name in load_file(workshop / "cifar10-mobilenet-ic_only.safetensors")} == {"exits"}
    torch.manual_seed(0)
    untrained = checkpoints.new("mobilenet", "cifar10", "ic_only").exits.state_dict()
    assert not any(t.half().equal(untrained[name].half()) for name, t in heads.exits.state_dict().items())

    train(workshop, "dynn")
    card = checkpoints.load("mobilenet", "cifar10", "dynn", workshop).card
    assert len(card["test_accuracy"]) == len(card["validation_accuracy"]) == len(card["macs"]) == 6
    assert set(card["operating_points"]) == {"most_confident", "final"}


@pytest.mark.parametrize("kind", ["dynn", "ic_only"])
def test_resumed_training_ends_with_the_same_weights(workshop, monkeypatch, kind):
    whole, broken = workshop / "whole", workshop / "broken"
    if kind == "ic_only":
        for folder in (whole, broken):
            train(folder, "sdnn")
    expected = load_file(train(whole, kind))

    epoch = Training._epoch

    def dies_in_the_second(self, number):
        if number == 1:
            raise KeyboardInterrupt
        return epoch(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_epoch", dies_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            train(broken, kind)
    resumed = load_file(train(broken, kind))
    assert expected.keys() == resumed.keys()
    assert all(tensor.equal(resumed[name]) for name, tensor in expected.items())


def test_seed_matters(workshop):
    first, second = (load_file(train(workshop / str(seed), "sdnn", seed)) for seed in (0, 1))
    assert not all(tensor.equal(second[name]) for name, tensor in first.items())


def test_training_learns():
    """Twenty-five steps on 64 images drive the joint loss to a fraction of what it was."""
    images, labels = data.load("cifar10", "test", 64)
    torch.manual_seed(0)
    net = checkpoints.new("mobilenet", "cifar10", "dynn").train()
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
    state = workshop / "training" / "cifar10-mobilenet-sdnn-tiny-0.safetensors"
    state.write_bytes(state.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"sdnn-tiny-0\.safetensors is damaged"):
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
    assert [one_cycle(p) for p in (0, 0.125, 0.25, 1)] == pytest.approx([0, 0.5, 1, 0])
    assert [restarted(p) for p in (0, 0.15, 0.599, 0.6, 0.8, 1)] == pytest.approx([0, 1, 0, 1, 0.5, 0], abs=1e-4)


def test_unknown_recipe():
    with pytest.raises(ValueError, match="unknown recipe"):
        Training("vgg16", "cifar10", "dynn", "long", 0)


def test_exits_only_needs_the_static_network(workshop):
    with pytest.raises(CheckpointError, match=r"cifar10-mobilenet-sdnn\.safetensors is missing"):
        train(workshop, "ic_only")


def test_exits_belong_to_one_backbone(workshop):
    train(workshop, "sdnn")
    train(workshop, "ic_only")
    shutil.rmtree(workshop / "training")
    train(workshop, "sdnn", seed=1)
    with pytest.raises(CheckpointError, match=r"ic_only\.safetensors was trained on another backbone"):
        checkpoints.load("mobilenet", "cifar10", "ic_only", workshop)


def test_missing_networks(workshop):
    assert len(missing("tiny", workshop)) == 18 + len(RETRAINED)
    assert [model for model, *_ in missing("tiny", workshop)[:18:6]] == ["mobilenet", "resnet56", "vgg16"]  # cheapest first
    train(workshop, "sdnn")
    there = ("mobilenet", "cifar10", "sdnn")
    assert there not in missing("tiny", workshop)
    assert there in missing("short", workshop)  # a better recipe replaces it


def test_train_all(workshop, monkeypatch):
    """The networks are trained in processes of their own; those need real data, so here they only meet an error, by name."""
    monkeypatch.setenv("DYNLIB_DATA", str(workshop))
    monkeypatch.setattr(training, "missing", lambda recipe: [("mobilenet", "cifar10", "ic_only"), ("mobilenet", "cifar10", "sdnn")])
    with pytest.raises(data.DataError, match=r"cifar10\.npz is missing"):
        train_all("tiny", 0, "cpu", jobs=1)


def test_other_recipe_is_refused(workshop, monkeypatch):
    train(workshop, "sdnn")
    state = workshop / "training" / "cifar10-mobilenet-sdnn-tiny-0.safetensors"
    about = {"recipe": {"epochs": 1}, "bfloat16": False, "history": []}
    training.save_file(load_file(state), state, {"about": json.dumps(about)})
    with pytest.raises(CheckpointError, match="another recipe"):
        train(workshop, "sdnn")


def test_short_recipe_by_network():
    epochs = {dataset: recipes.find("short", "mobilenet", dataset, "dynn").epochs for dataset in ("cifar10", "cifar100")}
    assert epochs["cifar10"] < epochs["cifar100"] == recipes.find("short", "resnet56", "cifar10", "sdnn").epochs
    assert recipes.find("short", "vgg16", "cifar10", "ic_only").optimiser == "adam"
