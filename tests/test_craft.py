"""What ``craft`` writes is what the attacks make and the targets answer, and tables say so again."""

import json
import shutil

import pytest
import torch
import yaml

from dynlib import craft, data, profiles, records
from dynlib.analysis.measured import Records
from dynlib.attacks import PGD, EarlyPGD
from dynlib.campaigns import Planned
from dynlib.mechanisms import Answers, ConfidenceExit
from dynlib.networks import checkpoints
from dynlib.networks.folding import folded
from dynlib.networks.identity import Network
from dynlib.records import FIXED_POINT, RecordsError
from workflow.craft import Step, done

DYNN = Network("cifar10", "resnet56")
SDNN = DYNN.sibling(exits="none")
N = 6
PROFILE = {
    "device": "cpu",
    "recipe": None,
    "seed": 0,
    "mechanism": {"mechanism": "confidence", "threshold": 0.7},
    "networks": [{"dataset": "cifar10", "model": "resnet56", "trained": "joint"}],
    "campaigns": {
        "made": {
            "images": {"test": N, "validation": 2},
            "attacks": [
                {"attack": "none"},
                {"attack": "pgd", "steps": 2, "eps": "2/255"},
                {"attack": "early_pgd", "steps": 2, "exits": "spread2", "sources": {"exits": "all"}},
            ],
        }
    },
    "timing": {"images": 1, "batches": [1], "rounds": 1},
    "notebooks": {},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A profile's campaign, measured: the profile and the folder of its results."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(PROFILE))
    profile = profiles.load("tiny", folder)
    for source in profile.campaigns["made"].sources:
        craft.write("tiny", profile.campaigns["made"], source, "cpu", folder / "made")
    return profile, folder


@pytest.fixture(scope="module")
def read(run):
    return Records(run[0], "made", run[1])


@pytest.fixture(scope="module")
def nets():
    return {network: folded(checkpoints.load_network(network)) for network in (DYNN, SDNN)}


@pytest.mark.parametrize("source", [DYNN, SDNN])
def test_records_are_what_attack_and_targets_make(run, read, nets, source):
    test, mechanism = data.load("cifar10", "test", N), ConfidenceExit(0.7)
    attack = PGD(steps=2, eps=2 / 255, mechanism=mechanism, loss="final" if source.is_static else "average")
    made, name = attack(nets[source], test.inputs, test.labels), Planned(attack).name
    row = read.examples()[lambda t: (t.source == source) & (t.attack == name)].iloc[0]
    for column in ("reached", "stuck", "steps", "macs"):
        assert (row[column] == getattr(made, column).numpy()).all(), column
    moved = (made.adversarial - test.inputs).flatten(1)
    assert row.linf == pytest.approx(moved.abs().amax(dim=1).numpy(), rel=1e-6)
    assert row.l2 == pytest.approx(moved.norm(dim=1).numpy(), rel=1e-5)
    for seen in (s for s in read.seen() if (s.source, s.attack) == (source, name)):
        with torch.no_grad():
            answers = Answers.of(nets[seen.target](made.adversarial))
        assert seen.truth.equal(test.labels)
        for part in ("label", *FIXED_POINT):
            assert getattr(seen.answers, part).equal(getattr(answers, part)), part


def test_decisions_from_records_are_those_of_the_network(read, nets):
    """As the network makes them when it really skips."""
    test, mechanism = data.load("cifar10", "test", N), ConfidenceExit(0.7)
    row = read.shown()[lambda t: (t.target == DYNN) & (t.source == DYNN) & (t.method == "none")].iloc[0]
    decision = mechanism.run(nets[DYNN], test.inputs)
    assert (row.label == decision.label.numpy()).all()
    assert (row.cost == decision.cost.numpy()).all()


def test_a_design_is_attacked_and_all_exits_are_shown(read, nets):
    test, mechanism = data.load("cifar10", "test", N), ConfidenceExit(0.7)
    with torch.no_grad():
        own = nets[DYNN](test.inputs)[-1].argmax(dim=-1)
    made = EarlyPGD(steps=2, mechanism=mechanism)(nets[DYNN].with_exits((0, 3, 6)), test.inputs, own)
    row = read.examples()[lambda t: t.attack.str.contains("spread2")].iloc[0]
    assert row.source == DYNN
    assert (row.reached == made.reached.numpy()).all()
    (seen,) = (s for s in read.seen() if "spread2" in s.attack and s.target == DYNN)
    assert len(seen.answers) == 7


def test_validation_images_are_told_apart(read):
    assert {len(seen.truth) for seen in read.seen("validation")} == {2}
    assert read.attacks.exits.tolist().count("spread2") == 1
    assert read.shown("validation").eps_255.isin([0, 2, 8]).all()


def test_provenance(run):
    _, folder = run
    about = records.about(records.path(folder / "made", "answers", DYNN))
    assert about["weights"].keys() == {DYNN.id, SDNN.id}
    assert about["settings"]["images"] == {"test": N, "validation": 2}
    assert about["device_seconds"] > 0


def test_records_of_other_settings_are_refused(run, tmp_path):
    _, folder = run
    changed = PROFILE | {"mechanism": {"mechanism": "confidence", "threshold": 0.8}}
    (tmp_path / "tiny.yaml").write_text(json.dumps(changed))
    with pytest.raises(RecordsError, match=r"dynn\.answers\.parquet is of another settings than asked for|sdnn"):
        Records(profiles.load("tiny", tmp_path), "made", folder).shown()


def test_a_step_is_done_while_all_that_it_stands_on_is_here(run, tmp_path, monkeypatch):
    profile, folder = run
    step, results = Step(profile.campaigns["made"], SDNN), tmp_path / "results"
    shutil.copytree(folder / "made", results / "made")
    assert done(profile, step, results)
    (tmp_path / "tiny.yaml").write_text(json.dumps(PROFILE | {"seed": 1}))
    changed = profiles.load("tiny", tmp_path)
    assert not done(changed, Step(changed.campaigns["made"], SDNN), results)
    with monkeypatch.context() as patch:
        patch.setattr(craft, "code_version", lambda: "another")
        assert not done(profile, step, results)
    examples, answers = step.files(results)
    answers.write_bytes(answers.read_bytes()[:100])
    assert not done(profile, step, results)
    examples.unlink()
    assert not done(profile, step, results)
    assert done(profile, step._replace(source=DYNN), results)
