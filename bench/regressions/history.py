"""A metric over time and revisions: the series of runs of one spec, and steps in it. Pure functions.

A step is found by binary segmentation (Scott and Knott 1974; Vostrikova 1981): the division of a segment that is most
unlike chance is kept where it is one, and both parts are searched in turn. What is unlike chance is judged by ranks:
the largest standardised rank sum over all places (Pettitt 1979, and in this form Hawkins and Deng 2010), whose p is
that of random orders of the same values, so that looking at many places is paid for. A disturbed point alone makes no
step.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.comparisons.comparison import ALPHA
from bench.contracts.errors import BenchError
from bench.records.comparability import differences
from bench.records.metrics import METRICS, Metric
from bench.records.record import RunRecord

SEGMENT = 4
"""Fewest points on either side of a step; 4 and 4 are the fewest that can show one at 0.05 (2 of 70 divisions)."""

EFFECT = 0.05
"""The least step that is reported."""

ORDERS = 4_999
"""Random orders that p is taken from, the observed one counted among them (Phipson and Smyth 2010)."""

_CIRCUMSTANCES = frozenset({"python", "libraries", "bench", "kernel", "freed memory kept"})


class HistoryError(BenchError):
    """Records or a metric from which no history follows."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value: of a run, or the median of the runs of one comparison, which share the state of the machine.

    ``canary_s`` is what a fixed loop took around the epochs, in the runs' own processes; None where unknown.
    ``versions`` are those of bench, Python and the libraries, ``revision`` that of the code, with ``+`` where modified.
    """

    at: str
    value: float
    runs: int
    revision: str | None
    versions: dict[str, str]
    canary_s: float | None


@dataclass(frozen=True, slots=True)
class Step:
    """A change between the point before ``index`` and the one there.

    ``before`` and ``behind`` are the medians of the segments on both sides, ``ratio`` is the second over the first and
    None where one of them is not positive; ``canary_ratio`` is that of the fixed loop, None where unknown; ``changed``
    names what differs between the two points, with both values.
    """

    index: int
    before: float
    behind: float
    ratio: float | None
    p: float
    canary_ratio: float | None
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trend:
    """The points of runs of equal spec, data and machine, oldest first, and the steps in them."""

    record: RunRecord
    metric: Metric
    points: tuple[Point, ...]
    steps: tuple[Step, ...]

    @property
    def enough(self) -> bool:
        """Whether there are so many points that a step could be shown."""
        return len(self.points) >= 2 * SEGMENT

    @property
    def spans(self) -> bool:
        """Whether the points are of several days, revisions or versions, and not just of one time."""
        first = self.points[0]
        known = (first.at[:10], first.revision, first.versions)
        return any((point.at[:10], point.revision, point.versions) != known for point in self.points)


def series(records: Sequence[RunRecord], metric: str, *, effect: float = EFFECT, seed: int = 0) -> list[Trend]:
    """Return the history of a metric, one for each set of runs that did equal work on equal data and machine.

    Versions and revisions may differ: they are what is tracked. Raises HistoryError for an unknown metric.
    """
    if metric not in METRICS:
        raise HistoryError(f"There is no metric {metric!r}. `bench list metrics` has them all.")
    found = [trend_of(runs, METRICS[metric], effect=effect, seed=seed) for runs in equal_work(records)]
    return [trend for trend in found if trend is not None]


def trend_of(runs: Sequence[RunRecord], metric: Metric, *, effect: float = EFFECT, seed: int = 0) -> Trend | None:
    """Return the history of a metric over runs of equal work, oldest first; None where none of them has a value."""
    points = _points(runs, metric)
    if not points:
        return None
    values = [point.value for point in points]
    steps = tuple(_step(points, index, p, found) for index, p, found in _steps(values, effect, seed))
    return Trend(runs[0], metric, tuple(points), steps)


def equal_work(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Return the runs that gave a result in sets that did equal work on equal data and machine, oldest first."""
    by_spec: dict[str, list[RunRecord]] = {}
    for record in sorted((r for r in records if r.status == "ok"), key=lambda record: record.started_at):
        by_spec.setdefault(record.spec_id, []).append(record)
    found: list[list[RunRecord]] = []
    for runs in by_spec.values():
        sets: list[list[RunRecord]] = []
        for run in runs:
            for known in sets:
                if _tracked_alone(known[0], run):
                    known.append(run)
                    break
            else:
                sets.append([run])
        found += sets
    return found


def _tracked_alone(one: RunRecord, other: RunRecord) -> bool:
    """Whether two runs differ in versions and the like alone; what one does not tell is no difference here."""
    return all(
        difference.name in _CIRCUMSTANCES or difference.name.startswith("version of ") or "unknown" in difference.values
        for difference in differences([one, other], own=())
    )


def _points(runs: Sequence[RunRecord], metric: Metric) -> list[Point]:
    groups: dict[tuple[str, str | None], list[RunRecord]] = {}
    for number, run in enumerate(runs):
        # A run outside of any comparison is a point by itself.
        key = run.campaign.id if run.campaign else f"run {number}"
        groups.setdefault((key, _revision(run)), []).append(run)
    points = []
    for group in groups.values():
        summary = metric.over(group)
        if summary is None or not math.isfinite(summary.median):
            continue
        canaries = [value for run in group for value in _canary(run)]
        canary = statistics.median(canaries) if canaries else None
        first = group[0]
        points.append(Point(first.started_at, summary.median, len(group), _revision(first), _versions(first), canary))
    return points


def _revision(record: RunRecord) -> str | None:
    revision = record.environment.get("git_revision")
    return None if not revision else revision[:9] + ("+" if record.environment.get("git_modified") else "")


def _versions(record: RunRecord) -> dict[str, str]:
    known = record.environment
    own = {name: str(known[name]) for name in ("bench", "python") if known.get(name)}
    return own | {name: str(version) for name, version in (known.get("libraries") or {}).items()}


def _canary(record: RunRecord) -> list[float]:
    disturbance: dict[str, Any] = record.environment.get("disturbance") or {}
    return [value for value in disturbance.get("canary_s") or [] if value]


def _steps(values: Sequence[float], effect: float, seed: int) -> list[tuple[int, float, tuple[int, int]]]:
    """Return where steps begin, with the p of each and the bounds of the segments on both sides, in order."""
    found: list[tuple[int, float]] = []
    waiting = [(0, len(values))]
    while waiting:
        start, end = waiting.pop()
        best = _best(values[start:end], seed)
        if best is None or best[1] >= ALPHA:
            continue
        place = start + best[0]
        before, behind = statistics.median(values[start:place]), statistics.median(values[place:end])
        if not _large(before, behind, effect):
            continue
        found.append((place, best[1]))
        waiting += [(start, place), (place, end)]
    found.sort()
    bounds = [0, *(place for place, _ in found), len(values)]
    return [(place, p, (bounds[n], bounds[n + 2])) for n, (place, p) in enumerate(found)]


def _large(before: float, behind: float, effect: float) -> bool:
    """Whether two medians differ by more than a share of the smaller one, which of zero is any difference."""
    return abs(behind - before) > effect * min(abs(before), abs(behind))


def _best(values: Sequence[float], seed: int) -> tuple[int, float] | None:
    """Return the place that divides values best, with its p; None where there are too few."""
    count = len(values)
    if count < 2 * SEGMENT:
        return None
    import numpy as np

    ordered = np.sort(np.asarray(values, np.float64))
    ranks = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2
    places = np.arange(SEGMENT, count - SEGMENT + 1)
    deviation = np.sqrt(places * (count - places) * (count + 1) / 12)

    def standardised(orders: Any) -> Any:
        sums = np.cumsum(orders, axis=-1)[..., places - 1]
        return np.abs(sums - places * (count + 1) / 2) / deviation

    observed = standardised(ranks)
    random = np.random.default_rng(seed)
    drawn = standardised(random.permuted(np.tile(ranks, (ORDERS, 1)), axis=1)).max(axis=1)
    # Sums of halves are exact; the square root is the same for both.
    p = (1 + int(np.sum(drawn >= observed.max() - 1e-12))) / (1 + ORDERS)
    return int(places[int(np.argmax(observed))]), p


def _step(points: Sequence[Point], index: int, p: float, bounds: tuple[int, int]) -> Step:
    sides = points[bounds[0] : index], points[index : bounds[1]]
    before, behind = (statistics.median(point.value for point in side) for side in sides)
    ratio = behind / before if min(before, behind) > 0 else None
    canaries = [[point.canary_s for point in side if point.canary_s is not None] for side in sides]
    canary = statistics.median(canaries[1]) / statistics.median(canaries[0]) if all(canaries) else None
    return Step(index, before, behind, ratio, p, canary, tuple(_changed(points[index - 1], points[index])))


def _changed(one: Point, other: Point) -> list[str]:
    texts = []
    if one.revision != other.revision:
        texts.append(f"revision {one.revision or 'unknown'} → {other.revision or 'unknown'}")
    names = dict.fromkeys([*one.versions, *other.versions])
    texts += [
        f"{name} {one.versions[name]} → {other.versions[name]}"
        for name in names
        if name in one.versions and name in other.versions and one.versions[name] != other.versions[name]
    ]
    return texts
