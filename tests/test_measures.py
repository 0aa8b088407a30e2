import json

import numpy as np
import pandas as pd
import pytest
import torch

from dynlib import data, experiments, results
from dynlib.attacks import PGD
from dynlib.claims import judge_c1, pooled_interval
from dynlib.experiments.common import write
from dynlib.measures import (
    as_deployed,
    bootstrap_mean,
    confidence,
    direction_differences,
    exit_table,
    holm,
    leaving_table,
    mcnemar,
    readings,
    threshold_table,
    transfer_rates,
    wilson,
)
from dynlib.mechanisms import ConfidenceExit
from dynlib.packing import LARGEST
from dynlib.results import Outputs, ResultsError

SDNN, DYNN = "cifar10-resnet56-sdnn", "cifar10-resnet56-dynn"


def bits(text):
    return np.array([c == "1" for c in text])


def records():
    """Six images. SDNN is right on the first five when clean, DyNN on all but the first: four count."""
    rows = []
    for source in (SDNN, DYNN):
        rows += [(source, SDNN, "none", "none", 0, bits("111110")), (source, DYNN, "none", "none", 0, bits("011111"))]
    rows += [
        (SDNN, DYNN, "pgd", "final", 8, bits("001110")),  # of images 2 to 5, image 2 is fooled
        (DYNN, SDNN, "pgd", "average", 8, bits("100010")),  # images 2, 3 and 4
    ]
    table = pd.DataFrame(rows, columns=["source", "target", "attack", "loss", "eps_255", "correct"])
    return table.assign(threshold=[0.9 if target == DYNN else np.nan for target in table.target])


def test_rates_by_hand():
    rates = transfer_rates(records()).set_index("kind")
    assert rates.n.tolist() == [4, 4]
    assert rates.rate.to_dict() == {"sdnn": 0.25, "dynn": 0.75}
    assert (rates.low["dynn"], rates.high["dynn"]) == pytest.approx(wilson(3, 4))


def test_differences_by_hand():
    (row,) = direction_differences(records()).itertuples()
    assert (row.dataset, row.model, row.kind) == ("cifar10", "resnet56", "dynn")
    np.testing.assert_array_equal(row.per_image, [np.nan, 0, 1, 1, 0, np.nan])
    assert row.difference == 0.5
    assert row.p == mcnemar(2, 0) == 0.5
    assert (row.low, row.high) == bootstrap_mean(np.array([0, 1, 1, 0]))


def test_readings_by_hand():
    """At 0.5 the DyNN is not fooled by the SDNN's examples, at its final exit it is wrong on one image more, when clean."""
    table = records()
    dynamic = table.target == DYNN
    low = table[dynamic].assign(threshold=0.5, correct=[bits("011111"), bits("011111"), bits("011111")])
    both = pd.concat([table, low], ignore_index=True)
    both["final"] = [c & bits("101111") if t == DYNN else c for c, t in zip(both.correct, both.target, strict=True)]
    differences = readings(both).set_index("reading").difference
    assert differences.to_dict() == {"0.5": 0.75, "0.9": 0.5, "final exit": pytest.approx(2 / 3)}
    with pytest.raises(ResultsError, match=r"nothing was measured at threshold 0\.8, but at 0\.5, 0\.9"):
        as_deployed(both, 0.8)


def test_pair_without_a_common_image_is_named():
    table = records()
    table.loc[(table.attack == "none") & (table.target == SDNN), "correct"] = pd.Series([bits("100000")] * 6)
    with pytest.raises(ResultsError, match=f"{SDNN} and {DYNN}"):
        transfer_rates(table)


@pytest.fixture
def outputs():
    """Two exits on four images of three classes, hand-made: exit 1 is right on images 1 and 2, exit 2 on 1 and 4."""
    answers, confidence = (
        torch.tensor([[0, 1, 2, 2], [0, 2, 2, 0]]),
        torch.tensor([[0.95, 0.8, 0.95, 0.6], [0.95, 0.95, 0.95, 0.7]]),
    )
    rest = ((1 - confidence) / 2)[..., None].expand(2, 4, 3)
    logits = rest.scatter(-1, answers[..., None], confidence[..., None]).log()
    return [Outputs(DYNN, logits, torch.tensor([0, 1, 0, 0]), torch.tensor([2_000_000, 4_000_000]))]


def test_exit_table_by_hand(outputs):
    first, second = exit_table(outputs).itertuples()
    assert (first.dataset, first.model, first.kind, first.exit) == ("cifar10", "resnet56", "dynn", 1)
    assert (first.accuracy, second.accuracy) == (0.5, 0.5)
    assert (first.low, first.high) == wilson(2, 4)
    assert (first.mmacs, second.mmacs) == (2, 4)
    assert (first.lost, first.gained, second.lost, second.gained) == (0.25, 0.25, 0, 0)  # image 2, image 4


def test_threshold_table_by_hand(outputs):
    table = threshold_table(outputs).set_index(["fall_back", "threshold"])
    assert table.mmacs["final", 0.5] == 2
    assert table.mmacs["final", 0.9] == (2 + 4 + 2 + 4) / 4
    assert table.accuracy["final", 0.9] == 0.5  # images 1 and 4
    assert (table.low["final", 0.9], table.high["final", 0.9]) == wilson(2, 4)
    static = outputs[0]._replace(logits=outputs[0].logits[:1], macs=outputs[0].macs[:1])
    assert threshold_table([static]).empty


def test_leaving_table_by_hand(outputs):
    table = leaving_table(outputs, [0.9]).set_index("exit")
    assert table.share.to_dict() == {1: 0.5, 2: 0.25, 0: 0.25}
    assert table.accuracy.to_dict() == {1: 0.5, 2: 0.0, 0: 1.0}


def test_confidence_by_hand(outputs):
    """At 0.5 all leave at exit 1; images 1 and 2 are right, with 0.95 and 0.8, and half of the rest on each other class."""
    found = confidence(outputs[0], 0.5)
    assert found == pytest.approx({"accuracy": 0.5, "confidence": 0.875, "margin": 0.875 - 0.125 / 2})


def test_wilson_by_the_formula():
    p, n, z = 0.3, 50, 1.959964
    centre, half = (p + z**2 / (2 * n)) / (1 + z**2 / n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert wilson(15, 50) == pytest.approx((centre - half, centre + half), abs=1e-5)
    assert wilson(0, 10)[0] == 0
    with pytest.raises(ValueError, match=r"n|trials"):
        wilson(0, 0)


def test_mcnemar_by_the_formula():
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 0) == pytest.approx(2 / 2**5)
    assert mcnemar(8, 3) == mcnemar(3, 8) == pytest.approx(0.2266, abs=1e-4)


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1; none may be smaller than the one before."""
    np.testing.assert_allclose(holm(np.array([0.02, 0.5, 0.01, 0.03])), [0.06, 0.5, 0.04, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.6])), [1, 1])


def test_bootstrap_interval_covers_as_it_should():
    """The interval of a mean is close to the normal one, and is the same on every run."""
    values = np.random.default_rng(0).choice([-1, 0, 1], 500)
    low, high = bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(500)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)
    assert (low, high) == bootstrap_mean(values)


def cells(*means, n=200):
    rng = np.random.default_rng(1)
    rows = [np.sign(mean) * (rng.random(n) < abs(mean)) for mean in means]
    return pd.DataFrame({"dataset": "cifar10", "difference": [row.mean() for row in rows], "n": n, "per_image": rows})


@pytest.mark.parametrize(
    ("means", "verdict"),
    [
        ((0.3,) * 6, "supported"),
        ((0.3,) * 5 + (-0.2,), "supported"),
        ((0.5,) * 4 + (-0.2,) * 2, "partly"),
        ((0.3, -0.3) * 3, "not supported"),
        ((0.0,) * 6, "not supported"),
        ((-0.3,) * 5 + (0.2,), "contradicted"),
        ((-0.3,) * 6, "contradicted"),
        ((-0.5,) * 4 + (0.2,) * 2, "not supported"),
        ((0.3,) * 5, "open"),
        ((0.3,), "open"),
    ],
)
def test_rule_of_c1(means, verdict):
    finding = judge_c1(cells(*means))
    assert finding.verdict == verdict
    assert f"above 0 in {sum(mean > 0 for mean in means)} of {len(means)}" in finding.seen


def test_pooled_interval_knows_that_models_share_their_images():
    """Cells that say the same of the same images tell no more than one of them; cells of other images do."""
    rng = np.random.default_rng(0)
    one = rng.choice([0.0, 1.0], 400)
    one[:100] = np.nan  # these do not count
    same = pd.DataFrame({"dataset": "cifar10", "per_image": [one] * 3})
    other = same.assign(dataset=["a", "b", "c"])
    half = 1.96 * np.nanstd(one) / np.sqrt(300)
    assert pooled_interval(same) == pytest.approx((np.nanmean(one) - half, np.nanmean(one) + half), abs=0.01)
    low, high = pooled_interval(other)
    assert (high - low) / (2 * half) == pytest.approx(3**-0.5, rel=0.1)


def test_committed_records_come_from_this_code_and_these_weights(sdnn, dynn):
    """One cell of each direction, from raw logits: a fresh attack agrees with the records on nearly every image.

    Not on all: another processor rounds otherwise, and a signed step turns a rounding error into a whole step.
    """
    stored = results.read_records("quick")
    settings = json.loads((results.RESULTS / "quick" / "transferability" / f"{SDNN}.json").read_text())["settings"]
    pgd = next(attack for attack in settings["attacks"] if attack["name"] == "pgd")
    images, labels = data.load("cifar10", "test", settings["n_images"])
    images = images[:64].float() / 255
    for source, target, net, other, loss in ((SDNN, DYNN, sdnn, dynn, "final"), (DYNN, SDNN, dynn, sdnn, "average")):
        adversarial = PGD(eps=8 / 255, loss=loss, steps=pgd["steps"])(net, images, labels[:64]).adversarial
        with torch.no_grad():
            confidence, answer = other(adversarial).softmax(dim=-1).max(dim=-1)
        right = []
        for p, a, label in zip(confidence.T.tolist(), answer.T.tolist(), labels[:64].tolist(), strict=True):
            k = next((k for k, value in enumerate(p) if value >= settings["threshold"]), p.index(max(p)))
            right.append(a[k] == label)
        match = stored[
            (stored.source == source)
            & (stored.target == target)
            & (stored.attack == "pgd")
            & (stored.loss == loss)
            & (stored.eps_255 == 8)
            & (stored.threshold.isna() | (stored.threshold == settings["threshold"]))
        ]
        (record,) = match.itertuples()
        assert (record.correct[:64] == right).mean() >= 0.95


def test_records_of_other_weights_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    with pytest.raises(ResultsError, match="holds no results"):
        results.read_records("quick")
    row = {"source": SDNN, "target": SDNN, "attack": "none", "loss": "none", "eps_255": 0, "seed": "", "l2": 0, "threshold": ""}
    row |= dict.fromkeys(("correct", "final", "exit", "depth"), "01")
    path = tmp_path / "quick" / "transferability" / f"{SDNN}.csv"
    write([row], {"weights": {SDNN: "0"}}, path)
    with pytest.raises(ResultsError, match=rf"{SDNN}\.csv was measured with other weights of {SDNN}"):
        results.read_records("quick")
    write([row], {"weights": {}}, path)
    assert len(results.read_records("quick")) == 1
    attacked = row | {"attack": "pgd", "loss": "final", "eps_255": 8}
    write([row, attacked | {"seed": 0}, attacked | {"seed": 1}], {"weights": {}}, path)
    assert results.read_seeds("quick") == [0, 1]
    assert [results.read_records("quick", seed=seed).attack.tolist() for seed in (0, 2)] == [["none", "pgd"], ["none"]]
    path.write_text("nonsense")
    with pytest.raises(ResultsError, match="damaged"):
        results.read_records("quick")


def test_stored_outputs_are_those_of_the_shipped_networks(sdnn, dynn):
    stored = {o.network: o for o in results.read_outputs("quick")}
    images, labels = data.load("cifar10", "test", 64)
    for name, net in ((SDNN, sdnn), (DYNN, dynn)):
        assert stored[name].labels[:64].equal(labels)
        assert stored[name].macs.equal(net.macs)
        with torch.no_grad():
            expected = net(images.float() / 255).log_softmax(dim=-1)
        largest, classes = expected.topk(LARGEST)
        torch.testing.assert_close(stored[name].logits[:, :64].gather(-1, classes), largest, atol=0.02, rtol=0.01)


def test_timing_rows(dynn, sdnn):
    rows = experiments.timing(DYNN, [SDNN], n_images=4, batches=[1, 4], rounds=2, threshold=0.9, device="cpu")
    assert [row["batch"] for row in rows] == [1, 1, 4, 4]
    cost = ConfidenceExit(0.9).run(dynn, data.load("cifar10", "test", 4).inputs).cost
    expected = cost.sum().item() / 4 / sdnn.macs[-1].item()
    assert all(row["macs_ratio"] == pytest.approx(expected) for row in rows)
    assert all(row["dynamic_ms"] > 0 and row["static_ms"] > 0 for row in rows)


def test_attacks_come_with_every_seed():
    made = experiments.grid(name="pgd", losses=["final"], eps_255=[4, 8], steps=2, seeds=[1, 2], threshold=0.9, seed=0)
    assert [(round(attack.eps * 255), attack.seed) for attack in made] == [(4, 1), (4, 2), (8, 1), (8, 2)]
    (usual,) = experiments.grid(name="pgd", losses=["final"], eps_255=[4], steps=2, threshold=0.9, seed=7)
    assert usual.seed == 7


def test_experiment_records_every_cell(dynn):
    attacks = [{"name": "fgsm", "losses": ["final", "taken"], "eps_255": [4, 8]}]
    settings = {"attacks": attacks, "threshold": 0.9, "other_thresholds": [0.5], "seed": 0}
    rows = experiments.transferability(DYNN, [SDNN, DYNN], n_images=5, device="cpu", **settings)
    assert len(rows) == (1 + 2) * (1 + 1 * 2 * 2)  # the static target has no threshold, the dynamic one two
    assert all(len(row[name]) == 5 for row in rows for name in ("correct", "final", "exit", "depth"))
    images, labels = data.load("cifar10", "test", 5)
    decision = ConfidenceExit(0.9).run(dynn, images.float() / 255)
    clean = next(row for row in rows if (row["attack"], row["target"], row["threshold"]) == ("none", DYNN, 0.9))
    assert clean["correct"] == "".join(str(int(c)) for c in decision.label == labels)
    assert clean["exit"] == "".join(str(e) for e in decision.exit.tolist())
    with pytest.raises(ValueError, match="not all for one data set"):
        experiments.transferability(DYNN, ["cifar100-resnet56-sdnn"], n_images=5, device="cpu", **settings)
