import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlib.networks.backbones import MODELS
from dynlib.networks.identity import EXITS, REGIMES, TRAINED, Network, beside

networks = st.builds(
    lambda dataset, model, exits, trained, regime, seed: Network(
        dataset, model, exits, "joint" if exits == "none" else trained, regime, seed
    ),
    st.sampled_from(["cifar10", "cifar100"]),
    st.sampled_from(sorted(MODELS)),
    st.sampled_from(sorted(EXITS)),
    st.sampled_from(sorted(TRAINED)),
    st.sampled_from(REGIMES),
    st.integers(0, 12),
)


@given(networks)
def test_an_id_is_read_as_it_was_made(network):
    assert Network.parse(network.id) == network


@given(networks, networks)
def test_two_networks_never_share_an_id_a_title_or_a_rank(one, other):
    for name in ("id", "title", "rank"):
        assert (getattr(one, name) == getattr(other, name)) == (one == other)


def test_parts():
    network = Network.parse("cifar10-resnet56-dynn_sparse-adversarial-seed2")
    assert (network.exits, network.trained, network.regime, network.seed) == ("sparse", "joint", "adversarial", 2)
    assert network.parts == ("cifar10", "resnet56", "dynn_sparse")
    assert network.exit_after == (4, 16)
    assert network.title == "ResNet-56, CIFAR-10, DyNN, sparse exits, adversarial, seed 2"


def test_siblings():
    heads = Network("cifar100", "vgg16", trained="heads", seed=1)
    assert heads.id == "cifar100-vgg16-ic_only-seed1"
    assert heads.sibling(exits="none").id == "cifar100-vgg16-sdnn-seed1"
    with pytest.raises(ValueError, match="no field 'kind'"):
        heads.sibling(kind="sdnn")


def test_first_trainings_go_beside_each_other():
    first, second = (Network("cifar10", "resnet56", seed=seed) for seed in (1, 3))
    other, robust = Network("cifar10", "vgg16", "none"), Network("cifar10", "vgg16", regime="adversarial")
    fits = beside([second, other, robust, first])
    assert fits(first, other)
    assert fits(first, first)
    assert not fits(second, other)
    assert not fits(first, second)
    assert not fits(first, robust)


@pytest.mark.parametrize(
    "id",
    ["", "cifar10", "cifar10-vgg16", "cifar10-vgg16-static", "svhn-vgg16-dynn", "cifar10-lenet-dynn", "cifar10-vgg16-sdnn_early",
     "cifar10-vgg16-dynn_all", "cifar10-vgg16-dynn-seed0", "cifar10-vgg16-dynn-seed-1", "cifar10-vgg16-dynn-seed1-adversarial"],
)  # fmt: skip
def test_what_is_no_id_is_refused(id):
    with pytest.raises(ValueError, match=r"unknown|is not the id of a network"):
        Network.parse(id)


@pytest.mark.parametrize("changes", [{"seed": -1}, {"seed": 1.5}, {"exits": "none", "trained": "heads"}, {"regime": "robust"}])
def test_impossible_networks_are_refused(changes):
    with pytest.raises(ValueError, match=r"seed|static|regime"):
        Network(**{"dataset": "cifar10", "model": "vgg16", **changes})
