import pytest
import torch

from dynlib.analysis import exits
from dynlib.analysis.measured import Seen, costs
from dynlib.behaviour import BUDGETS, THRESHOLDS, calibration_error, choose_thresholds, operate
from dynlib.gallery import first_to_leave
from dynlib.mechanisms import FALL_BACKS, Answers, ConfidenceExit
from dynlib.networks.checkpoints import CHEAPEST
from dynlib.networks.identity import Network

MACS = torch.tensor([10, 30, 100])


def answers_of(confidences, labels):
    """Answers of which each puts the given confidence on the given label, of three, and halves the rest."""
    p, labels = torch.tensor(confidences, dtype=torch.float64), torch.tensor(labels)
    rest = ((1 - p) / 2)[..., None].expand(*p.shape, 3)
    return Answers.of(rest.scatter(-1, labels[..., None], p[..., None]).log())


@pytest.fixture
def outputs():
    """Answers of three exits to 400 images that grow surer and better with depth, and the labels."""
    torch.manual_seed(0)
    labels = torch.randint(0, 10, (400,))
    hints = torch.nn.functional.one_hot(labels, 10)
    return Answers.of(torch.stack([2 * torch.randn(400, 10) + gain * hints for gain in (3, 5, 7)])), labels


def test_operating_point_by_hand():
    labels = torch.tensor([0, 1, 2, 0])
    answers = answers_of(
        [[0.95, 0.6, 0.6, 0.8], [0.9, 0.9, 0.5, 0.4], [0.9, 0.9, 0.7, 0.6]], [[0, 2, 1, 0], [0, 1, 1, 1], [0, 0, 2, 1]]
    )
    # At 0.85 the first image leaves at exit 1, the second at exit 2, two pay all: right by the most confident, 0.7 and 0.8.
    assert operate(answers, labels, MACS, ConfidenceExit(0.85)) == pytest.approx((1.0, (10 + 30 + 100 + 100) / 400))
    # The final exit misclassifies the last image.
    assert operate(answers, labels, MACS, ConfidenceExit(0.85, "final")) == pytest.approx((0.75, 0.6))
    assert (answers.label == labels).sum(dim=1).tolist() == [2, 2, 2]


def test_calibration_error_by_hand():
    labels = torch.tensor([0, 0, 0, 0])
    answers = answers_of([[0.9, 0.9, 0.9, 0.9], [0.62, 0.62, 0.95, 0.95]], [[0, 0, 0, 1], [0, 1, 0, 0]])
    assert calibration_error(answers, labels).tolist() == pytest.approx([0.15, (0.12 + 0.05) / 2], abs=1e-4)


def test_calibration_of_honest_confidence():
    torch.manual_seed(0)
    logits = 2 * torch.randn(1, 100_000, 5)
    labels = torch.multinomial(logits[0].softmax(dim=-1), 1)[:, 0]
    assert calibration_error(Answers.of(logits), labels).item() < 0.01
    assert calibration_error(Answers.of(3 * logits), labels).item() > 0.1


@pytest.mark.parametrize("fall_back", FALL_BACKS)
def test_thresholds_reach_their_goals(outputs, fall_back):
    chosen = choose_thresholds(*outputs, MACS, fall_back)
    answers, labels = outputs
    final = (answers.label[-1] == labels).double().mean().item()
    points = {t: operate(*outputs, MACS, ConfidenceExit(t, fall_back)) for t in THRESHOLDS}
    assert next(t for t in THRESHOLDS if points[t].accuracy >= final - 0.01) == chosen[CHEAPEST]
    assert 0.5 < chosen[CHEAPEST] < 0.99
    for budget in BUDGETS:
        threshold = chosen[f"{100 * budget:.0f} % of the MACs"]
        beyond = ConfidenceExit(round(threshold + 0.01, 2), fall_back)
        assert operate(*outputs, MACS, ConfidenceExit(threshold, fall_back)).macs <= budget
        assert threshold == 0.99 or operate(*outputs, MACS, beyond).macs > budget


def test_unreachable_goals_are_none():
    labels = torch.tensor([0, 0])
    answers = answers_of([[0.999, 0.999], [0.9, 0.9]], [[1, 1], [0, 0]])  # sure and wrong first, right at the end
    chosen = choose_thresholds(answers, labels, torch.tensor([80, 100]), "final")
    assert set(chosen.values()) == {None}


def test_cost_grows_with_the_threshold(outputs):
    costs = [operate(*outputs, MACS, ConfidenceExit(t, "final")).macs for t in THRESHOLDS]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


DYNN = Network("cifar10", "resnet56")
TRUTH = torch.tensor([0, 1, 2, 0])


def seen(network, confidences, labels):
    return Seen(network, network, "none", TRUTH, answers_of(confidences, labels))


@pytest.fixture
def clean():
    """A dynamic network, of which each exit but the first and the last is sure of nothing, and its static one."""
    unsure, middle = [[0.4] * 4] * 5, [[1, 1, 1, 1]] * 5
    dynamic = seen(DYNN, [[0.95, 0.95, 0.5, 0.5], *unsure, [0.6, 0.6, 0.95, 0.6]], [[0, 2, 0, 1], *middle, [0, 1, 2, 1]])
    static = seen(DYNN.sibling(exits="none"), [[0.9] * 4], [[0, 0, 2, 0]])
    return [static, dynamic, dynamic._replace(target=DYNN.sibling(seed=1)), dynamic._replace(target=DYNN.sibling(exits="early"))]


def test_one_network_of_each_cell_and_kind(clean):
    assert [str(found.target) for found in exits.usual(clean)] == ["cifar10-resnet56-sdnn", "cifar10-resnet56-dynn"]


def test_deployed_beside_the_static_network_by_hand(clean):
    table = exits.deployed_table(exits.usual(clean), ConfidenceExit(0.9))
    first, full = (costs(DYNN)[[0, -1]] / costs(DYNN.sibling(exits="none"))[-1]).tolist()
    row = table.iloc[0]
    assert (len(table), row.network, row.n) == (1, DYNN, 4)
    # The first two leave at exit 1, one of them misclassified; the third at the final exit; none lets the last one go.
    assert (row.accuracy, row.static, row.early, row.early_accuracy, row.late_accuracy) == (0.5, 0.75, 0.5, 0.5, 0.5)
    assert row.gain.tolist() == [0, 0, 0, -1]
    assert row.cost == pytest.approx([first, first, full, full])
    assert exits.deployed_table(clean[1:], ConfidenceExit(0.9)).empty


def test_overthinking_by_hand(clean):
    row = exits.overthinking_table(exits.usual(clean)).iloc[0]
    assert (row.network, row.accuracy, row.lost) == (DYNN, 0.75, 0)  # exits in the middle are right where the final one is
    hasty = clean[1]._replace(truth=torch.tensor([0, 2, 2, 0]))
    row = exits.overthinking_table([hasty]).iloc[0]
    assert row.overthought.tolist() == [0, 1, 0, 0]
    assert row.low < row.lost == 0.25 < row.high


def test_heads_cost_what_the_networks_differ_by(clean):
    share = exits.head_costs(exits.exit_table(exits.usual(clean)))
    assert share.index.tolist() == [DYNN]
    dynamic, static = (costs(network)[-1].item() for network in (DYNN, DYNN.sibling(exits="none")))
    assert share.item() == dynamic / static - 1 > 0


def test_first_images_to_leave_at_each_exit(clean):
    found = first_to_leave(clean[1], ConfidenceExit(0.9), 1)
    assert found.to_numpy().tolist() == [[0, "exit 1", 0, True], [2, "final exit", 2, True]]
    assert first_to_leave(clean[1], ConfidenceExit(0.9), 2).image.tolist() == [0, 1, 2]
