"""Statistics against hand calculations, published tables and SciPy."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from bench import stats

LOG_RATIOS = st.lists(st.floats(-2, 2, allow_subnormal=False), min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("values", "p"),
    [
        ([], 1),
        ([0.0, 0.0], 1),
        ([0.3] * 5, 2 / 32),
        ([0.01, 0.2, 0.05, 0.11, 0.07, 0.3, 0.13, 0.02], 2 / 256),
        # Only flipping nothing, the 1, or all of these again is as extreme.
        ([-1, 2, 3, 4, 5, 6, 7, 8], 4 / 256),
        # All but the 6 ways of 2 against 2.
        ([1, 1, 1, -1], 10 / 16),
        ([0.1, 0.2, -0.3], 1),
    ],
)
def test_the_sign_flip_test_counts_as_by_hand(values: list[float], p: float) -> None:
    assert stats.sign_flip_p(values) == p


def test_the_sign_flip_test_agrees_with_scipy() -> None:
    random = np.random.default_rng(1)
    for n in (3, 6, 8, 11):
        values = random.normal(0.3, 1, n)
        expected = reference.permutation_test(
            (values,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
        )
        assert stats.sign_flip_p(values) == pytest.approx(expected.pvalue, abs=1e-12)


@settings(deadline=None)
@given(LOG_RATIOS, st.randoms(use_true_random=False))
def test_neither_order_nor_direction_changes_p(values: list[float], random) -> None:
    p = stats.sign_flip_p(values)
    assert stats.smallest_p(len(values)) <= p <= 1
    shuffled = random.sample(values, len(values))
    assert stats.sign_flip_p(shuffled) == p
    assert stats.sign_flip_p([-value for value in shuffled]) == p


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=14))
def test_values_of_one_sign_give_the_smallest_p(values: list[float]) -> None:
    assert stats.sign_flip_p(values) == stats.smallest_p(len(values)) == 2 / 2 ** len(values)


def test_many_values_are_judged_by_drawn_signs() -> None:
    # Of equal sizes it is the sign test, whose p is binomial.
    exact = 2 * sum(math.comb(24, k) for k in range(17, 25)) / 2**24
    values = [1.0] * 17 + [-1.0] * 7
    assert stats.sign_flip_p(values) == pytest.approx(exact, abs=0.003)
    assert stats.sign_flip_p(values, seed=1) == stats.sign_flip_p(values, seed=1)
    assert stats.sign_flip_p([1.0] * 60) == stats.smallest_p(60) == 1 / 100_000


def test_a_ratio_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        stats.sign_flip_p([0.1, math.inf])


@pytest.mark.parametrize(("comparisons", "blocks"), [(1, 6), (2, 7), (3, 7), (4, 8), (6, 8), (7, 9), (15, 10)])
def test_the_blocks_needed_are_the_fewest_that_can_show_anything(comparisons: int, blocks: int) -> None:
    assert stats.blocks_needed(comparisons) == blocks
    best = [[2 / 2**n, *[1.0] * (comparisons - 1)] for n in (blocks - 1, blocks)]
    assert [min(stats.holm(p_values)) < 0.05 for p_values in best] == [False, True]


def test_what_no_number_of_blocks_can_show_is_said() -> None:
    with pytest.raises(ValueError, match="no number of blocks"):
        stats.blocks_needed(1, alpha=0)
    with pytest.raises(ValueError, match="no comparison"):
        stats.blocks_needed(0)


def test_holm_gives_the_textbook_result() -> None:
    # p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") of R.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.7]) == [1, 1]
    assert stats.holm([]) == []


@pytest.mark.parametrize(
    ("n", "rank", "coverage"),
    # Tables of order-statistic intervals for the median, as in Conover, Practical Nonparametric Statistics.
    [(5, 1, 0.9375), (6, 1, 0.9688), (8, 1, 0.9922), (8, 2, 0.9297), (9, 2, 0.9609), (10, 2, 0.9785), (15, 4, 0.9648)],
)
def test_order_statistics_cover_the_median_as_published(n: int, rank: int, coverage: float) -> None:
    assert stats.order_coverage(n, rank) == pytest.approx(coverage, abs=5e-5)


def test_ranks_beyond_the_middle_make_no_interval() -> None:
    with pytest.raises(ValueError, match="rank 4"):
        stats.order_coverage(5, 4)


def test_the_interval_of_few_values_is_exact_or_none() -> None:
    assert stats.median_interval([5, 1, 4, 2, 3]) is None
    assert stats.median_interval([5, 1, 4, 2, 3], 0.9) == stats.Interval(1, 5, 0.9375)
    assert stats.median_interval([6, 5, 1, 4, 2, 3]) == stats.Interval(1, 6, 0.96875)
    nine = stats.median_interval([9, 8, 7, 6, 5, 4, 3, 2, 1])
    assert (nine.low, nine.high) == (2, 8)
    assert stats.median_interval([]) is None


def test_the_interval_of_few_values_holds_what_it_promises() -> None:
    random = np.random.default_rng(0)
    intervals = [stats.median_interval(list(sample)) for sample in random.lognormal(0, 1, (2000, 10))]
    covered = sum(interval.low <= 1 <= interval.high for interval in intervals) / len(intervals)
    assert covered == pytest.approx(0.9785, abs=0.012)


@pytest.mark.parametrize("n", [15, 16, 20, 101])
def test_the_interval_of_many_values_covers_the_median_as_often_as_it_says(n: int) -> None:
    random = np.random.default_rng(3)
    intervals = [stats.median_interval(list(sample)) for sample in random.lognormal(0, 1, (4000, n))]
    covered = sum(found.low <= 1 <= found.high for found in intervals) / len(intervals)
    assert covered == pytest.approx(intervals[0].coverage, abs=0.012)
    assert 0.95 <= intervals[0].coverage <= 0.98


def test_the_bootstrap_of_a_median_covers_what_comparisons_say_of_it() -> None:
    """What they print beside ratios: with 8 blocks about 92 %."""
    samples = np.random.default_rng(5).normal(0, 1, (1500, 8))
    found = [stats.bootstrap_interval(list(sample), np.median, resamples=4000) for sample in samples]
    assert sum(each.low <= 0 <= each.high for each in found) / len(found) == pytest.approx(0.92, abs=0.01)


def test_the_bootstrap_of_a_mean_agrees_with_theory() -> None:
    values = np.random.default_rng(0).normal(10, 2, 400)
    found = stats.bootstrap_interval(list(values), np.mean, 0.9)
    half = 1.645 * values.std(ddof=1) / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_one_value_has_no_interval_and_certainty_is_refused() -> None:
    assert stats.bootstrap_interval([3.0], np.median) is None
    with pytest.raises(ValueError, match="confidence"):
        stats.bootstrap_interval([1.0, 2.0], np.median, 1)


def test_percentiles_are_values_that_were_measured() -> None:
    thousand = list(range(1000, 0, -1))
    assert [stats.percentile(thousand, q) for q in (0.1, 50, 99, 99.9)] == [1, 500, 990, 999]
    assert stats.percentile([4, 1, 3, 2], 50) == 2
    assert stats.percentile([7], 99) == 7
    assert stats.percentile([], 50) is None
    with pytest.raises(ValueError, match="between 0 and 100"):
        stats.percentile([1], 100)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.integers(1, 99))
def test_percentiles_agree_with_numpy(values: list[float], q: int) -> None:
    # Exact: a share times a count that is whole is whole, which binary fractions do not keep.
    below = sorted(values)
    assert stats.percentile(values, q) == below[-(-q * len(values) // 100) - 1]
    if q * len(values) % 100:
        assert stats.percentile(values, q) == np.percentile(values, q, method="inverted_cdf")


def test_a_percentile_is_worth_printing_with_ten_values_beyond_it() -> None:
    assert [stats.needed_count(q) for q in (50, 75, 90, 10, 99, 99.9)] == [10, 40, 100, 100, 1000, 10_000]


def test_importing_statistics_and_plans_loads_no_numpy() -> None:
    check = "import sys, bench.stats, bench.comparisons.campaign; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)
