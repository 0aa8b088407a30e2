"""The analyses, on tables made by hand: what a number means, and which faults it must not have."""

import numpy as np
import pandas as pd
import pytest
import torch

from dynlib.analysis import claims, cost, design, surface, transfer
from dynlib.analysis.claim import Claim, ruled
from dynlib.analysis.design import Design
from dynlib.analysis.measured import Seen
from dynlib.analysis.stats import of
from dynlib.mechanisms import Answers, ConfidenceExit
from dynlib.networks.identity import Network
from dynlib.records import RecordsError

DYNN = Network("cifar10", "resnet56")
SDNN = DYNN.sibling(exits="none")
TRUTH = np.zeros(4, dtype=int)


def row(source, target, labels, exits=None, **settings):
    """A row as of ``Records.shown``: labels as deployed, and of all exits."""
    labels = np.array(labels)
    settings = {
        "method": "pgd",
        "loss": "average",
        "goal": "misclassify",
        "eps_255": 2.0,
        "seed": 0,
        "early_stop": False,
    } | settings
    every = labels[None] if exits is None else np.array(exits)
    return {"source": source, "target": target, "attack": "a", "truth": TRUTH, "label": labels, "labels": every, **settings}


RIGHT = {DYNN: np.array([True, True, True, False]), SDNN: np.array([True, True, True, True])}


def test_direction_by_hand():
    shown = pd.DataFrame([row(DYNN, SDNN, [1, 1, 0, 1]), row(SDNN, DYNN, [1, 0, 0, 1], loss="final")])
    (found,) = transfer.directions(shown, RIGHT).itertuples()
    assert found.n == 3  # the fourth is not classified correctly by the dynamic network
    assert (found.to_static, found.to_dynamic) == pytest.approx((2 / 3, 1 / 3))
    assert found.difference == pytest.approx(1 / 3)
    np.testing.assert_array_equal(found.per_image, [0, 1, 0, np.nan])


def test_rates_count_what_both_classify_correctly():
    (found,) = transfer.rates(pd.DataFrame([row(DYNN, SDNN, [1, 0, 0, 1])]), RIGHT).itertuples()
    assert (found.n, found.rate) == (3, pytest.approx(1 / 3))


def test_nothing_in_common_is_named():
    right = RIGHT | {DYNN: np.zeros(4, dtype=bool)}
    with pytest.raises(RecordsError, match="cifar10-resnet56-dynn and cifar10-resnet56-sdnn classify none of 4 clean images"):
        transfer.rates(pd.DataFrame([row(DYNN, SDNN, [0, 0, 0, 0])]), right)


def walked(source, success, macs, loss="average"):
    columns = {"counts": np.ones(4, dtype=bool), "success": np.array(success, dtype=bool)}
    return {"source": source, "loss": loss, **columns, "steps": np.array(macs), "macs": np.array(macs), "linf": np.full(4, 1 / 255)}


def test_cost_charges_for_failures():
    table = pd.DataFrame([walked(SDNN, [1, 1, 1, 1], [10, 10, 10, 10], "final"), walked(DYNN, [1, 1, 0, 0], [5, 5, 5, 5])])
    static, dynamic = cost.per_success(table).itertuples()
    assert (static.macs, dynamic.macs) == (10, 10)
    assert dynamic.distance == pytest.approx(1)
    (ratio,) = cost.ratios(table).itertuples()
    assert np.exp(ratio.log_ratio) == pytest.approx(1)


def test_variants_of_the_walk_are_named_by_what_differs():
    usual = {"mechanism": {"threshold": 0.9}, "eps_255": 8.0, "step_size": 0.5 / 255, "steps": 50.0, "loss": "taken"}
    changes = [{}, {"loss": "final"}, {"steps": 10.0}, {"step_size": 1 / 255}, {"eps_255": 2.0}, {"mechanism": {"threshold": 0.5}}]
    table = pd.DataFrame([usual | change for change in changes], index=[*"abcdef"])
    named = ["", "", "steps of 0.5/255, at most 10", "steps of 1/255, at most 50", "inside 2/255", "threshold 0.5"]
    assert list(cost.variants(table).values()) == named


def test_trainings_do_not_meet_each_other():
    """A pair is of one training: another seed's static network, here twice as cheap, has no part in it."""
    other, both = DYNN.sibling(seed=1), np.ones(4, dtype=int)
    table = pd.DataFrame(
        [walked(network, both, [macs] * 4) for network, macs in ((DYNN, 4), (other, 4), (DYNN.static, 8), (other.static, 4))]
    )
    found = cost.ratios(table).set_index("network").log_ratio
    assert np.exp(found[DYNN]) == pytest.approx(0.5)
    assert np.exp(found[other]) == pytest.approx(1)
    assert cost.pooled_ratios(cost.ratios(table), ["loss"]).cells.tolist() == [1]  # one cell, trained twice
    pairs = pd.DataFrame({"source": [DYNN, DYNN, other.static], "target": [DYNN.static, other.static, other]})
    assert transfer.of_one_training(pairs).index.tolist() == [0, 2]


def test_clean_accuracy_and_cost_of_a_design_are_of_all_clean_images():
    """Only the first of four images was attacked."""
    sure, unsure = [[0.99] * 4] + [[0.5] * 4] * 6, [[0.5]] * 7
    table = design.space(seen([[0, 1, 0, 0]] * 7, sure), seen([[1]] * 7, unsure), ConfidenceExit())
    default = table[table.default].iloc[0]
    assert default.clean.tolist() == [True, False, True, True]
    assert default.robust.tolist() == [False]
    assert default.macs == design.costs(DYNN, tuple(range(7)))[0].item()  # all clean images leave at once


def designs(*rows):
    """Designs of a network by their clean and robust images and their cost; the first is the default."""
    made = [Design((k, 6), ConfidenceExit()) for k in range(len(rows))]
    columns = {name: [np.array(r[k], dtype=float) for r in rows] for k, name in enumerate(("clean", "robust"))}
    return pd.DataFrame({"design": made, **columns, "macs": [r[2] for r in rows], "default": [k == 0 for k in range(len(rows))]})


GOOD, FAIR, POOR = [1] * 10, [1] * 9 + [0], [1] * 5 + [0] * 5


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([(GOOD, POOR, 10), (GOOD, FAIR, 10), (GOOD, GOOD, 11)], 1),  # the best of all costs more than the default
        ([(GOOD, POOR, 10), (FAIR, GOOD, 5)], 0),  # more robust, but 10 points less accurate
        ([(GOOD, FAIR, 10), (GOOD, FAIR, 4), (GOOD, FAIR, 7)], 1),  # of equals the cheapest
        ([(GOOD, FAIR, 10), (GOOD, [np.nan] * 10, 1)], 0),  # one of which nothing is known is not chosen
    ],
)
@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_the_chosen_design_keeps_accuracy_and_cost(rows, best):
    table = designs(*rows)
    assert design.choose(table) == table.design[best]


def test_cost_may_be_left_out_of_the_choice():
    table = designs((GOOD, POOR, 10), (GOOD, GOOD, 11))
    assert design.choose(table, cost_limit=False) == table.design[1]


def test_gain_is_of_the_images_that_count_for_both():
    table = designs((GOOD, [np.nan, 0, 0, 1] + [0] * 6, 10), (FAIR, [1, np.nan, 1, 1] + [0] * 6, 5))
    found = design.gain(table, table.design[1])
    assert found["n"] == 8
    assert found["gain"] == pytest.approx(1 / 8)
    assert found["lost"] == pytest.approx(0.1)
    assert found["added"] == pytest.approx(-0.5)


def test_a_design_that_was_not_measured_is_named():
    with pytest.raises(RecordsError, match=r"the chosen design \(exits 3 7; confidence: 0.9, most confident\) was not measured"):
        design.gain(designs((GOOD, GOOD, 1)), Design((2, 6), ConfidenceExit()))


def answers(labels, confidence):
    labels, confidence = torch.tensor(labels), torch.tensor(confidence)
    return Answers(labels, confidence, torch.zeros_like(confidence), torch.zeros_like(confidence))


def seen(labels, confidence):
    return Seen(SDNN, DYNN, "a", torch.zeros(len(labels[0]), dtype=torch.int64), answers(labels, confidence))


def test_the_space_holds_every_design_once_and_the_default():
    n, rng = 30, torch.Generator().manual_seed(0)
    labels, confidence = torch.randint(0, 2, (7, n), generator=rng).tolist(), torch.rand(7, n, generator=rng).tolist()
    table = design.space(seen(labels, confidence), seen(labels, confidence), ConfidenceExit(0.85))
    assert len(table) == 64 * len(design.THRESHOLDS) * 2 + 1  # 0.85 is no threshold of the space
    wide = design.wide_space(7)
    assert len(set(wide)) == len(wide) == 64 * (14 + 14 + 6 + 7)
    assert set(wide) > set(design.usual_space(7))
    assert table.default.sum() == 1
    assert table.design.nunique() == len(table)
    mechanism = ConfidenceExit(0.85)
    label = mechanism.answer(answers(labels, confidence))
    assert (table[table.default].iloc[0].clean == (label == 0).numpy()).all()


def test_outcomes_tell_stealth_from_damage():
    """Only deployed errs, both err, only the final exit errs, both are right."""
    rows = pd.DataFrame([row(DYNN, DYNN, [1, 1, 0, 0], [[1, 1, 0, 0], [0, 1, 1, 0]])])
    (found,) = surface.outcomes(rows, {DYNN: np.ones(4, dtype=bool)}).to_dict("records")
    assert [found[name] for name in surface.OUTCOMES] == [0.25] * 4
    assert found["surface"] == 0.25
    assert found["strict"] == 0.25  # on the first image the one early exit has left and the final one has not


def test_surface_gain_takes_the_best_of_each_family_on_each_image():
    goal, plain = {"goal": "open_surface"}, {}
    rows = [
        row(DYNN, DYNN, [1, 0, 0, 0], [[1, 0, 0, 0], [0, 0, 0, 0]], **goal),
        row(DYNN, DYNN, [0, 1, 0, 0], [[0, 1, 0, 0], [0, 0, 0, 0]], **goal),
        row(DYNN, DYNN, [0, 1, 1, 1], [[0, 1, 1, 1], [0, 0, 1, 1]], **plain),  # the last two lose the final exit, too
        row(DYNN, DYNN, [0, 0, 1, 0], [[0, 0, 1, 0], [0, 0, 0, 0]], **goal, seed=1),
    ]
    (found,) = surface.surface_gains(pd.DataFrame(rows), {DYNN: np.array([True, True, True, False])}, 2.0, 0).itertuples()
    assert (found.n, found.goal, found.plain) == (3, pytest.approx(2 / 3), pytest.approx(1 / 3))
    np.testing.assert_array_equal(found.per_image, [1, 0, 0, np.nan])


CELLS = [Network(dataset, model) for dataset in ("cifar10", "cifar100") for model in ("vgg16", "resnet56", "mobilenet")]


@pytest.mark.parametrize(
    ("cells", "low", "high", "expected"),
    [
        ([1] * 6, 0.1, 2, "supported"),
        ([1] * 5 + [-1], 0.1, 2, "supported"),
        ([1] * 4 + [-1] * 2, 0.1, 2, "partly"),
        ([1] * 6, -0.1, 2, "not supported"),
        ([-1] * 5 + [1], -2, -0.1, "contradicted"),
        ([-1] * 4 + [1] * 2, -2, -0.1, "not supported"),
    ],
)
def test_rule(cells, low, high, expected):
    assert ruled(pd.Series(cells), low, high) == expected


def made(cells, ratio=False):
    """A claim of one reading, from networks and their values."""
    measured = [of(values, network) for network, values in cells]
    return Claim(
        "C9", "It is so.", "Rule.", "metric", "{value}", "notebook", lambda run: [("main reading", "this", measured)], ratio
    )


def test_a_claim_is_open_until_six_cells_are_measured():
    values = np.random.default_rng(0).choice([0.0, 1.0], 200)
    whole, part = (made([(network, values) for network in cells]) for cells in (CELLS, CELLS[:3]))
    assert [claim.verdict(claim.readings("x").iloc[0]) for claim in (whole, part)] == ["supported", "open"]
    assert "CIFAR-10 +" in whole.readings("x").by_dataset.iloc[0]


def test_a_ratio_is_as_claimed_below_one():
    rng = np.random.default_rng(0)
    columns = np.stack([rng.uniform(1, 2, 200), np.ones(200), rng.uniform(2, 4, 200), np.ones(200)], axis=1)
    found = made([(network, columns) for network in CELLS], ratio=True).readings("x").iloc[0]
    assert found.value == pytest.approx(0.5, abs=0.03)
    assert found.low < found.value < found.high < 1
    assert (found.above, found.ruled) == (6, "supported")


def test_trainings_of_a_cell_are_one_cell():
    first, second = np.zeros(100), np.ones(100)
    cells = [(network, first) for network in CELLS] + [(CELLS[0].sibling(seed=1), second)]
    found = made(cells).readings("x").iloc[0]
    assert (found.cells, found.above) == (6, 1)
    assert found.value == pytest.approx(0.5 / 6)


def test_a_main_reading_without_records_is_named():
    with pytest.raises(RecordsError, match="C9: the main reading was not measured in the run 'x'"):
        made([]).readings("x")


def test_every_claim_has_a_rule_and_a_notebook():
    for claim in claims.CLAIMS.values():
        assert claim.rule.startswith("Main reading: ")
        assert claim.reported is None  # the paper's tables could not be read


def test_only_readings_on_as_many_cells_are_compared():
    rows = [("main reading", 6, "supported"), ("loss", 6, "supported"), ("attack", 6, "partly"), ("seed", 3, "contradicted")]
    table = pd.DataFrame([{"claim": "C9", "group": g, "reading": g, "cells": n, "ruled": ruled} for g, n, ruled in rows])
    (found,) = claims.compared(table).itertuples()
    assert (found.ruled, found.same, found.others, found.fewer) == ("supported", 1, 2, 1)
    assert found.flipped == ["partly with attack: attack"]
