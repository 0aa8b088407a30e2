import numpy as np
import pandas as pd
import pytest
import torch

from dynlib import data, design, experiments, results, surface
from dynlib.attacks import EarlyPGD
from dynlib.attacks.goals import GOALS
from dynlib.claims import judge_c4
from dynlib.experiments.common import write
from dynlib.experiments.rq3 import designs
from dynlib.measures import wilson
from dynlib.mechanisms import Answers, ConfidenceExit
from tests.test_measures import DYNN, SDNN, bits

LOSS = "early=log-probability/equal"


def row(attack, loss, goal, eps_255, flipped, kept, deployed, target=DYNN, **more):
    """Of five images; the network has six early exits."""
    blank = {"right": np.array([]), "final_right": np.array([]), "alpha": np.nan}
    seen = {"flipped": np.array([int(c) for c in flipped]), "kept": bits(kept), "deployed": bits(deployed)}
    what = {"attack": attack, "loss": loss, "goal": goal, "eps_255": eps_255}
    return {**blank, "source": DYNN, "target": target, **what, **seen, **more}


@pytest.fixture
def records():
    """Of the five clean images, the last is answered wrongly as deployed, the fourth by the final exit: three count."""
    clean = {"right": bits("11110"), "final_right": bits("11101")}
    return pd.DataFrame(
        [
            row("none", "none", "none", 0, "00001", "11111", "11110", **clean),
            row("pgd", "final", "none", 8, "66600", "00011", "00011"),
            row("pgd", "taken", "none", 8, "56100", "10111", "00111"),  # opens image 1
            row("early_pgd", LOSS, "deployed", 8, "63006", "11111", "00110"),  # opens 1 and 2
            row("early_pgd", LOSS, "strict", 8, "66566", "10111", "00100"),
            row("none", "none", "none", 0, "00000", "11111", "11111", target=SDNN),
            row("early_pgd", LOSS, "deployed", 8, "00000", "01111", "01111", target=SDNN),
        ]
    )


def test_surface_by_hand(records):
    table = surface.surface_table(records).set_index(["attack", "loss", "goal"])
    assert (table.n == 3).all()
    assert table.surface.to_list() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1 / 3])
    early, strict = table.loc[("early_pgd", LOSS, "deployed")], table.loc[("early_pgd", LOSS, "strict")]
    assert (early.low, early.high) == pytest.approx(wilson(2, 3))
    assert (early.strict, strict.strict) == pytest.approx((1 / 3, 1 / 3))  # image 1 of those that count; 4 and 5 do not
    assert early.flipped == pytest.approx((6 + 3 + 0) / 18)
    assert table.loc[("pgd", "final", "none")].final_lost == 1


def test_gain_is_over_the_better_pgd(records):
    (gain,) = surface.surface_gains(records, 8, LOSS).itertuples()
    np.testing.assert_array_equal(gain.per_image, [0, 1, 0, np.nan, np.nan])
    assert gain.gain == pytest.approx(1 / 3)
    assert gain.n == 3


def test_transfer_by_hand(records):
    table = surface.transfer_table(records).set_index(["attack", "goal", "target"])
    own = table.loc[("early_pgd", "strict", DYNN)]  # on clean images 1 to 4 the network agrees with its final exit
    assert own.n == 4
    assert (own.strict, own.surface) == pytest.approx((2 / 4, 2 / 4))  # images 1 and 4
    static = table.loc[("early_pgd", "deployed", SDNN)]
    assert static.lost == pytest.approx(1 / 5)
    assert np.isnan(static.surface)


def test_published_by_hand():
    spent = {name: np.array(values) for name, values in {"l2": [1000, 3000, 2000], "linf": [100, 200, 600]}.items()}
    spent |= {"made": np.array([201, 1000, 300]), "kmacs": np.array([10**6, 10**6, 4 * 10**6]), "alpha": 1.0}
    records = pd.DataFrame([row("early_attack", "early", "strict", 0, "661", "101", "001", **spent)])
    (found,) = surface.published_table(records).itertuples()
    assert (found.strict, found.deployed, found.kept) == pytest.approx((1 / 3, 1 / 3, 2 / 3))
    assert (found.l2, found.linf, found.iterations, found.gmacs) == pytest.approx((2, 0.2 * 255, 300, 2))


def test_designs_change_one_choice_at_a_time():
    found = designs(7, [0.5, 0.9], 0.9)
    assert len(set(found)) == len(found)
    assert found[0] == (tuple(range(7)), ConfidenceExit(0.9))
    for exits, mechanism in found:
        assert exits[-1] == 6
        assert len(exits) > 1
        changed = [exits != tuple(range(7)), mechanism.threshold != 0.9, mechanism.fall_back_to != "most_confident"]
        assert sum(changed) <= 1
    assert {len(exits) for exits, _ in found if exits[0] == 0} == {2, 3, 4, 5, 6, 7}  # however few, the first is among them
    assert (0, 6) in [exits for exits, _ in found]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Both experiments on a few images, written and read as the workflow does."""
    folder, common = tmp_path_factory.mktemp("results"), {"eps_255": [4], "steps": 4, "threshold": 0.9, "seed": 0, "device": "cpu"}
    runs = {
        "early_attack": experiments.early_attack(DYNN, [SDNN], n_images=8, variants=[LOSS, "early"], **common),
        "attack_design": experiments.attack_design(DYNN, [], n_images=8, thresholds=[0.5], **common),
        "published_attack": experiments.published_attack(
            DYNN, [SDNN], n_images=2, alphas=[1.0], iterations=3, threshold=0.9, seed=0, device="cpu"
        ),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "RESULTS", folder)
        for name, rows in runs.items():
            write(rows, {"weights": {}}, folder / "quick" / name / f"{DYNN}.csv")
        yield {name: results.read_early("quick", name) for name in runs}


def test_records_say_what_raw_logits_say(dynn, measured):
    images, labels = data.load("cifar10", "test", 8)
    images, mechanism = images.float() / 255, ConfidenceExit(0.9)
    with torch.no_grad():
        clean = dynn(images)
    own = clean[-1].argmax(dim=-1)
    adversarial = EarlyPGD(eps=4 / 255, steps=4, goal="strict")(dynn, images, own).adversarial
    with torch.no_grad():
        logits = dynn(adversarial)
    records = measured["early_attack"]
    at = (records.goal == "strict") & (records.loss == LOSS) & (records.target == DYNN)
    (found,) = records[at].itertuples()
    assert (found.kept & ~found.deployed).tolist() == GOALS["open_surface"].reached(logits, own, mechanism).tolist()
    assert (found.kept & (found.flipped == 6)).tolist() == GOALS["strict"].reached(logits, own, mechanism).tolist()
    assert found.linf.max() <= round(4 / 255 * 1000)
    first = records.iloc[0]
    assert first.right.tolist() == (mechanism.decide(Answers.of(clean), dynn.macs).label == labels).tolist()
    assert first.final_right.tolist() == (own == labels).tolist()


def test_published_attack_is_recorded(measured):
    (found,) = surface.published_table(measured["published_attack"]).itertuples()
    assert (found.alpha, found.n, found.iterations) == (1.0, 2, 3)
    assert 20 < found.linf < 256  # it starts at random, far from the image


def test_designs_are_evaluated(dynn, measured):
    table = surface.design_table(measured["attack_design"])
    start = design.default(table)
    images, labels = data.load("cifar10", "test", 8)
    decision = ConfidenceExit(0.9).run(dynn, images.float() / 255)
    assert start.clean.tolist() == (decision.label == labels).tolist()
    assert start.mmacs == pytest.approx(decision.cost.double().mean().item() / 1e6)
    late = table[table.exits == (5, 6)].iloc[0]
    assert late.mmacs > start.mmacs
    factors = surface.design_factors(table)
    assert list(dict.fromkeys(factors.factor)) == ["first exit", "number of early exits", "threshold", "fall-back"]
    usual = factors[(factors.factor == "threshold") & (factors.level == "0.9")].iloc[0]
    assert (usual.gain, usual.equal) == (0, True)
    assert factors[factors.factor == "first exit"].level.tolist() == list("123456")
    assert design.chosen(table)["n"] <= 4


@pytest.mark.parametrize(
    ("surfaces", "designs_", "verdict"),
    [
        ([0.5] * 6, [0.4] * 6, "supported"),
        ([0.5] * 6, [0.0] * 6, "partly"),
        ([-0.5] * 6, [-0.4] * 6, "contradicted"),
        ([0.0] * 6, [-0.4] * 6, "not supported"),
        ([0.5] * 5, [0.4] * 5, "open"),
    ],
)
def test_rule_of_c4(surfaces, designs_, verdict):
    rng = np.random.default_rng(1)

    def cells(gains):
        arrays = [np.sign(gain) * (rng.random(200) < abs(gain)) for gain in gains]
        return pd.DataFrame({"dataset": "cifar10", "n": 200, "gain": [a.mean() for a in arrays], "per_image": arrays})

    finding = judge_c4(cells(surfaces), cells(designs_).assign(n=90))
    assert finding.verdict == verdict
    assert finding.scale == f"{len(surfaces)} of 6 cells, 200 images each; designs 90 images"


def test_wrong_networks_are_refused():
    settings = {"n_images": 2, "eps_255": [8], "steps": 1, "threshold": 0.9, "seed": 0, "device": "cpu"}
    with pytest.raises(ValueError, match="no early exits"):
        experiments.early_attack(SDNN, [], variants=[LOSS], **settings)
