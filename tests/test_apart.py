"""C1's difference as a sum of parts, on tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from dynlib.analysis import apart
from dynlib.networks.identity import Network
from tests.test_analysis import row

DYNN = Network("cifar10", "resnet56")
SDNN = DYNN.sibling(exits="none")
THIRD = DYNN.sibling(model="vgg16", exits="none")
NOBODY = [0, 0, 0, 0]


def parts(turned, clean=None):
    """The mean of each part; of each source and target the images that it turns, as labels deployed and at the final exit."""
    networks = (DYNN, SDNN, THIRD)
    turned = {(s, t): (NOBODY, NOBODY) for s in networks for t in networks} | turned
    shown = pd.DataFrame([row(s, t, deployed, [deployed, final]) for (s, t), (deployed, final) in turned.items()])
    quiet = dict.fromkeys(networks, NOBODY) | (clean or {})
    table = apart.parts(shown, pd.DataFrame([row(n, n, labels) for n, labels in quiet.items()]))
    assert set(table.network) == {DYNN}
    return dict(zip(table.part, table.per_image, strict=True))


def test_a_better_source_is_told_from_a_harder_target():
    better = parts({(DYNN, t): ([1, 1, 1, 0],) * 2 for t in (SDNN, THIRD)})
    assert {part: values.mean() for part, values in better.items()} == pytest.approx(
        {"difference": 0.75, "source": 0.75, "weights": 0, "exits": 0, "pair": 0}
    )
    harder = parts({(s, SDNN): ([1, 1, 0, 0],) * 2 for s in (DYNN, THIRD)})
    assert {part: values.mean() for part, values in harder.items()} == pytest.approx(
        {"difference": 0.5, "source": 0, "weights": 0.5, "exits": 0, "pair": 0}
    )


def test_what_exits_protect_is_told_from_what_weights_do():
    """The final exit falls, the network as deployed does not: the mechanism alone makes the difference."""
    everywhere = {(s, t): ([1, 1, 0, 0],) * 2 for s in (DYNN, SDNN, THIRD) for t in (SDNN, THIRD)}
    sheltered = {(s, DYNN): (NOBODY, [1, 1, 0, 0]) for s in (SDNN, THIRD)}
    assert {part: values.mean() for part, values in parts(everywhere | sheltered).items()} == pytest.approx(
        {"difference": 0.5, "source": 0, "weights": 0, "exits": 0.5, "pair": 0}
    )


def test_parts_add_up_on_the_images_that_count():
    rng = np.random.default_rng(0)
    turned = {(s, t): tuple(rng.integers(0, 2, (2, 4))) for s in (DYNN, SDNN, THIRD) for t in (DYNN, SDNN, THIRD)}
    found = parts(turned, clean={SDNN: [1, 0, 0, 0], THIRD: [0, 0, 0, 1]})
    np.testing.assert_allclose(sum(found[part] for part in apart.PARTS if part != "difference"), found["difference"])
    for values in found.values():
        np.testing.assert_array_equal(np.isnan(values), [True, False, False, True])


def test_without_another_architecture_there_are_no_parts():
    shown = pd.DataFrame([row(DYNN, SDNN, NOBODY), row(SDNN, DYNN, NOBODY)])
    assert apart.parts(shown, pd.DataFrame([row(n, n, NOBODY) for n in (DYNN, SDNN)])).empty


def test_two_trainings_of_one_network_differ_by_chance():
    other = SDNN.sibling(seed=1)
    shown = pd.DataFrame([row(SDNN, other, [1, 1, 0, 0]), row(other, SDNN, [1, 0, 0, 0]), row(SDNN, DYNN, NOBODY)])
    (found,) = apart.chance(shown, pd.DataFrame([row(n, n, NOBODY) for n in (DYNN, SDNN, other)])).itertuples()
    assert found.network == other
    np.testing.assert_array_equal(found.per_image, [0, 1, 0, 0])
