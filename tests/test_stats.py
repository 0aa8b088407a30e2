import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from dynlib.analysis import stats


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
    together = stats.pooled_mean([("a", values), ("a", -values)])
    apart = stats.pooled_mean([("a", values), ("b", -values)])
    assert together == pytest.approx((0, 0, 0), abs=1e-9)
    assert apart[2] - apart[1] > 0.1
