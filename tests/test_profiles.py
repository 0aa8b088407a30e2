"""Profiles: what they say reaches the attacks, and what is wrong in them is named, with its place, before anything runs."""

import copy

import pytest
import yaml

from dynlib import profiles
from dynlib.attacks import PGD, AutoAttack, EarlyPGD, Foolbox
from dynlib.campaigns import build, completed, plain
from dynlib.files import PROFILES
from dynlib.mechanisms import ConfidenceExit, EntropyExit, PatienceExit, ThresholdPerExit
from dynlib.networks.identity import Network
from dynlib.profiles import ProfileError

NETWORKS = [{"dataset": "cifar10", "model": "resnet56"}]
CAMPAIGN = {"images": {"test": 4}, "attacks": [{"attack": "pgd", "steps": 2}]}
TINY = {
    "device": "cpu",
    "recipe": None,
    "seed": 3,
    "mechanism": {"mechanism": "confidence", "threshold": 0.8},
    "networks": NETWORKS,
    "campaigns": {"only": CAMPAIGN},
    "timing": {"images": 1, "batches": [1], "rounds": 1},
    "notebooks": {},
}


@pytest.fixture
def load(tmp_path):
    """Loads a profile from its settings."""

    def loaded(given, name="made"):
        profiles.load.cache_clear()
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(given))
        return profiles.load(name, tmp_path)

    return loaded


def attacks(load, *entries):
    profile = load(TINY | {"campaigns": {"only": CAMPAIGN | {"attacks": list(entries), "sources": [{"exits": "all"}]}}})
    return [planned.attack for planned in profile.campaigns["only"].attacks]


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_shipped_profiles_are_sound(name):
    profile = profiles.load(name)
    assert profile.campaigns.keys() == {
        "clean",
        "transfer",
        "cost",
        "strength",
        "surface",
        "designs",
        "defences",
        "undefended",
        "slowdown",
        "skipping",
        "published_attack",
    }
    clean = profile.campaigns["clean"]
    assert set(profile.networks) == set(clean.sources)
    for campaign in profile.campaigns.values():  # clean answers are there for all that is attacked
        assert all(clean.images[split] >= n for split, n in campaign.images.items())


def test_what_a_profile_says_reaches_the_fields_of_the_attack(load):
    entry = {"attack": "pgd", "eps": "3/255", "steps": 7, "step_size": 0.01, "restarts": 2, "loss": "taken", "early_stop": True}
    (attack,) = attacks(load, entry)
    expected = {"eps": 3 / 255, "steps": 7, "step_size": 0.01, "restarts": 2, "loss": "taken", "early_stop": True}
    assert attack == PGD(**expected, mechanism=ConfidenceExit(0.8), seed=3)  # the profile's, where the entry says nothing


def test_each_makes_all_combinations(load):
    found = attacks(load, {"attack": "pgd", "each": {"eps": ["1/255", "2/255"], "loss": ["final", "average"], "seed": [0, 1]}})
    assert len({(a.eps, a.loss, a.seed) for a in found}) == 8


def test_an_attack_may_expect_another_mechanism(load):
    found = attacks(
        load,
        {"attack": "early_pgd", "mechanism": {"mechanism": "patience", "patience": 2}},
        {"attack": "pgd", "mechanism": {"mechanism": "thresholds", "thresholds": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]}},
        {"attack": "pgd", "mechanism": {"mechanism": "entropy", "threshold": 0.3}},
    )
    assert [a.mechanism for a in found] == [PatienceExit(2), ThresholdPerExit((0.5, 0.6, 0.7, 0.8, 0.9, 1.0)), EntropyExit(0.3)]


def test_attacks_of_other_libraries_are_named_as_any(load):
    found = attacks(
        load,
        {"attack": "foolbox", "eps": "2/255", "method": "LinfPGD", "settings": {"steps": 3}},
        {"attack": "autoattack", "attacks": ["apgd-ce"]},
    )
    usual = {"mechanism": ConfidenceExit(0.8), "seed": 3}
    assert found == [Foolbox(eps=2 / 255, settings={"steps": 3}, **usual), AutoAttack(attacks=("apgd-ce",), **usual)]


def test_settings_lead_back_to_the_attack():
    for attack in (PGD(eps=0.1, mechanism=EntropyExit(0.2), precision="bfloat16"), EarlyPGD(), AutoAttack(attacks=("apgd-t",))):
        assert build("attack", plain(attack, "attack"), "here") == attack


def test_a_profile_extends_another(load):
    load(TINY, "base")
    profile = load({"extends": "base", "seed": 5, "campaigns": {"only": {"images": {"test": 9}}, "more": CAMPAIGN}})
    assert profile.seed == 5
    assert profile.campaigns["only"].images == {"test": 9}
    assert profile.campaigns["only"].attacks[0].attack.steps == 2
    assert profile.campaigns["more"].images == {"test": 4}


def test_a_static_network_is_attacked_once_whatever_the_loss(load):
    entries = [{"attack": "pgd", "each": {"loss": ["final", "taken", "average", "taken/margin", "average/margin"]}}]
    campaign = load(TINY | {"campaigns": {"only": CAMPAIGN | {"attacks": entries}}}).campaigns["only"]
    static = Network("cifar10", "resnet56", "none")
    assert [planned.attack.loss for planned in campaign.attacks_of(static)] == ["final", "final/margin"]
    assert len(campaign.attacks_of(static.sibling(exits="all"))) == 5


def test_designs_that_a_network_cannot_have_are_left_out(load):
    entries = [{"attack": "early_pgd", "each": {"exits": ["all", "from6", "spread2"]}}]
    given = TINY | {"networks": [{"dataset": "cifar10", "model": ["resnet56", "mobilenet"]}]}
    given |= {"campaigns": {"only": CAMPAIGN | {"attacks": entries, "sources": [{"exits": "all", "trained": "joint"}]}}}
    campaign = load(given).campaigns["only"]
    numbers = {source.model: [planned.exits for planned in campaign.attacks_of(source)] for source in campaign.sources}
    assert numbers == {"resnet56": ["all", "from6", "spread2"], "mobilenet": ["all", "spread2"]}  # of five early exits


def test_targets_and_sources_are_selected_by_the_fields_of_a_network(load):
    given = CAMPAIGN | {"sources": [{"exits": "none"}], "targets": [{"trained": "heads"}, {"exits": "none"}], "same": ["model"]}
    networks = [{"dataset": ["cifar10", "cifar100"], "model": ["resnet56", "vgg16"]}]
    campaign = load(TINY | {"networks": networks, "campaigns": {"only": given}}).campaigns["only"]
    assert len(campaign.sources) == 4
    for source, targets in campaign.targets.items():
        assert set(targets) == {source, source.sibling(exits="all", trained="heads")}


def entry(**changes):
    return {"campaigns": {"only": CAMPAIGN | {"attacks": [{"attack": "pgd", **changes}]}}}


def campaign(**changes):
    return {"campaigns": {"only": CAMPAIGN | changes}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color": "red"}, "color: Extra inputs are not permitted"),
        ({"device": 3}, "device: Input should be a valid string"),
        ({"seed": None}, "seed: Input should be a valid integer"),
        ({"networks": []}, "networks: List should have at least 1 item"),
        ({"networks": [{"dataset": "cifar10", "model": "resnet50"}]}, r"networks\[0\]: unknown model 'resnet50'"),
        ({"networks": [{"model": "resnet56"}]}, r"networks\[0\]: .*dataset"),
        ({"networks": [{"dataset": "cifar10", "model": "resnet56", "depth": 3}]}, r"networks\[0\]\.depth"),
        ({"networks": [{"dataset": "cifar10", "model": "resnet56", "exits": "middle"}]}, r"networks\[0\]: unknown exits 'middle'"),
        ({"mechanism": {"mechanism": "trust"}}, "mechanism: unknown mechanism 'trust'"),
        ({"mechanism": {"mechanism": "confidence", "threshold": 1.5}}, "mechanism: threshold 1.5 is outside"),
        ({"mechanism": {"mechanism": "confidence", "level": 1}}, "mechanism.level: confidence has no such field"),
        ({"mechanism": {"mechanism": "entropy"}}, "mechanism.threshold: is missing"),
        ({"timing": {"images": 1, "batches": [0], "rounds": 1}}, r"timing\.batches\[0\]"),
        (campaign(images={"train": 5}), "campaigns.only.images.train"),
        (campaign(images={"test": 0}), "campaigns.only.images.test: Input should be greater than 0"),
        (campaign(images={"test": "5"}), "campaigns.only.images.test: Input should be a valid integer"),
        (campaign(attacks=[]), "campaigns.only.attacks: List should have at least 1"),
        (campaign(same=["size"]), r"campaigns\.only\.same\[0\]"),
        (campaign(targets=[{"model": "vgg16"}]), r"campaigns\.only\.targets\[0\]: the profile has no such network"),
        (campaign(sources=[{"kind": "dynn"}]), r"campaigns\.only\.sources\[0\]"),
        (entry(attack="deepfool"), r"campaigns\.only\.attacks\[0\]: unknown attack 'deepfool'"),
        (entry(epsilon=0.1), r"attacks\[0\]\.epsilon: pgd has no such field: it has eps, loss"),
        (entry(eps="8"), r"attacks\[0\]\.eps: '8': Input should be a valid number"),
        (entry(eps=0.0), r"attacks\[0\]: eps 0.0 is outside"),
        (entry(steps=2.5), r"attacks\[0\]\.steps: 2.5: Input should be a valid integer"),
        (entry(steps=True), r"attacks\[0\]\.steps: True: Input should be a valid integer"),
        (entry(loss="mean"), r"attacks\[0\]: unknown loss 'mean'"),
        (entry(goal="win"), r"attacks\[0\]: unknown goal 'win'"),
        (entry(goal="open_surface"), "has no early exits, which pgd"),
        (entry(exits="middle"), "unknown exits 'middle'"),
        (entry(sources={"kind": "dynn"}), r"attacks\[0\]\.sources"),
        (entry(each={"eps": 0.1}), r"attacks\[0\]\.each: need lists"),
        (entry(mechanism={"mechanism": "patience", "patience": 0}), r"attacks\[0\]\.mechanism: patience 0"),
        (campaign(attacks=[{"attack": "pgd"}, {"attack": "pgd", "seed": 3}]), "is there twice"),
        ({"extends": "nowhere"}, "there is no nowhere.yaml"),
        ({"extends": "made"}, "made extends itself"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(load, change, message):
    with pytest.raises(ProfileError, match=message) as caught:
        load(TINY | change)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("profile made: ")


def test_settings_of_older_records_are_completed_with_the_defaults():
    settings = profiles.load("quick").campaigns["transfer"].settings
    older = copy.deepcopy(settings)
    for attack in older["attacks"].values():
        del attack["precision"]
    assert older != settings
    assert completed(older) == settings
    name = next(iter(older["attacks"]))
    older["attacks"][name]["gone"] = 1  # a field that there is no more: of other settings, not damaged
    assert completed(older) == older
