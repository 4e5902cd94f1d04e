"""Whether what was measured today is worse than a saved baseline. Pure functions: runs of both days become findings.

Runs of two days were never in one block, so nothing is paired. A day's speed of the machine is known from the
calibrations around its runs. Which of them a time follows is not known for certain: a time may be slower only if it is
under every calibration that explains the runs of one day about as well as the best one does (an intersection-union
test, Berger 1982, whose p is the largest of its parts and needs no adjustment among them). "As measured" is one of them
unless the runs kept a processor busy: what sleeps or waits for a device does not follow it. How well one explains is
judged within each day, which a change between the days leaves as it is.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench import unpaired
from bench.baseline import Measured
from bench.calibration import TASKS
from bench.comparison import ALPHA
from bench.held import HELD, MEMORY_EFFECT, TIMES, Held
from bench.metrics import METRICS, Metric
from bench.record import RunRecord
from bench.stats import Interval, holm
from bench.unpaired import Ratio

EFFECT = 0.05
"""The least slow-down that counts, unless another is asked for."""

STALL_SHARE = 0.01
"""Waiting counts as longer only where that is at least so much of an epoch."""

EXPLAINS_AS_WELL = 1.5
"""A calibration stays in question while runs of one day spread at most this many times as much as under the best."""

SPEED_LIMIT = 1.5
"""Where the calibrations of two days differ by more, the machine is another or was busy: times are not held."""

BUSY_SHARE = 0.9
"""Runs that use so much CPU time per second follow the processor's speed; others may as well not."""

AS_MEASURED = "as measured"

Verdict = Literal["slower", "faster", "more", "less", "equal", "no change shown", "not held"]
WORSE: tuple[Verdict, ...] = ("slower", "more")

Transform = Callable[[Measured, float], float]


@dataclass(frozen=True, slots=True)
class Finding:
    """One metric of one cell: medians of both days in the metric's unit, and what follows.

    ``ratio`` is today's over the baseline's, for times by the calibration ``by`` which explains them best; ``interval``
    is that of the ratio. ``p`` and ``least`` (the ratio closest to 1) are over all calibrations in question.
    ``floor`` is by how much equal runs of either day may differ, as a share.
    """

    cell: str
    metric: Metric
    n: tuple[int, int]
    before: float | None
    now: float | None
    verdict: Verdict
    reason: str | None = None
    ratio: float | None = None
    interval: Interval | None = None
    least: float | None = None
    p: float | None = None
    p_holm: float | None = None
    floor: float | None = None
    by: str | None = None
    held_exactly: bool = False

    @property
    def worse(self) -> bool:
        """Whether it is a regression."""
        return self.verdict in WORSE


@dataclass(frozen=True, slots=True)
class Sides:
    """The runs of one cell that gave a result, in the baseline and today; controls apart."""

    before: tuple[Measured, ...]
    now: tuple[Measured, ...]
    twins_before: tuple[Measured, ...] = ()
    twins_now: tuple[Measured, ...] = ()


def sides(before: Sequence[Measured], now: Sequence[Measured]) -> dict[str, Sides]:
    """Return the runs by cell, in the order of the baseline's."""

    def chosen(runs: Sequence[Measured], cell: str, *, control: bool) -> tuple[Measured, ...]:
        return tuple(r for r in runs if r.cell == cell and r.control == control and r.record.status == "ok")

    return {
        cell: Sides(
            chosen(before, cell, control=False),
            chosen(now, cell, control=False),
            chosen(before, cell, control=True),
            chosen(now, cell, control=True),
        )
        for cell in dict.fromkeys(run.cell for run in before)
    }


def speeds(before: Sequence[Measured], now: Sequence[Measured]) -> dict[str, float]:
    """Return by which factor each task of the calibration took longer today, in the median over runs."""

    def median_s(runs: Sequence[Measured], task: str) -> float:
        return statistics.median(run.calibration.seconds(task) for run in runs)

    return {task: median_s(now, task) / median_s(before, task) for task in TASKS}


def judge(
    before: Sequence[Measured],
    now: Sequence[Measured],
    *,
    effect: float = EFFECT,
    tasks: Sequence[str] = TASKS,
    times_not_held: str | None = None,
    seed: int = 0,
) -> tuple[Finding, ...]:
    """Return what is to be said of every held metric of every cell that has runs on both sides.

    ``tasks`` are the calibrations whose unit is the same on both days; ``times_not_held`` is why times cannot be held.
    A time is called slower where Holm's p over all tested findings is below 0.05, the interval excludes 1 and the
    ratio exceeds both ``effect`` and the noise floor, under each calibration in question.
    """
    cells = {cell: both for cell, both in sides(before, now).items() if both.before and both.now}
    every = list(cells.values())
    found = [
        _finding(cell, both, held, every, tasks, times_not_held, seed) for cell, both in cells.items() for held in HELD
    ]
    tested = [number for number, finding in enumerate(found) if finding.p is not None]
    adjusted = holm([found[number].p or 0.0 for number in tested])
    for number, p_holm in zip(tested, adjusted, strict=True):
        found[number] = _with_verdict(replace(found[number], p_holm=p_holm), effect, len(tested))
    return tuple(found)


def _finding(
    cell: str,
    both: Sides,
    held: Held,
    all_sides: Sequence[Sides],
    tasks: Sequence[str],
    times_not_held: str | None,
    seed: int,
) -> Finding:
    values = _values(both.before, held), _values(both.now, held)
    medians = [statistics.median(v for _, v in side) if side else None for side in values]
    finding = Finding(cell, held.metric, (len(values[0]), len(values[1])), medians[0], medians[1], "not held")
    why_not = held.why_not(both.before[0].record) or held.why_not(both.now[0].record)
    if why_not is None and held.kind in TIMES:
        why_not = times_not_held
    if why_not is None and not all(values):
        why_not = "it is not known for these runs"
    if why_not is not None:
        return replace(finding, reason=why_not)
    if held.kind == "counter" and (exact := _exactly(finding, both, held)) is not None:
        return exact
    if held.kind == "amount" and len({v for side in values for _, v in side}) == 1:
        # Nothing to test, and so no part of what p-values are adjusted for.
        return replace(finding, verdict="equal")
    if min(v for side in values for _, v in side) <= 0:
        zero = max(v for side in values for _, v in side) <= 0
        return replace(finding, verdict="equal" if zero else "not held", reason=None if zero else "zero has no ratio")
    tasks = tasks if held.kind in TIMES else ()
    ways = {task: _per(task, fastest=held.kind == "fastest") for task in tasks}
    if not tasks or not (held.metric.key == "cpu_s" or _follows_processor(both)):
        ways[AS_MEASURED] = _as_measured
    candidates = _in_question(values, ways)
    ratios = {name: _ratio(values, of, seed) for name, of in candidates.items()}
    best = next(iter(ratios))
    least = min(ratios.values(), key=lambda ratio: abs(math.log(ratio.ratio)))
    signs = {ratio.ratio > 1 for ratio in ratios.values()}
    intervals = [ratio.interval for ratio in ratios.values()]
    floors = [_floor(all_sides, both, held, of) for of in candidates.values()]
    floor = max((one for one in floors if one is not None), default=None)
    reason = None
    if len(signs) > 1:
        reason = "the calibrations do not agree whether it is more or less"
    elif not all(_excludes_1(interval) for interval in intervals):
        reason = "its interval includes 1"
    elif held.metric.key == "wait_s" and abs(medians[1] - medians[0]) < STALL_SHARE * _epoch_s(both.before):  # type: ignore[operator]  # both are known
        reason = f"the change is below {STALL_SHARE:.0%} of an epoch"
    return replace(
        finding,
        ratio=ratios[best].ratio,
        interval=ratios[best].interval,
        least=least.ratio,
        p=max(ratio.p for ratio in ratios.values()),
        floor=floor,
        by=best if held.kind in TIMES else None,
        reason=reason,
    )


def _with_verdict(finding: Finding, effect: float, comparisons: int) -> Finding:
    ratio, p = finding.least or 1.0, finding.p_holm or 0.0
    size = max(ratio, 1 / ratio) - 1
    limit = MEMORY_EFFECT if finding.by is None else effect
    reason = finding.reason
    if p >= ALPHA:
        needed = unpaired.runs_needed(comparisons)
        few = min(finding.n) < needed
        reason = (
            f"{min(finding.n)} runs cannot show any change among {comparisons}, {needed} are needed" if few else None
        )
    elif reason is None and finding.floor is None:
        reason = "there is no control, so the noise of equal runs is unknown"
    elif reason is None and size <= (finding.floor or 0.0):
        reason = "it is within what equal runs differ by"
    elif reason is None and size <= limit:
        reason = f"it is below {limit:.0%}"
    if p >= ALPHA or reason is not None:
        return replace(finding, verdict="no change shown", reason=reason)
    words: tuple[Verdict, Verdict] = ("more", "less") if finding.by is None else ("slower", "faster")
    return replace(finding, verdict=words[0] if ratio > 1 else words[1])


def _exactly(finding: Finding, both: Sides, held: Held) -> Finding | None:
    """Hold a counter exactly; None where it differs between equal runs of one day, so that it cannot be."""
    day = [_values((*both.before, *both.twins_before), held), _values((*both.now, *both.twins_now), held)]
    before, now = ([value for _, value in side] for side in day)
    if max(before) - min(before) > held.slack or max(now) - min(now) > held.slack:
        return None
    exact = replace(finding, held_exactly=True)
    if min(now) > max(before) + held.slack:
        return replace(exact, verdict="more")
    return replace(exact, verdict="less" if max(now) < min(before) - held.slack else "equal")


Values = list[tuple[Measured, float]]


def _values(runs: Sequence[Measured], held: Held) -> Values:
    found = [(run, held.metric.of(run.record)) for run in runs]
    return [(run, summary.median) for run, summary in found if summary is not None and math.isfinite(summary.median)]


def _as_measured(run: Measured, value: float) -> float:  # noqa: ARG001  # one of several ways
    return value


def _per(task: str, *, fastest: bool) -> Transform:
    return lambda run, value: value / run.calibration.seconds(task, fastest=fastest)


def _follows_processor(both: Sides) -> bool:
    """Whether the runs of both days kept a processor busy, so that their time depends on its speed."""
    shares = [_busy(run.record) for run in (*both.before, *both.now)]
    known = [share for share in shares if share is not None]
    return len(known) == len(shares) and statistics.median(known) >= BUSY_SHARE


def _busy(record: RunRecord) -> float | None:
    cpu, epoch = METRICS["cpu_s"].of(record), METRICS["epoch_s"].of(record)
    return None if cpu is None or epoch is None else cpu.median / epoch.median


def _in_question(values: Sequence[Values], ways: Mapping[str, Transform]) -> dict[str, Transform]:
    """Return the ways to calibrate that are in question, the one that explains runs of one day best first."""
    spreads = {name: _spread(values, of) for name, of in ways.items()}
    ordered = sorted(ways, key=spreads.__getitem__)
    return {name: ways[name] for name in ordered if spreads[name] <= EXPLAINS_AS_WELL * spreads[ordered[0]]}


def _spread(values: Sequence[Values], of: Transform) -> float:
    """Return the median distance of runs from the median of their day, on the log scale."""
    distances: list[float] = []
    for side in values:
        logs = [math.log(of(run, value)) for run, value in side]
        middle = statistics.median(logs)
        distances += [abs(log - middle) for log in logs]
    return statistics.median(distances)


def _ratio(values: Sequence[Values], of: Transform, seed: int) -> Ratio:
    before, now = ([of(run, value) for run, value in side] for side in values)
    return unpaired.compare(before, now, seed)


def _floor(all_sides: Sequence[Sides], own: Sides, held: Held, of: Transform) -> float | None:
    """Return by how much equal runs differed: the control and its cell in medians, on the day when that was more.

    The cell's own control where it has one, else that of another cell of the series.
    """
    with_twins = [own] if own.twins_now or own.twins_before else [s for s in all_sides if s.twins_now or s.twins_before]
    found = []
    for both in with_twins:
        for runs, twins in ((both.before, both.twins_before), (both.now, both.twins_now)):
            one, other = ([of(r, v) for r, v in _values(side, held) if v > 0] for side in (runs, twins))
            if one and other:
                a, b = statistics.median(one), statistics.median(other)
                found.append(max(a, b) / min(a, b) - 1)
    return max(found, default=None)


def _epoch_s(runs: Sequence[Measured]) -> float:
    return statistics.median(epoch.epoch_s for run in runs for epoch in run.record.measured())


def _excludes_1(interval: Interval | None) -> bool:
    return interval is not None and not interval.low <= 1 <= interval.high
