import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from dynlib.analysis import stats
from dynlib.analysis.stats import Training


def test_wilson_by_hand():
    assert stats.wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert stats.rate(np.array([True] * 8 + [False] * 2)) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)


@pytest.mark.parametrize("empty", [lambda: stats.rate(np.array([])), lambda: stats.mean(np.array([np.nan]))])
def test_nothing_in_common_is_said(empty):
    with pytest.raises(ValueError, match="no images"):
        empty()


def test_mcnemar_is_the_sign_test():
    assert stats.mcnemar(9, 2) == pytest.approx(binomtest(9, 11).pvalue)
    assert stats.mcnemar(0, 0) == 1


def test_holm_by_hand():
    assert stats.holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=2, max_size=300), st.integers(0, 3))
def test_intervals_hold_the_mean_and_pass_over_what_does_not_count(values, missing):
    found = stats.mean(np.array(values + [np.nan] * missing, dtype=float))
    middle, low, high = found
    assert middle == pytest.approx(np.mean(values))
    assert low - 1e-9 <= middle <= high + 1e-9
    assert -1 - 1e-9 <= low <= high <= 1 + 1e-9


def test_few_images_have_no_bootstrap_interval():
    """All of 12 images gained: a percentile bootstrap would be sure of it."""
    _, low, high = stats.mean(np.ones(12))
    assert low < 0.85
    assert high == pytest.approx(1)
    _, low, _ = stats.mean(np.ones(stats.FEW))
    assert low == 1  # from there on it is


def test_intervals_cover():
    """Of 400 samples of 60 images with a true difference of 0.2, about 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    samples = rng.choice([-1, 0, 1], p=[0.1, 0.6, 0.3], size=(400, 60))
    bounds = np.array([stats.mean(sample.astype(float))[1:] for sample in samples])
    assert 0.93 <= ((bounds[:, 0] <= 0.2) & (bounds[:, 1] >= 0.2)).mean() <= 1


def test_cells_on_the_same_images_are_resampled_together():
    """Two cells whose values cancel image by image have a mean that no resampling moves."""
    values = np.random.default_rng(0).choice([-1.0, 1.0], 200)
    together = stats.pooled_mean([Training("a", 1, values), Training("a", 2, -values)])
    apart = stats.pooled_mean([Training("a", 1, values), Training("b", 2, -values)])
    assert together == pytest.approx((0, 0, 0), abs=1e-9)
    assert apart[2] - apart[1] > 0.1


def test_trainings_that_differ_widen_the_interval():
    """Two trainings of a cell with means 0.2 and 0.8: whatever images are drawn, a quarter of the rounds sees only one of them."""
    values = np.random.default_rng(0).permutation(np.repeat([1.0, 0.0], [20, 80]))
    alike = stats.pooled_mean([Training("a", "cell", values), Training("a", "cell", values)])
    apart = stats.pooled_mean([Training("a", "cell", values), Training("a", "cell", 1 - values)])
    assert alike == pytest.approx(stats.pooled_mean([Training("a", "cell", values)]))
    assert apart.value == pytest.approx(0.5)
    assert apart.low < 0.2
    assert apart.high > 0.8


def test_a_cell_counts_once_however_often_it_was_trained():
    ones, zeros = np.ones(10), np.zeros(10)
    found = stats.pooled_mean([Training("a", "once", ones), *[Training("a", "often", zeros)] * 3])
    assert found == pytest.approx((0.5, 0.5, 0.5))


def test_a_training_without_a_success_is_passed_over_where_it_is_not_drawn():
    """A ratio that is infinite for one training must not turn the rounds without it into no number."""
    found, lost = np.array([[1.0, 1]] * 10), np.array([[1.0, 0]] * 10)
    with np.errstate(divide="ignore"):
        low, high = stats.bootstrap(
            [Training("a", "cell", found), Training("a", "cell", lost)], lambda sums: sums[..., 0] / sums[..., 1]
        )
    assert (low, high) == (1, np.inf)
