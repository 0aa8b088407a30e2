import numpy as np
import pandas as pd
import pytest

from dynlib import data, experiments, results
from dynlib.attacks import PGD
from dynlib.claims import judge_c2
from dynlib.efficiency import cost_ratios, cost_table, log_ratio, success_curves, transfer_curves, white_box
from dynlib.experiments.common import write
from tests.test_measures import DYNN, SDNN, bits

PASS = 2_000_000  # MACs of a forward and backward pass


@pytest.fixture
def records():
    """Five images. The SDNN is right on the first four when clean, the DyNN on the last four: three count, images 2 to 4."""
    clean = {"loss": "none", "steps": 0, "seconds": 0.0, "made": np.array([]), "macs": np.array([])}
    rows = [{**clean, "source": SDNN, "target": t, "correct": bits(c)} for t, c in ((SDNN, "11110"), (DYNN, "01111"))]

    def attack(source, target, steps, correct, made, passes):
        arrays = {"correct": bits(correct), "made": np.array(made), "macs": PASS * np.array(passes)}
        return {"source": source, "target": target, "loss": "final", "steps": steps, "seconds": 10.0, **arrays}

    rows.append(attack(SDNN, SDNN, 4, "00010", [1, 1, 2, 4, 4], [2, 2, 3, 4, 4]))  # images 2 and 3 fall, after 1 and 2 steps
    rows.append(attack(DYNN, DYNN, 4, "10000", [4, 1, 1, 2, 1], [4, 2, 2, 3, 2]))  # all three fall, after 1, 1 and 2
    rows.append(attack(SDNN, DYNN, 2, "00111", [2] * 5, [2] * 5))
    return pd.DataFrame(rows)


def test_white_box_by_hand(records):
    static, dynamic = white_box(records).itertuples()
    assert static.counts.tolist() == dynamic.counts.tolist() == [False, True, True, True, False]
    assert static.success.tolist() == [False, True, True, False, False]
    assert static.mmacs.tolist() == [0, 4, 6, 8, 0]
    assert dynamic.mmacs.tolist() == [0, 4, 4, 6, 0]


def test_cost_by_hand(records):
    white = white_box(records)
    table = cost_table(white).set_index("kind")
    assert table.mmacs_per_success.to_dict() == {"sdnn": 18 / 2, "dynn": 14 / 3}
    assert table.mean_steps.to_dict() == {"sdnn": 1.5, "dynn": pytest.approx(4 / 3)}
    assert table.success.to_dict() == {"sdnn": pytest.approx(2 / 3), "dynn": 1}
    assert set(table.seconds) == {2.0}
    arrays = ["counts", "success", "steps", "mmacs"]
    many = white.assign(**{name: [np.tile(array, 20) for array in white[name]] for name in arrays})  # enough to resample
    (ratio,) = cost_ratios(many).itertuples()
    assert np.exp(ratio.log_ratio) == pytest.approx(14 / 3 / 9)
    assert ratio.low <= ratio.log_ratio <= ratio.high
    assert log_ratio(np.array([6.0, 0, 4, 2])) == pytest.approx(np.log(6 / 0.5 / 2))


def test_curves_by_hand(records):
    curve = success_curves(white_box(records)).set_index(["kind", "steps"])
    assert [curve.rate["sdnn", t] for t in (1, 2, 3, 4)] == pytest.approx([1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert curve.mmacs["sdnn", 1] == pytest.approx((4 + 2 + 2) / 3)  # image 2 has paid the pass that showed its success, too
    assert curve.mmacs["sdnn", 4] == pytest.approx(18 / 3)
    assert curve.mmacs["dynn", 2] == pytest.approx(14 / 3)
    (black,) = transfer_curves(records).itertuples()
    assert (black.kind, black.steps, black.rate, black.mmacs) == ("sdnn", 2, pytest.approx(1 / 3), 4.0)


def test_rule_of_c2():
    def cells(*factors):
        rng = np.random.default_rng(0)
        rows = []
        for factor in factors:
            macs, success = rng.uniform(1, 2, (2, 200)), rng.random((2, 200)) < 0.9
            rows.append(np.stack([factor * macs[0], success[0], macs[1], success[1]], axis=1))
        values = [log_ratio(row.sum(axis=0)) for row in rows]
        return pd.DataFrame({"dataset": "cifar10", "n": 200, "log_ratio": values, "columns": rows})

    cases = {
        "supported": (0.5,) * 5 + (1.5,),
        "partly": (0.3,) * 4 + (1.5,) * 2,
        "not supported": (0.5, 2.0) * 3,
        "contradicted": (2.0,) * 6,
        "open": (0.5,) * 5,
    }
    for expected, factors in cases.items():
        finding = judge_c2(cells(*factors))
        assert finding.verdict == expected
        assert f"below 1 in {sum(f < 1 for f in factors)} of {len(factors)} cells" in finding.seen


def test_experiment_counts_what_the_attack_spends(monkeypatch, tmp_path, dynn):
    settings = {"losses": ["final", "taken"], "eps_255": 8, "steps": [1, 3], "threshold": 0.9, "seed": 0}
    rows = experiments.efficiency(DYNN, [SDNN, DYNN], n_images=6, device="cpu", **settings)
    assert len(rows) == 2 + 2 * (1 + 2)  # clean; for each loss the white box, and each number of steps on the SDNN
    write(rows, {"weights": {}}, tmp_path / "quick" / "efficiency" / f"{DYNN}.csv")
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    records = results.read_efficiency("quick")
    images, labels = data.load("cifar10", "test", 6)
    for loss in settings["losses"]:
        mine = records[records.loss == loss].set_index(["target", "steps"])
        expected = PGD(eps=8 / 255, loss=loss, steps=3, early_stop=True)(dynn, images.float() / 255, labels)
        assert mine.made[DYNN, 3].tolist() == expected.steps.tolist()
        assert mine.macs[DYNN, 3].tolist() == pytest.approx(expected.macs.tolist(), abs=1000)
        assert mine.correct[DYNN, 3].tolist() == (~expected.reached).tolist()
        assert set(mine.made[SDNN, 1]) == {1}
