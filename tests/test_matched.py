"""Exit rules at matched cost, on answers made by hand."""

import numpy as np
import pytest
import torch

from dynlib.analysis import matched
from dynlib.mechanisms import Answers, ConfidenceExit

MACS = torch.tensor([1, 2, 4])
TRUTH = torch.zeros(4, dtype=torch.int64)


def answers(labels, confidence):
    labels, confidence = torch.tensor(labels), torch.tensor(confidence)
    return Answers(labels, confidence, torch.zeros_like(confidence), 1 - confidence)


# At the first exit the surer an image, the more often it is right; at the second all that are left are.
SEEN = answers([[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], [[0.9, 0.8, 0.7, 0.6], [0.9, 0.9, 0.5, 0.4], [1.0, 1.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    ("precision", "thresholds"),
    [
        (1.0, (0.8, 0.4)),  # the third image is wrong, so it may not leave at the first exit
        (0.75, (0.6, 1.0)),  # three in four are right: all may leave at once, and nobody is left for the second exit
    ],
)
def test_thresholds_per_exit_keep_the_precision(precision, thresholds):
    assert matched.precise(SEEN, TRUTH, precision).thresholds == pytest.approx(thresholds)


def test_images_of_one_confidence_leave_together():
    tied = answers([[0, 1, 0, 0], [0, 0, 0, 0]], [[0.9, 0.9, 0.9, 0.2], [1.0] * 4])
    assert matched.precise(tied, TRUTH, 0.6).thresholds == pytest.approx((0.2,))  # 3 in 4; not 1 in 1
    assert matched.precise(tied, TRUTH, 0.9).thresholds == (1.0,)


def test_the_setting_nearest_to_the_budget_is_taken():
    candidates = {t: ConfidenceExit(t, "final") for t in (0.55, 0.75, 0.95)}
    assert matched.at_cost(candidates, SEEN, MACS, 0.25) == candidates[0.55]  # all leave at the first exit: a quarter
    assert matched.at_cost(candidates, SEEN, MACS, 0.62) == candidates[0.75]
    assert matched.at_cost(candidates, SEEN, MACS, 0.8) is None  # one costs 0.62, the other 1


def test_rules_of_a_published_network_cost_what_they_should():
    key = matched.attacks("published")[0]
    for budget in matched.BUDGETS:
        rules = matched.matched("published", key[1], budget)
        seen = matched.choices.clean_answers("published", "validation")[key[1]]
        macs = matched.costs(key[1])
        assert {matched.CONFIDENCE, "entropy"} <= set(rules)
        for mechanism in rules.values():
            cost = mechanism.decide(seen.answers, macs).cost.double().mean() / macs[-1]
            assert abs(cost - budget) <= matched.TOLERANCE


def test_confidence_gains_nothing_over_itself():
    gains = matched.gains("published", rule=matched.CONFIDENCE)
    assert len(gains) == 6
    assert not any(np.any(gain.values) for gain in gains)
    assert any(np.any(gain.values) for gain in matched.gains("published", rule="entropy"))
