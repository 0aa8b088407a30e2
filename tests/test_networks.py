import pytest
import torch
from torch import nn

import dynlib
from dynlib.networks.backbones import MODELS
from dynlib.networks.exits import MixedPool, internal_classifier

# Parameters and multiply-accumulates in millions for 10 classes, and the share of the backbone's MACs at each exit.
TABLE = {
    "vgg16": (15.25, 314, (0.13, 0.31, 0.49, 0.61, 0.79, 0.91)),
    "resnet56": (0.856, 126, (0.15, 0.30, 0.45, 0.60, 0.74, 0.89)),
    "mobilenet": (3.217, 46, (0.22, 0.36, 0.50, 0.68, 0.91)),
}


@pytest.mark.parametrize("model", TABLE)
def test_networks_have_the_known_sizes(model):
    parameters, macs, shares = TABLE[model]
    static, dynamic = dynlib.build(model, "cifar10", ()), dynlib.build(model, "cifar10")
    assert sum(p.numel() for p in static.parameters()) / 1e6 == pytest.approx(parameters, rel=1e-3)
    assert static.macs.item() / 1e6 == pytest.approx(macs, abs=0.5)
    assert (dynamic.macs[:-1] / static.macs).tolist() == pytest.approx(shares, abs=0.01)


def test_macs_by_hand():
    """VGG-16: each 3x3 convolution costs 9 * inputs * outputs * pixels, each linear layer inputs * outputs."""
    plan = [(3, 64, 32), (64, 64, 32), (64, 128, 16), (128, 128, 16), (128, 256, 8), *[(256, 256, 8)] * 2]
    plan += [(256, 512, 4), *[(512, 512, 4)] * 2, *[(512, 512, 2)] * 3]
    convolutions = [9 * i * o * side**2 for i, o, side in plan]
    net = dynlib.build("vgg16", "cifar10", (2,))
    first = sum(convolutions[:2]) + 64 * 4 * 4 * 10
    assert net.macs.tolist() == [first, first + sum(convolutions[2:]) + 2 * 512 * 512 + 512 * 10]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_output_shape(model, dataset, classes):
    images = torch.rand(2, 3, 32, 32)
    net = dynlib.build(model, dataset).eval()
    exits = len(MODELS[model].exit_after) + 1
    assert net(images).shape == (exits, 2, classes)
    assert net(images, depth=1).shape == (2, 2, classes)
    assert net.as_static(1)(images).equal(net(images)[1])
    assert dynlib.build(model, dataset, ()).eval()(images).shape == (1, 2, classes)


def test_normalisation_is_inside():
    net = dynlib.build("resnet56", "cifar10")
    mean = net.normalise.mean.expand(1, 3, 32, 32)
    assert net.normalise(mean).abs().max() == 0
    assert not any("normalise" in name for name in net.state_dict())


@pytest.mark.parametrize(("side", "left"), [(32, 4), (16, 4), (8, 4), (4, 4), (2, 2)])
def test_heads_pool_to_four_by_four(side, left):
    head = internal_classifier(8, side, 10)
    assert head[-1].in_features == 8 * left**2
    assert isinstance(head[0], MixedPool if side > 4 else nn.Identity)
    assert head(torch.rand(1, 8, side, side)).shape == (1, 10)


def test_mixed_pool_mixes():
    pool, x = MixedPool(2), torch.rand(1, 1, 4, 4)
    for a, expected in ((1.0, nn.MaxPool2d(2)(x)), (0.0, nn.AvgPool2d(2)(x))):
        pool.a.data.fill_(a)
        torch.testing.assert_close(pool(x), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("alexnet", "cifar10"), "unknown model"),
        (("vgg16", "mnist"), "unknown dataset"),
        (("vgg16", "cifar10", (4, 2)), "increasing"),
        (("vgg16", "cifar10", (2, 2)), "increasing"),
        (("vgg16", "cifar10", (0,)), "increasing"),
        (("vgg16", "cifar10", (13,)), "increasing"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        dynlib.build(*arguments)


def test_only_strided_depthwise_convolutions_leave_mixed_precision(untrained):
    depthwise = [m for m in untrained.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert {m.stride[0] for m in depthwise} == {1, 2}
    for conv in depthwise:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            out = conv(torch.rand(1, conv.in_channels, 4, 4))
        assert (out.dtype == torch.float32) == (conv.stride[0] == 2)
