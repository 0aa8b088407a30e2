import numpy as np
import pandas as pd
import pytest
import torch

import dynlib
from dynlib import claims, design, experiments, plots, results
from dynlib.files import CHECKPOINTS
from dynlib.mechanisms import FALL_BACKS, ConfidenceExit
from dynlib.networks import checkpoints
from dynlib.networks.checkpoints import read_card
from dynlib.networks.identity import Network
from dynlib.packing import LARGEST, pack, unpack
from dynlib.results import Outputs, ResultsError
from tests.test_measures import DYNN, SDNN

PGD = {"name": "pgd", "losses": ["final"], "eps_255": [8], "steps": 2}


@pytest.fixture(scope="module")
def outputs(dynn, sample):
    """Of the shipped network on a few images."""
    with torch.no_grad():
        return Outputs(DYNN, dynn(sample[0][:40]), sample[1][:40], dynn.macs)


def test_all_subsets():
    assert len(set(design.subsets(7))) == 64
    assert len(set(design.subsets(6))) == 32
    assert design.subsets(3) == [(2,), (0, 2), (1, 2), (0, 1, 2)]


@pytest.mark.parametrize("exits", [(0, 3, 6), (6,), (1, 2, 5, 6)])
@pytest.mark.parametrize("fall_back", FALL_BACKS)
def test_a_subset_is_the_network_built_with_it(dynn, sample, outputs, exits, fall_back):
    mechanism = ConfidenceExit(0.8, fall_back)
    built = dynn.with_exits(exits)
    assert built.n_exits == len(exits)
    assert built.exit_after == tuple(dynn.exit_after[k] for k in exits[:-1])
    decision = mechanism.run(built, sample[0][:40])
    found = design.evaluate(outputs, exits, mechanism)
    assert found.correct.equal(decision.label == sample[1][:40])
    assert found.exit.equal(torch.tensor(exits)[decision.exit])
    assert (1e6 * found.mmacs).tolist() == pytest.approx(decision.cost.tolist(), rel=1e-6)


@pytest.mark.parametrize("exits", [(), (3, 1, 6), (1, 1, 6), (0, 7), (0, 1), (-1, 6)])
def test_bad_subsets_are_refused(dynn, outputs, exits):
    with pytest.raises(ValueError, match=r"no exits|need increasing numbers"):
        design.evaluate(outputs, exits, ConfidenceExit())
    with pytest.raises(ValueError, match=r"no exits|need increasing numbers"):
        dynn.with_exits(exits)


def test_outputs_must_belong_together(outputs):
    with pytest.raises(ResultsError, match="not of one network"):
        design.space(outputs, outputs._replace(network="cifar10-resnet56-ic_only"))
    with pytest.raises(ResultsError, match="not of one network"):
        design.space(outputs, outputs._replace(labels=outputs.labels.flip(0)))


def test_space_holds_every_design(outputs):
    part = outputs._replace(logits=outputs.logits[:, :6], labels=outputs.labels[:6])
    table = design.space(outputs, part)
    assert len(table) == 64 * len(design.THRESHOLDS) * 2
    every = design.default(table)
    alone = design.evaluate(part, range(7), ConfidenceExit(0.9))
    assert every.exits == tuple(range(7))
    assert every.clean.tolist() == every.robust.tolist() == alone.correct.tolist()
    assert every.mmacs == pytest.approx(alone.mmacs.mean().item())
    static = table[table.exits == (6,)]
    assert static.mmacs.max() == static.mmacs.min()


def hand_made():
    """Three designs of a network with two exits on eight images; the default is the first of them."""
    rows = [
        ((0, 1), 0.9, "most_confident", "11111100", "11001000", 3.0),
        ((0, 1), 0.9, "final", "11111101", "11100100", 3.0),
        ((1,), 0.9, "most_confident", "11110000", "11111111", 5.0),
    ]
    table = pd.DataFrame(rows, columns=["exits", "threshold", "fall_back", "clean", "robust", "mmacs"])
    for name in ("clean", "robust"):
        table[name] = [np.array([c == "1" for c in text]) for text in table[name]]
    return table


def test_chosen_design_by_hand():
    """On the first four images all designs are right when clean, and the third is the most robust."""
    found = design.chosen(hand_made())
    assert (found["exits"], found["n"]) == ("2", 4)
    assert found["per_image"].tolist() == [0, 1, 1, 1]
    assert found["gain"] == 0.75
    assert found["clean_lost"] == 0.5
    worse = hand_made()
    worse.loc[2, "clean"][0] = False  # now it costs too much where the choice is made, and the second is chosen
    assert design.chosen(worse)["per_image"].tolist() == [-1, 1, 0, 0]


def test_pareto_by_hand():
    table = design.trade_off(hand_made())
    assert table.pareto.tolist() == [False, True, True]  # the second beats the first at equal cost
    assert table.clean.tolist() == [0.75, 0.875, 0.5]
    assert table.exits.tolist() == ["1 2", "1 2", "2"]


def test_factors_change_one_thing(outputs):
    table = design.factors(design.space(outputs, outputs))
    counts = table.groupby("factor").size()
    assert counts.to_dict() == {"first exit": 7, "number of early exits": 7, "threshold": len(design.THRESHOLDS), "fall-back": 2}
    usual = table[[(f, lv) in {("first exit", "1"), ("threshold", "0.9")} for f, lv in zip(table.factor, table.level, strict=True)]]
    assert (usual.gain == 0).all()
    assert usual.equal.all()
    alone = design.evaluate(outputs, (4, 5, 6), ConfidenceExit(0.9)).correct.double().mean().item()
    (row,) = table[(table.factor == "first exit") & (table.level == "5")].itertuples()
    assert row.robust == row.clean == pytest.approx(alone)
    assert row.low < row.robust < row.high


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [((0.2,) * 6, "supported"), ((0.3,) * 4 + (-0.1,) * 2, "partly"), ((0.2, -0.2) * 3, "not supported"), ((0.2,), "open")],
)
def test_rule_of_c3(gains, verdict):
    rng = np.random.default_rng(1)
    arrays = [np.sign(gain) * (rng.random(300) < abs(gain)) for gain in gains]
    table = pd.DataFrame({"dataset": "cifar10", "n": 300, "gain": [a.mean() for a in arrays], "per_image": arrays})
    finding = claims.judge_c3(table.assign(clean_lost=0.012))
    assert finding.verdict == verdict
    assert finding.seen.endswith("for +1.2 points of clean accuracy lost")


def test_experiment_stores_the_targets_outputs(sdnn, dynn):
    attacks = [{"name": "fgsm", "losses": ["final"], "eps_255": [8]}, PGD | {"eps_255": [4, 8]}]
    found = experiments.exit_design(SDNN, [DYNN], n_images=5, attacks=attacks, seed=0, device="cpu")
    images, labels = dynlib.data.load("cifar10", "test", 5)
    pgd = {eps: dynlib.attacks.PGD(eps=eps / 255, loss="final", steps=2) for eps in (4, 8)}
    for name, attack in {"fgsm/8": dynlib.attacks.FGSM(eps=8 / 255), "pgd/4": pgd[4], "pgd/8": pgd[8]}.items():
        logits = unpack(found[f"{DYNN}/{name}/largest"], found[f"{DYNN}/{name}/classes"], 10)
        with torch.no_grad():
            expected = dynn(attack(sdnn, images.float() / 255, labels).adversarial)
        torch.testing.assert_close(logits.exp().amax(dim=-1), expected.softmax(dim=-1).amax(dim=-1), atol=1e-3, rtol=0)
        assert logits.argmax(dim=-1).equal(expected.argmax(dim=-1))
    assert found["labels"].equal(labels)


@pytest.mark.parametrize("n_classes", [10, 100])
def test_packed_outputs_keep_the_likeliest_classes(n_classes):
    logits = 6 * torch.randn(3, 50, n_classes, generator=torch.Generator().manual_seed(0))
    logits[0, 0] = 0  # no class likelier than another
    logits[0, 1, 0] = 1000  # one that leaves nothing to the others
    back = unpack(**pack(logits), n_classes=n_classes)
    assert back.logsumexp(dim=-1).abs().max() < 2e-3
    largest, classes = logits.log_softmax(dim=-1).topk(LARGEST)
    torch.testing.assert_close(back.gather(-1, classes).exp(), largest.exp(), atol=1e-3, rtol=0)
    assert (back.scatter(-1, classes, -torch.inf).amax(dim=-1) <= back.gather(-1, classes)[..., -1]).all()


def test_head_macs_are_what_the_heads_add(dynn):
    card = read_card(CHECKPOINTS / f"{DYNN}.safetensors")
    static = read_card(CHECKPOINTS / f"{SDNN}.safetensors")
    assert card["macs"][-1] - dynn.head_macs.sum().item() == static["macs"][-1]


def test_examples_of_two_networks_are_two_curves(outputs):
    """One attacker may hold any of several networks; no line leads from the end of one curve to the start of the next."""
    table = design.factors(design.space(outputs, outputs)).assign(
        dataset="cifar10", model="resnet56", attacker="another architecture"
    )
    curves = pd.concat([table.assign(source=source) for source in ("vgg16", "mobilenet")], ignore_index=True)
    fig = plots.factor_panels(curves)
    lines = [line.get_xdata() for panel in fig.axes for line in panel.lines]
    assert max(len(x) for x in lines) == len(design.THRESHOLDS)
    assert all((np.diff(x) > 0).all() for x in lines if len(x) > 1)
    assert [text.get_text() for text in fig.legends[0].texts] == ["another architecture"]


def test_retrained_designs_stand_beside_the_choice_from_all_exits(outputs):
    """The stand-in for a retrained network says at its exits what the whole one says there, so both ways of training agree."""
    clean = {DYNN: outputs}
    for exits in ("early", "late", "sparse"):
        design_trained = Network.parse(DYNN).sibling(exits=exits)
        logits, macs = outputs.logits[[*design_trained.exit_indices, 6]], checkpoints.new(design_trained).macs
        clean[design_trained.id] = outputs._replace(network=design_trained.id, logits=logits, macs=macs)
    attacked = {name: o._replace(labels=o.labels.roll(1)) for name, o in clean.items()}
    table = design.retrained_table(clean, attacked)
    assert table.exits.tolist() == [name for name in ("1 2 3 4 5 6 7", "1 2 3 7", "4 5 6 7", "1 4 7") for _ in range(2)]
    ways = [rows.reset_index(drop=True) for _, rows in table.groupby("trained", sort=False)]
    for name in ("clean", "robust", "mmacs"):
        assert ways[0][name].tolist() == pytest.approx(ways[1][name].tolist())
    assert table.clean.mean() > 0.7 > table.robust.mean() + 0.3  # the labels of the attacked images were exchanged
    gains = design.retrained_gains(table)
    assert gains.gain.iloc[0] == pytest.approx(table.robust.iloc[2] - table.robust.iloc[4])  # early exits over late ones
    late = table[table.design == "dynn_late"].iloc[0]
    assert late.per_image.mean() == late.robust
    alone = design.evaluate(clean[DYNN], (3, 4, 5, 6), ConfidenceExit(0.9))
    assert late.clean == pytest.approx(alone.correct.double().mean().item())


def test_experiment_stores_clean_outputs_of_retrained_designs(dynn):
    found = experiments.retrained(SDNN, [DYNN], n_images=5, attacks=[PGD], seed=0, device="cpu")
    images, _ = dynlib.data.load("cifar10", "test", 5)
    with torch.no_grad():
        expected = dynn(images.float() / 255).argmax(dim=-1)
    assert unpack(found[f"{DYNN}/none/0/largest"], found[f"{DYNN}/none/0/classes"], 10).argmax(dim=-1).equal(expected)
    assert f"{DYNN}/pgd/8/largest" in found


def test_an_attack_twice_at_one_radius_is_refused():
    with pytest.raises(ValueError, match="twice at one radius: pgd/8, pgd/8"):
        experiments.exit_design(SDNN, [DYNN], n_images=5, attacks=[PGD | {"seeds": [0, 1]}], seed=0, device="cpu")


def test_what_is_said_of_retrained_designs_is_so():
    """The end of notebook 3's Figure 3d: early exits over late ones, more so when trained for; few exits over all, not seen."""
    seen = results.read_exit_design(claims.largest("03_exit_design"), "retrained")
    clean, attacked = ({target: o for (_, target), o in seen[setting].items()} for setting in (("none", 0), ("pgd", 8)))
    early_over_late, few_over_all = (
        rows for _, rows in design.retrained_gains(design.retrained_table(clean, attacked)).groupby("first")
    )
    assert early_over_late["first"].iloc[0] == "1 2 3 7"
    assert (early_over_late.low > 0).all()
    gain = early_over_late.set_index("trained").gain
    assert gain["for these exits"] > gain["for all exits"]
    assert ((few_over_all.low <= 0) & (few_over_all.high >= 0)).all()
