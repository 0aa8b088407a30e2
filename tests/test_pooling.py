"""Means over cells: pooled rates, curves and ratios, and which attacks are compared."""

import numpy as np
import pandas as pd
import pytest

from dynlib.analysis import cost, stats, transfer
from dynlib.networks.identity import Network

STATIC, DYNAMIC = Network("cifar10", "resnet56", "none"), Network("cifar10", "resnet56")


def rows(**columns) -> pd.DataFrame:
    usual = {"dataset": "cifar10", "method": "pgd", "loss": "average", "eps_255": 2.0, "seed": 0, "kind": "dynn"}
    return pd.DataFrame(columns).assign(**{name: value for name, value in usual.items() if name not in columns})


def test_pooled_is_the_mean_of_the_cells_means():
    networks = [DYNAMIC, DYNAMIC.sibling(model="vgg16")]
    table = rows(network=networks, per_image=[np.tile([1.0, 0.0, np.nan, 1.0], 5), np.zeros(20)])
    (row,) = transfer.pooled(table, ["dataset", "loss"]).itertuples()
    assert (row.cells, row.n, row.value) == (2, 15, pytest.approx(1 / 3))
    assert row.low <= row.value <= row.high
    key = transfer.key("a rate", table)
    assert key == {"what": "a rate", "value": row.value, "low": row.low, "high": row.high}


def test_a_pooled_curve_is_a_pooled_mean_at_each_point():
    values = np.random.default_rng(0).integers(0, 2, (30, 2)).astype(float)
    values[3] = np.nan
    cells = [stats.of(values, DYNAMIC), stats.of(1 - values, STATIC)]
    curve = stats.pooled_curve(cells)
    for place in range(2):
        mean = stats.pooled_mean([one._replace(values=one.values[:, place]) for one in cells])
        assert [part[place] for part in curve] == pytest.approx(mean)


def test_a_ratio_of_one_cell_pools_to_itself():
    columns = np.array([[2.0, 1, 4, 1], [4.0, 1, 8, 1]])
    table = pd.DataFrame({"network": [DYNAMIC], "loss": "taken", "n": 2, "columns": [columns]})
    (row,) = cost.pooled_ratios(table, ["loss"]).itertuples()
    assert np.exp([row.log_ratio, row.low, row.high]) == pytest.approx([0.5] * 3)


def test_walks_fall_at_the_cost_and_distance_they_were_stopped_at():
    n, full = 3, cost.pass_macs(DYNAMIC)
    assert full == cost.pass_macs(STATIC)
    columns = {"macs": full * np.array([1, 2, 5]), "linf": np.array([0.5, 1, 8]) / 255, "counts": np.ones(n, dtype=bool)}
    walked = pd.DataFrame([{"source": STATIC, "loss": "final", "success": np.array([True, True, False]), **columns}])
    for over, points in (("passes", [0.9, 1, 2, 9]), ("distance", [0, 0.5, 1, 8])):
        curve = cost.pooled_curves(walked, over, np.array(points, dtype=float))
        assert list(curve.rate) == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3])
        assert cost.halfway(curve, over)[over].item() == points[2]
        assert cost.halfway(curve.assign(rate=0.4), over).empty


def test_attacks_are_compared_where_most_were_made():
    table = rows(loss=["average", "taken", "average"], eps_255=[2.0, 2.0, 4.0])
    assert transfer.compared_radius(table, {"cifar10": 4.0}) == {"cifar10": 2.0}
    assert transfer.compared_radius(table[table.loss == "average"], {"cifar10": 4.0}) == {"cifar10": 4.0}
    assert list(transfer.at_radius(table, {"cifar10": 4.0})) == [False, False, True]


def test_matched_keeps_what_was_made_on_all_kinds():
    table = rows(kind=["dynn", "ic_only", "dynn"], loss=["average", "average", "final"])
    assert list(transfer.matched(table).loss) == ["average", "average"]
    assert len(transfer.matched(table[table.kind == "dynn"])) == 2


def test_both_ways_pairs_networks_of_one_training():
    other = DYNAMIC.sibling(seed=1)
    pairs = [(STATIC, DYNAMIC), (DYNAMIC, STATIC), (STATIC, other), (DYNAMIC, DYNAMIC)]
    image = np.zeros(2, dtype=int)
    about = {"method": "pgd", "loss": "final", "eps_255": 2.0, "seed": 0, "truth": image, "label": image}
    shown = pd.DataFrame([{"source": source, "target": target, **about} for source, target in pairs])
    right = dict.fromkeys((STATIC, DYNAMIC, other), np.array([True, False]))
    assert list(transfer.both_ways(shown, right).kind) == ["sdnn", "dynn"]
    assert list(transfer.white_box(shown, right).target) == [DYNAMIC]
    np.testing.assert_array_equal(transfer.outcomes(shown, right).per_image[0], [0, np.nan])
