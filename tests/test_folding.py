import pytest
import torch
from torch import nn

import dynlib
from dynlib import data
from dynlib.attacks import PGD
from dynlib.mechanisms import ConfidenceExit
from dynlib.networks.folding import folded


@pytest.fixture(params=["resnet56", "mobilenet", "vgg16"])
def net(request):
    return dynlib.load(request.param, "cifar10", "dynn")


@pytest.fixture(scope="module")
def images():
    return data.load("cifar10", "test", 200).inputs


def test_a_folded_network_answers_as_before(net, images):
    quick = folded(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in net.modules())  # the network itself is untouched
    with torch.no_grad():
        assert (quick(images) - net(images)).abs().max() < 1e-4
    for one, other in zip(ConfidenceExit().run(quick, images), ConfidenceExit().run(net, images), strict=True):
        assert one.equal(other)
    assert quick.macs.equal(net.macs)


def test_attacks_reach_the_same(net, images):
    labels = data.load("cifar10", "test", 24).labels
    attack = PGD(eps=2 / 255, steps=5)
    quick, slow = (attack(one, images[:24], labels) for one in (folded(net), net))
    assert (quick.reached == slow.reached).double().mean() > 0.9  # signs of tiny gradients are rounding's
    assert quick.macs.equal(slow.macs)


def test_a_network_in_training_is_refused():
    with pytest.raises(ValueError, match="in training mode cannot be folded"):
        folded(dynlib.build("resnet56", "cifar10").train())
