"""Where series of values have steps. Pure functions.

A step is found by binary segmentation (Scott and Knott 1974; Vostrikova 1981): the division of a segment that is most
unlike chance is kept where it is one, and both parts are searched in turn. What is unlike chance is judged by ranks:
the largest standardised rank sum over all places (Pettitt 1979, and in this form Hawkins and Deng 2010), whose p is
that of random orders of the same values, so that looking at many places is paid for. A disturbed point alone makes no
step.

Noise of a machine lasts, so that neighbours are alike, and in wholly random orders they are not: of series of 30 points
with a correlation of 0.5 from each to the next, 4 in 10 would show a step that is none. So the random orders are those
of an AR(1) process whose neighbours are as alike as those of the series between its steps.
"""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.comparisons.comparison import ALPHA
from bench.stats import holm

SEGMENT = 4
"""Fewest points on either side of a step."""

FEWEST = 10
"""Fewest points that are searched: in fewer, not one in seven steps of any size is shown, as too little is known of how
alike neighbours are."""

EFFECT = 0.05
"""The least step that is reported."""

ORDERS = 4_999
"""Random orders that p is taken from, the observed one counted among them (Phipson and Smyth 2010)."""

_BIAS = 3.5
"""Neighbours are taken to be more alike than in the residuals of segments, by so much per segment over the number of
points: residuals are less alike than the noise. Simulated with this, noise with a correlation of 0.5 from each point to
the next shows a step in 5 to 11 of 100 series of 12 to 60 points, and a step of 20 % over a scatter of 10 % is shown in
82 of 100 of 24 points."""

_MOST_ALIKE = 0.95


@dataclass(frozen=True, slots=True)
class Division:
    """A step at ``index``, between the segment from ``start`` and the one up to ``end``."""

    start: int
    index: int
    end: int
    p: float


def divisions(series: Sequence[Sequence[float]], *, effect: float = EFFECT, seed: int = 0) -> list[list[Division]]:
    """Return the steps of each series, in order, with p adjusted by Holm for all series in which one might be."""
    alike = [_likeness(values, seed) if searched(values) else None for values in series]
    firsts = [None if a is None else _best(v, a, seed)[1] for v, a in zip(series, alike, strict=True)]
    known = [p for p in firsts if p is not None]
    adjusted = iter(holm(known))
    found: list[list[Division]] = []
    for values, likeness, first in zip(series, alike, firsts, strict=True):
        if likeness is None or first is None or (least := next(adjusted)) >= ALPHA:
            found.append([])
            continue
        # What Holm multiplies the first p with goes for what is found within its parts, too.
        factor = sum(p >= first for p in known)
        places = _places(values, effect, seed, likeness, ALPHA / factor)
        found.append(_bounded(values, [(place, max(least, factor * p)) for place, p in places], effect))
    return found


def searched(values: Sequence[float]) -> bool:
    """Whether a step might be shown in a series: it has points enough, and they are not all equal."""
    return len(values) >= FEWEST and len(set(values)) > 1


def _likeness(values: Sequence[float], seed: int) -> float:
    """Return the correlation of neighbours that is assumed; 0 where not even wholly random orders show a step."""
    places = [place for place, _ in _places(values, 0.0, seed, 0.0, ALPHA)]
    if not places:
        return 0.0
    bounds = [0, *places, len(values)]
    import numpy as np

    ranks = _ranks(values)
    parts = [ranks[start:end] - ranks[start:end].mean() for start, end in itertools.pairwise(bounds)]
    spread = sum(float(np.sum(part**2)) for part in parts)
    if not spread:
        return 0.0
    together = sum(float(np.sum(part[1:] * part[:-1])) for part in parts)
    return min(_MOST_ALIKE, max(0.0, together / spread + _BIAS * len(parts) / len(values)))


def _places(
    values: Sequence[float], effect: float, seed: int, likeness: float, level: float
) -> list[tuple[int, float]]:
    """Return where steps begin, with the p of each, in order."""
    found: list[tuple[int, float]] = []
    waiting = [(0, len(values))]
    while waiting:
        start, end = waiting.pop()
        if not searched(values[start:end]):
            continue
        best, p = _best(values[start:end], likeness, seed)
        place = start + best
        if p >= level or _size(values, start, place, end) <= effect:
            continue
        found.append((place, p))
        waiting += [(start, place), (place, end)]
    return sorted(found)


def _best(values: Sequence[float], likeness: float, seed: int) -> tuple[int, float]:
    """Return the place that divides values best, with its p."""
    import numpy as np

    count = len(values)
    ranks = _ranks(values)
    places = np.arange(SEGMENT, count - SEGMENT + 1)
    deviation = np.sqrt(places * (count - places) * (count + 1) / 12)

    def standardised(orders: Any) -> Any:
        sums = np.cumsum(orders, axis=-1)[..., places - 1]
        return np.abs(sums - places * (count + 1) / 2) / deviation

    observed = standardised(ranks)
    drawn = standardised(np.sort(ranks)[_orders(count, likeness, seed)]).max(axis=1)
    # Sums of halves are exact; the square root is the same for both.
    p = (1 + int(np.sum(drawn >= observed.max() - 1e-12))) / (1 + ORDERS)
    return int(places[int(np.argmax(observed))]), p


def _ranks(values: Sequence[float]) -> Any:
    """Return the rank of each value, equal ones sharing the mean of theirs."""
    import numpy as np

    ordered = np.sort(np.asarray(values, np.float64))
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2


@functools.lru_cache(maxsize=4)
def _orders(count: int, likeness: float, seed: int) -> Any:
    """Return random orders, one a row: the places that values of an AR(1) process take among their own.

    Series of a page have mostly as many points and are first looked at in wholly random orders, so these are kept.
    """
    import numpy as np

    noise = np.random.default_rng(seed).standard_normal((ORDERS, count))
    for number in range(1, count):
        noise[:, number] = likeness * noise[:, number - 1] + (1 - likeness**2) ** 0.5 * noise[:, number]
    return noise.argsort(axis=1).argsort(axis=1)


def _bounded(values: Sequence[float], places: list[tuple[int, float]], effect: float) -> list[Division]:
    """Return the steps between final segments; those that are too small between these are left out, the least first."""
    while True:
        bounds = [0, *(place for place, _ in places), len(values)]
        found = [Division(bounds[n], place, bounds[n + 2], p) for n, (place, p) in enumerate(places)]
        sizes = [_size(values, one.start, one.index, one.end) for one in found]
        if not sizes or min(sizes) > effect:
            return found
        del places[sizes.index(min(sizes))]


def _size(values: Sequence[float], start: int, place: int, end: int) -> float:
    """Return by what share of the smaller one two medians differ; infinite where only that is zero."""
    before, behind = statistics.median(values[start:place]), statistics.median(values[place:end])
    least = min(abs(before), abs(behind))
    difference = abs(behind - before)
    return difference / least if least else float("inf") if difference else 0.0
