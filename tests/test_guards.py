"""Networks stay as they are and in step with their parts, and take nothing that they cannot make sense of."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import dynlib
from dynlib import FromLogits, MultiExitNetwork
from dynlib.attacks import ATTACKS, FGSM, MIFGSM, PGD, CarliniWagner, EarlyAttack
from dynlib.attacks.goals import GOALS
from dynlib.attacks.losses import EARLY_VARIANTS, LOSSES, get_loss
from dynlib.behaviour import accuracies
from dynlib.mechanisms import (
    AgreementExit,
    Answers,
    ConfidenceExit,
    Deployed,
    EntropyExit,
    Mechanism,
    PatienceExit,
    ThresholdPerExit,
)
from dynlib.networks.backbones import Backbone
from dynlib.networks.folding import folded

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3])
EXIT = ConfidenceExit(0.3)


def network():
    """Three small blocks with what training moves, and an exit after each."""
    torch.manual_seed(0)
    plan = [(3, 8, 2), (8, 8, 2), (8, 16, 2)]
    blocks = [nn.Sequential(nn.Conv2d(i, o, 3, stride, 1), nn.BatchNorm2d(o), nn.ReLU()) for i, o, stride in plan]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    return MultiExitNetwork(Backbone(nn.Identity(), blocks, head), "cifar10", (1, 2)).eval()


# All that stands around a network.
AROUND = {
    "deployed": lambda net: Deployed(net, EXIT),
    "one exit": MultiExitNetwork.as_static,
    "fewer exits": lambda net: net.with_exits((0, 2)),
    "no early exit": lambda net: net.with_exits((2,)),
    "adapted": lambda net: FromLogits(net, IMAGES),
    "adapted, then deployed": lambda net: Deployed(FromLogits(net, IMAGES), EXIT),
    "fewer exits, then one": lambda net: net.with_exits((1, 2)).as_static(0),
}


@pytest.fixture(params=AROUND.values(), ids=AROUND)
def wrap(request):
    return request.param


def test_what_stands_around_a_network_is_in_its_mode(wrap):
    """A library that restores the mode that it found must not put an evaluating network into training."""
    net = network()
    around = wrap(net)
    assert not around.training
    for mode in (True, False):
        net.train(mode)
        assert around.training == mode
    for mode in (True, False):
        around.train(mode)
        assert net.training == net.backbone.training == around.training == mode
    net.backbone.blocks[1].train()
    assert around.training
    found = around.training
    around.eval().train(found)
    assert net.training
    for copied in (deepcopy(around.eval()), pickle.loads(pickle.dumps(around))):
        assert not copied.training
        assert copied(IMAGES).equal(around(IMAGES))


def test_a_network_any_part_of_which_is_in_training_is_not_run():
    whole, inner = network(), network()
    pruned, adapted = whole.with_exits((0, 2)), FromLogits(inner, IMAGES)
    whole.train()
    inner.backbone.blocks[0][1].train()
    before = deepcopy([net.state_dict() for net in (whole, inner)])
    for net in (whole, pruned, inner, adapted):
        for use in (lambda net=net: EXIT.run(net, IMAGES), lambda net=net: folded(net)):
            with pytest.raises(ValueError, match="a network in training mode"):
                use()
    for state, net in zip(before, (whole, inner), strict=True):
        assert all(tensor.equal(state[name]) for name, tensor in net.state_dict().items())


# What only asks. A frozen backbone under exits in training is how heads are trained.
QUERIES = {
    "macs": lambda net: net.macs,
    "head_macs": lambda net: net.head_macs,
    "with_exits": lambda net: net.with_exits((0, 2)),
    "as_static": lambda net: net.as_static(),
    "deployed": lambda net: Deployed(net, EXIT).training,
    "adapted": lambda net: FromLogits(net, IMAGES),
    "attack": lambda net: PGD(steps=1)(net, IMAGES, LABELS),
    "external attack": lambda net: ATTACKS["foolbox"](settings={"steps": 1})(net, IMAGES, LABELS),
    "state": lambda net: net.state_dict(),
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_changes_nothing(query):
    net = network().train()
    net.backbone.eval()
    modes, state = [module.training for module in net.modules()], deepcopy(net.state_dict())
    random = torch.get_rng_state()
    query(net)
    assert [module.training for module in net.modules()] == modes
    assert all(tensor.equal(state[name]) for name, tensor in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert torch.get_rng_state().equal(random)


def head(net):
    net.exits[0] = nn.Sequential(nn.Flatten(), nn.Linear(8 * 16 * 16, 10))


def layer(net):
    net.exits[0][-1] = nn.Sequential(nn.Linear(128, 64), nn.Linear(64, 10))


def block(net):
    net.backbone.blocks[1] = nn.Sequential(nn.Conv2d(8, 8, 5, 2, 2), nn.ReLU())


def weights(net):
    """The last block has 6 channels of its 16 left."""
    (conv, norm, _), linear = net.backbone.blocks[2], net.backbone.head[-1]
    for module in (conv, norm):
        module.weight, module.bias = (nn.Parameter(p[:6].detach()) for p in (module.weight, module.bias))
    norm.running_mean, norm.running_var = norm.running_mean[:6], norm.running_var[:6]
    linear.weight = nn.Parameter(linear.weight[:, :6].detach())


@pytest.mark.parametrize("change", [head, layer, block, weights])
def test_macs_are_counted_anew_when_anything_is_replaced(change):
    net = network()
    adapted = FromLogits(net, IMAGES)
    before, around = net.macs, adapted.macs
    assert net.macs is before  # counted once
    change(net)
    assert net.macs.equal(net._count())
    assert not net.macs.equal(before)
    assert not adapted.macs.equal(around)


WRONG_IMAGES = {
    "one channel": torch.rand(2, 1, 32, 32),
    "channels last": torch.rand(2, 32, 32, 3),
    "another size": torch.rand(2, 3, 28, 28),
    "one image": torch.rand(3, 32, 32),
    "bytes": torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
    "whole numbers": torch.zeros(2, 3, 32, 32, dtype=torch.int64),
    "float64": torch.rand(2, 3, 32, 32, dtype=torch.float64),
    "bfloat16": torch.rand(2, 3, 32, 32).bfloat16(),
    "0 to 255": 255 * torch.rand(2, 3, 32, 32),
    "normalised": torch.randn(2, 3, 32, 32),
    "not finite": torch.full((2, 3, 32, 32), torch.nan),
    "of numpy": np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32),
}
TWO = torch.tensor([0, 1])
TAKES_IMAGES = {
    "net": lambda net: net,
    "run": lambda net: lambda x: EXIT.run(net, x),
    **{name: lambda net, around=around: around(net) for name, around in AROUND.items()},
    **{
        attack.name: lambda net, attack=attack: lambda x: attack(net, x, TWO) for attack in (FGSM(), CarliniWagner(), EarlyAttack())
    },
    "foolbox": lambda net: lambda x: ATTACKS["foolbox"]()(net, x, TWO),
    "none": lambda net: lambda x: ATTACKS["none"]()(net, x, TWO),
    "adapting": lambda net: lambda x: FromLogits(net, x),
}


@pytest.mark.parametrize("use", TAKES_IMAGES.values(), ids=TAKES_IMAGES)
@pytest.mark.parametrize("images", WRONG_IMAGES.values(), ids=WRONG_IMAGES)
def test_what_is_no_image_is_refused_wherever_images_go_in(use, images):
    with pytest.raises(ValueError, match=r"^images are .*$"):
        use(network())(images)


@pytest.mark.parametrize("images", [image for name, image in WRONG_IMAGES.items() if name != "bytes"])
def test_accuracies_take_bytes(images):
    with pytest.raises(ValueError, match=r"^(images|labels) are"):
        accuracies(network(), images, TWO)


WRONG_LABELS = {
    "too few": torch.tensor([1]),
    "a column": torch.tensor([[0], [1]]),
    "floats": torch.rand(2),
    "a list": [0, 1],
    "too large": torch.tensor([0, 10]),
    "negative": torch.tensor([0, -1]),
}


@pytest.mark.parametrize("labels", WRONG_LABELS.values(), ids=WRONG_LABELS)
def test_what_is_no_label_is_refused(labels):
    net = network()
    for use in (lambda: PGD()(net, IMAGES[:2], labels), lambda: accuracies(net, (255 * IMAGES[:2]).byte(), labels)):
        with pytest.raises(ValueError, match=r"^labels are .*$"):
            use()


@pytest.mark.parametrize("other", [nn.DataParallel(network()), nn.Flatten(), "net"], ids=lambda other: type(other).__name__)
def test_what_is_no_network_is_named(other):
    for use in (lambda: EXIT.run(other, IMAGES), lambda: PGD.__call__(PGD(), nn.Sequential(nn.Flatten()), IMAGES, LABELS)):
        with pytest.raises(ValueError, match=r"is no network of this library: .*FromLogits$"):
            use()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_networks_of_other_types_work_or_say_so(dtype):
    net, images = network().to(dtype), IMAGES.to(dtype)
    assert len(EXIT.run(net, images).label) == len(images)
    for around in AROUND.values():
        if around is not AROUND["adapted"] and around is not AROUND["adapted, then deployed"]:
            assert around(net)(images).dtype == dtype
    assert FromLogits(net, images)(images).dtype == dtype
    assert net.macs.equal(network().macs)
    assert accuracies(net, (255 * IMAGES).byte(), LABELS)
    for attack in (PGD(), CarliniWagner(), EarlyAttack(), ATTACKS["foolbox"](), ATTACKS["none"]()):
        with pytest.raises(ValueError, match=f"attacks are made in float32, and the network takes {dtype}"):
            attack(net, IMAGES, LABELS)


def test_everything_works_in_inference_mode_and_with_images_that_require_a_gradient():
    with torch.inference_mode():
        built, made = dynlib.build("mobilenet", "cifar10").eval(), IMAGES.clone()
    for images in (made, IMAGES.clone().requires_grad_()):
        for attack in (
            PGD(steps=1),
            CarliniWagner(steps=1, searches=1),
            ATTACKS["none"](),
            ATTACKS["foolbox"](settings={"steps": 1}),
        ):
            assert not attack(network(), images, LABELS).adversarial.requires_grad
        assert not EXIT.run(network(), images).label.requires_grad
    assert PGD(steps=1)(built, IMAGES, LABELS).adversarial.shape == IMAGES.shape
    with torch.inference_mode():
        assert network().macs.equal(network().with_exits((0, 1, 2)).macs)


def test_wrong_exits_are_refused():
    net = network()
    for use in (lambda k: net(IMAGES, k), net.as_static, lambda k: net.with_exits((k,))):
        for wrong in (3, -4, 1.5, 1.0, "1"):
            with pytest.raises(ValueError, match=r"exit"):
                use(wrong)
    for keep in (np.array([0, 2]), torch.tensor([0, 2])):
        assert net.with_exits(keep).n_exits == 2


PREFIXED = {
    "plain": lambda net: net,
    "data parallel": nn.DataParallel,
    "compiled": torch.compile,
    "compiled, data parallel": lambda net: nn.DataParallel(torch.compile(net)),
    "deployed": AROUND["deployed"],
    "one exit": AROUND["one exit"],
    "adapted": AROUND["adapted"],
}


@pytest.mark.parametrize("wrap", PREFIXED.values(), ids=PREFIXED)
def test_a_state_is_loaded_whatever_it_was_saved_in(wrap):
    net, other = network(), network()
    for parameter in other.parameters():
        parameter.data += 1
    other.load_state_dict(wrap(net).state_dict())
    assert other(IMAGES).equal(net(IMAGES))
    around = AROUND["adapted"](other)
    around.load_state_dict(AROUND["adapted"](net).state_dict())
    state = {name: tensor for name, tensor in net.state_dict().items() if "head" not in name}
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(state)


def check_on(device, mechanism):
    """Everything that is computed from images on a device, and on nothing else."""
    with torch.device(device):
        net, images, labels = network(), torch.rand(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64)
    for one in (net, net.with_exits((0, 1, 2))):
        logits = one(images)
        answers = Answers.of(logits)
        exit, left = mechanism.answering(answers)
        found = [logits, exit, left, mechanism.answer(answers), one.as_static(0)(images), Deployed(one, mechanism)(images)]
        for name in [*LOSSES, *EARLY_VARIANTS, "final/margin"]:
            found += [loss(logits, labels, mechanism) for loss in get_loss(name).candidates(one)]
        found += [goal.reached(logits, labels, mechanism) for goal in GOALS.values()]
        found += [FGSM().step(images, images), PGD().project(images, images), MIFGSM().accumulate(images, images)]
        assert {tensor.device.type for tensor in found} == {device}


class MadeElsewhere(Mechanism):
    def leaves(self, seen):
        return seen.margin[-1] >= torch.full((4,), 0.5)

    def fall_back(self, answers):
        return answers.label[-1]


MECHANISMS = [EXIT, EntropyExit(0.5), PatienceExit(1), AgreementExit(0.5), ThresholdPerExit((0.5, 0.5))]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda mechanism: mechanism.name)
def test_nothing_is_made_on_another_device(device, mechanism):
    """Fake tensors know their device, which need not be there, and refuse to meet those of another."""
    with FakeTensorMode():
        check_on(device, mechanism)


def test_what_is_made_on_another_device_would_be_noticed():
    with FakeTensorMode(), pytest.raises(RuntimeError, match="device"):
        check_on("cuda", MadeElsewhere())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_network_is_made_and_asked_where_its_backbone_is(dtype):
    """The meta device holds shapes without numbers."""
    small = network().backbone
    net = MultiExitNetwork(small.to("meta", dtype), "cifar10", (1, 2))
    images = torch.empty(5, 3, 32, 32, device="meta", dtype=dtype)
    for one in (net, net.with_exits((1, 2)), net.with_exits((2,))):
        assert one(images).shape == (one.n_exits, 5, 10)
        assert (one(images).device.type, one(images).dtype) == ("meta", dtype)
        assert one.macs.device.type == "cpu"
    assert net.macs.equal(network().macs)


def test_networks_can_be_transformed():
    net = network()
    assert torch.func.vmap(lambda image: net(image[None])[:, 0])(IMAGES).allclose(net(IMAGES).transpose(0, 1), atol=1e-5)
    assert torch.func.grad(lambda x: net(x).sum())(IMAGES).shape == IMAGES.shape


def test_the_mode_of_a_wrapper_would_be_noticed():
    """An ordinary module around a network fails the test above."""

    class Ordinary(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, images):
            return self.net(images)

    with pytest.raises(AssertionError):
        test_what_stands_around_a_network_is_in_its_mode(Ordinary)
