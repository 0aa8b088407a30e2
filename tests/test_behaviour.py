import pytest
import torch

from dynlib.behaviour import BUDGETS, THRESHOLDS, calibration_error, choose_thresholds, operate, right, sweep
from dynlib.mechanisms import FALL_BACKS, ConfidenceExit
from dynlib.networks.checkpoints import CHEAPEST

MACS = torch.tensor([10, 30, 100])


def logits_of(confidences, labels):
    """Logits ``[exits, n, 3]`` whose softmax puts the given confidence on the given label and halves the rest."""
    p, labels = torch.tensor(confidences, dtype=torch.float64), torch.tensor(labels)
    rest = ((1 - p) / 2)[..., None].expand(*p.shape, 3)
    return rest.scatter(-1, labels[..., None], p[..., None]).log()


@pytest.fixture
def outputs():
    """Logits of three exits on 400 images that grow surer and better with depth, and the labels."""
    torch.manual_seed(0)
    labels = torch.randint(0, 10, (400,))
    hints = torch.nn.functional.one_hot(labels, 10)
    return torch.stack([2 * torch.randn(400, 10) + gain * hints for gain in (3, 5, 7)]), labels


def test_operating_point_by_hand():
    labels = torch.tensor([0, 1, 2, 0])
    logits = logits_of(
        [[0.95, 0.6, 0.6, 0.8], [0.9, 0.9, 0.5, 0.4], [0.9, 0.9, 0.7, 0.6]], [[0, 2, 1, 0], [0, 1, 1, 1], [0, 0, 2, 1]]
    )
    # At 0.85 the first image leaves at exit 1, the second at exit 2, two pay all: right by the most confident, 0.7 and 0.8.
    assert operate(logits, labels, MACS, ConfidenceExit(0.85)) == pytest.approx((1.0, (10 + 30 + 100 + 100) / 400))
    # The final exit answers the last image wrongly.
    assert operate(logits, labels, MACS, ConfidenceExit(0.85, "final")) == pytest.approx((0.75, 0.6))
    assert right(logits, labels).sum(dim=1).tolist() == [2, 2, 2]


def test_calibration_error_by_hand():
    labels = torch.tensor([0, 0, 0, 0])
    logits = logits_of([[0.9, 0.9, 0.9, 0.9], [0.62, 0.62, 0.95, 0.95]], [[0, 0, 0, 1], [0, 1, 0, 0]])
    assert calibration_error(logits, labels).tolist() == pytest.approx([0.15, (0.12 + 0.05) / 2])


def test_calibration_of_honest_confidence():
    torch.manual_seed(0)
    logits = 2 * torch.randn(1, 100_000, 5)
    labels = torch.multinomial(logits[0].softmax(dim=-1), 1)[:, 0]
    assert calibration_error(logits, labels).item() < 0.01
    assert calibration_error(3 * logits, labels).item() > 0.1


@pytest.mark.parametrize("fall_back", FALL_BACKS)
def test_thresholds_reach_their_goals(outputs, fall_back):
    chosen = choose_thresholds(*outputs, MACS, fall_back)
    points = sweep(*outputs, MACS, fall_back)
    final = right(*outputs)[-1].double().mean().item()
    assert next(t for t in THRESHOLDS if points[t].accuracy >= final - 0.01) == chosen[CHEAPEST]
    assert 0.5 < chosen[CHEAPEST] < 0.99
    for budget in BUDGETS:
        threshold = chosen[f"{100 * budget:.0f} % of the MACs"]
        beyond = ConfidenceExit(round(threshold + 0.01, 2), fall_back)
        assert operate(*outputs, MACS, ConfidenceExit(threshold, fall_back)).macs <= budget
        assert threshold == 0.99 or operate(*outputs, MACS, beyond).macs > budget


def test_unreachable_goals_are_none():
    labels = torch.tensor([0, 0])
    logits = logits_of([[0.999, 0.999], [0.9, 0.9]], [[1, 1], [0, 0]])  # sure and wrong first, right at the end
    chosen = choose_thresholds(logits, labels, torch.tensor([80, 100]), "final")
    assert set(chosen.values()) == {None}


def test_cost_grows_with_the_threshold(outputs):
    costs = [point.macs for point in sweep(*outputs, MACS, "final").values()]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]
