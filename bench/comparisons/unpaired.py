"""Two sets of values that were not taken in the same blocks: a ratio, its interval, an exact test. Pure functions."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from bench.stats import Interval

RESAMPLES = 4_000


@dataclass(frozen=True, slots=True)
class Ratio:
    """``now / before`` of medians, with the 95 % bootstrap interval (None below 2 values each) and the test's p."""

    ratio: float
    interval: Interval | None
    p: float


def compare(before: Sequence[float], now: Sequence[float], seed: int = 0) -> Ratio:
    """Compare two sets of positive values, at least one each. Raises ValueError for others."""
    if not before or not now or min(*before, *now) <= 0:
        raise ValueError("a ratio of medians takes positive values on both sides")
    import numpy as np

    logs = np.log(np.asarray(before, np.float64)), np.log(np.asarray(now, np.float64))
    ratio = float(np.median(logs[1]) - np.median(logs[0]))
    interval = None
    if min(len(before), len(now)) > 1:
        # Each set is drawn again by itself (Efron and Tibshirani, An Introduction to the Bootstrap, section 8.3).
        random = np.random.default_rng(seed)
        drawn = [np.median(side[random.integers(0, len(side), (RESAMPLES, len(side)))], axis=1) for side in logs]
        low, high = np.quantile(drawn[1] - drawn[0], [0.025, 0.975])
        interval = Interval(math.exp(low), math.exp(high), 0.95)
    return Ratio(math.exp(ratio), interval, rank_p(before, now))


def rank_p(before: Sequence[float], now: Sequence[float]) -> float:
    """Return the two-sided p of the rank-sum test (Wilcoxon 1945; Mann and Whitney 1947), equal values by mid-ranks.

    It is that of all divisions of the values into sets of these sizes, so it is exact with equal values, too. Ranks,
    because on a shared machine one run in many takes twice its time. 1 where one side has no value.
    """
    if not before or not now:
        return 1.0
    ranks = _doubled_mid_ranks([*before, *now])
    size, n = len(ranks), len(now)
    # How many choices of so many values have this sum of ranks, one value after the other.
    ways: list[dict[int, int]] = [{0: 1}, *({} for _ in range(n))]
    for rank in ranks:
        for count in range(n, 0, -1):
            for total, number in ways[count - 1].items():
                ways[count][total + rank] = ways[count].get(total + rank, 0) + number
    observed = abs(sum(ranks[len(before) :]) - n * (size + 1))
    extreme = sum(number for total, number in ways[n].items() if abs(total - n * (size + 1)) >= observed)
    return extreme / math.comb(size, n)


def _doubled_mid_ranks(values: Sequence[float]) -> list[int]:
    """Return twice the rank of each value from 1 on, equal values sharing the mean of theirs: whole numbers."""
    ordered = sorted(values)
    return [bisect_left(ordered, value) + bisect_right(ordered, value) + 1 for value in values]


def runs_needed(comparisons: int, alpha: float = 0.05) -> int:
    """Return how many runs on each side can show one of several comparisons after Holm: 4 for one, 5 up to six."""
    n = 1
    while comparisons * 2 / math.comb(2 * n, n) >= alpha:
        n += 1
    return n
