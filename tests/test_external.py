import sys

import pytest
import torch

from dynlib.attacks import PGD
from dynlib.attacks.external import AutoAttack, External, Foolbox
from dynlib.mechanisms import ConfidenceExit
from tests.conftest import small_network

MECHANISM = ConfidenceExit(0.12)
ATTACKS = {
    "foolbox": Foolbox(eps=8 / 255, mechanism=MECHANISM, settings={"steps": 5}),
    "autoattack": AutoAttack(eps=8 / 255, mechanism=MECHANISM, attacks=("apgd-ce",)),
}


@pytest.fixture(scope="module")
def net():
    return small_network(3)


@pytest.fixture(scope="module")
def images():
    return torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def labels(net, images):
    return MECHANISM.run(net, images).label


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_the_network_as_deployed_is_attacked_inside_the_ball(net, images, labels, attack):
    result = attack(net, images, labels)
    assert (result.adversarial - images).abs().max() <= 8 / 255 + 1e-6
    assert result.adversarial.min() >= 0
    assert result.adversarial.max() <= 1
    assert result.reached.equal(MECHANISM.run(net, result.adversarial).label != labels)
    weak = PGD(eps=0.1 / 255, steps=1, random_start=False, mechanism=MECHANISM)(net, images, labels).reached
    assert result.reached.sum() > weak.sum()  # an idle adapter would reach nothing
    assert (result.steps >= 5).all()
    assert (result.macs >= 2 * 5 * net.macs[-1]).all()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_repeatable_and_leaves_no_trace(net, images, labels, attack):
    torch.manual_seed(3)
    state, weights = torch.get_rng_state(), [p.detach().clone() for p in net.parameters()]
    net.train()
    first = attack(net, images, labels).adversarial
    assert net.training
    net.eval()
    assert torch.get_rng_state().equal(state)
    assert all(p.equal(w) and p.grad is None and p.requires_grad for p, w in zip(net.parameters(), weights, strict=True))
    assert attack(net, images, labels).adversarial.equal(first)


def test_what_leaves_the_ball_is_brought_back(net, images, labels):
    class Far(External):
        def craft(self, module, images, labels):
            return 1 - images

    result = Far(eps=1 / 255)(net, images, labels)
    assert (result.adversarial - images).abs().max() <= 1 / 255 + 1e-6


def test_wrong_settings_are_named(net, images, labels):
    with pytest.raises(ValueError, match="foolbox has no attack 'Pgd'"):
        Foolbox(method="Pgd")(net, images, labels)
    with pytest.raises(ValueError, match="no attack 'LinfPGD' with these settings"):
        Foolbox(settings={"speed": 3})(net, images, labels)
    with pytest.raises(ValueError, match=r"eps 2\.0 is outside"):
        AutoAttack(eps=2)
    with pytest.raises(ValueError, match="AutoAttack has no part 'apgd'"):
        AutoAttack(attacks=("apgd-ce", "apgd"))
    with pytest.raises(ValueError, match="images are outside"):
        ATTACKS["foolbox"](net, 255 * images, labels)


def test_a_missing_library_is_named(net, images, labels, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(ModuleNotFoundError, match="pyautoattack is not installed"):
        ATTACKS["autoattack"](net, images, labels)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_images_without_a_gradient_are_counted_and_warned_of(images, attack):
    """Softmax is so sure that cross-entropy has no gradient: what is not moved is not robust."""
    net = small_network(3)
    with torch.no_grad():
        for head in (*net.exits, net.backbone.head):
            head[-1].weight *= 1e7
    labels = MECHANISM.run(net, images).label
    with pytest.warns(UserWarning, match=r"1\d of 12 images: the gradient was zero"):
        result = attack(net, images, labels)
    assert (result.stuck | result.reached).all()
    assert not attack(small_network(3), images, labels).stuck.any()


def test_only_the_images_concerned_count(net, images, labels):
    class Half(External):
        def craft(self, module, images, labels):
            shown = images[3:5].clone().requires_grad_()
            (module(shown) * torch.tensor([0.0, 1.0])[:, None]).sum().backward()
            return images

    with pytest.warns(UserWarning, match="1 of 12 images"):
        assert Half()(net, images, labels).stuck.nonzero().flatten().tolist() == [3]


def test_memory_layout_changes_no_noise(net, images, labels):
    """``rand_like`` draws in the order of memory."""

    class Noisy(External):
        def craft(self, module, images, labels):
            return images + self.eps * torch.rand_like(images)

    plain = Noisy()(net, images, labels).adversarial
    sideways = images.transpose(2, 3).contiguous().transpose(2, 3)
    for other in (images.contiguous(memory_format=torch.channels_last), sideways):
        assert not other.is_contiguous()
        assert Noisy()(net, other, labels).adversarial.equal(plain)
