"""A metric over time and revisions: the series of runs of one spec, and steps in it. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.contracts.errors import BenchError
from bench.records.comparability import LOADING_FIELDS, facts_of
from bench.records.metrics import METRICS, Metric
from bench.records.record import RunRecord
from bench.regressions.segmentation import EFFECT, FEWEST, Division, divisions, searched

_CIRCUMSTANCES = frozenset({"python", "libraries", "bench", "kernel", "freed memory kept"})
_JUDGED_LATER = {"dataset", "source", "split", "limit", "options", "device", "cache", *LOADING_FIELDS} - {"backend"}
"""Fields that can differ between runs that did the same, as they say what was asked for."""


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
    """The points of runs of equal spec, data and machine, oldest first, and the steps in them.

    ``tested`` is how many series were searched for steps together, for which the p of each is adjusted.
    """

    record: RunRecord
    metric: Metric
    points: tuple[Point, ...]
    steps: tuple[Step, ...]
    tested: int

    @property
    def enough(self) -> bool:
        """Whether there are so many points that a step could be shown."""
        return len(self.points) >= FEWEST


def series(records: Sequence[RunRecord], metric: str, *, effect: float = EFFECT, seed: int = 0) -> list[Trend]:
    """Return the history of a metric, one for each set of runs that did equal work on equal data and machine.

    Versions and revisions may differ: they are what is tracked. Raises HistoryError for an unknown metric.
    """
    if metric not in METRICS:
        raise HistoryError(f"There is no metric {metric!r}. `bench list metrics` has them all.")
    found = trends_of(equal_work(records), METRICS[metric], effect=effect, seed=seed)
    return [trend for trend in found if trend is not None]


def trends_of(
    sets: Sequence[Sequence[RunRecord]], metric: Metric, *, effect: float = EFFECT, seed: int = 0
) -> list[Trend | None]:
    """Return the history of a metric over each set of runs of equal work, oldest first; None where none has a value."""
    points = [_points(runs, metric) for runs in sets]
    values = [[point.value for point in own] for own in points]
    tested = sum(map(searched, values))
    found: list[Trend | None] = []
    for runs, own, steps in zip(sets, points, divisions(values, effect=effect, seed=seed), strict=True):
        trend = Trend(runs[0], metric, tuple(own), tuple(_step(own, step) for step in steps), tested) if own else None
        found.append(trend)
    return found


def spans(runs: Sequence[RunRecord], metric: Metric) -> bool:
    """Whether the points of a metric are of several days, revisions or versions, and not just of one time."""
    points = _points(runs, metric)
    return any(_time(point) != _time(points[0]) for point in points)


def _time(point: Point) -> tuple[str, str | None, dict[str, str]]:
    return point.at[:10], point.revision, point.versions


def equal_work(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Return the runs that gave a result in sets that did equal work on equal data and machine, oldest first.

    What a run does not tell is no difference; those that tell two things are never in one set, by way of it neither.
    """
    sets: dict[tuple[object, ...], list[tuple[dict[str, str], list[RunRecord]]]] = {}
    for record in sorted((r for r in records if r.status == "ok"), key=lambda record: record.started_at):
        data = record.data.digest if record.data else None
        quickly = (record.spec.model_dump_json(exclude=_JUDGED_LATER), record.device, data)
        told = {name: value for name, value in facts_of(record, own=()).items() if not _tracked(name)}
        for known, runs in sets.setdefault(quickly, []):
            if all(known.get(name, value) == value for name, value in told.items()):
                known.update(told)
                runs.append(record)
                break
        else:
            sets[quickly].append((told, [record]))
    return [runs for entries in sets.values() for _, runs in entries]


def _tracked(name: str) -> bool:
    """Whether it is what is tracked that has another value: versions and the like."""
    return name in _CIRCUMSTANCES or name.startswith("version of ")


def _points(runs: Sequence[RunRecord], metric: Metric) -> list[Point]:
    groups: dict[tuple[object, ...], list[RunRecord]] = {}
    for number, run in enumerate(runs):
        # A run outside of any comparison is a point by itself. A matrix may have gone on with other versions.
        key = run.campaign.id if run.campaign else f"run {number}"
        groups.setdefault((key, _revision(run), *sorted(_versions(run).items())), []).append(run)
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


def _step(points: Sequence[Point], found: Division) -> Step:
    index = found.index
    sides = points[found.start : index], points[index : found.end]
    before, behind = (statistics.median(point.value for point in side) for side in sides)
    ratio = behind / before if min(before, behind) > 0 else None
    canaries = [[point.canary_s for point in side if point.canary_s is not None] for side in sides]
    canary = statistics.median(canaries[1]) / statistics.median(canaries[0]) if all(canaries) else None
    return Step(index, before, behind, ratio, found.p, canary, tuple(_changed(points[index - 1], points[index])))


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
