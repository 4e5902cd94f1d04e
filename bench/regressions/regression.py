"""Whether what was measured today is worse than a saved baseline. Pure functions: runs of both days become findings.

Runs of two days were never in one block, so nothing is paired. A day's speed of the machine is known from the
calibrations around its runs, and which of them a time follows is not known for certain: a time may be slower only if it
is by every yardstick in question (:mod:`bench.regressions.yardsticks`; an intersection-union test, Berger 1982, whose p
is the largest of its parts and needs no adjustment among them). Where the other cells of the series took as long as
then, they are a second line of evidence, and p is that of the line that shows more, times two (Bonferroni).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.comparisons import unpaired
from bench.comparisons.comparison import ALPHA
from bench.comparisons.unpaired import Ratio
from bench.measure.calibration import TASKS
from bench.records.metrics import Metric
from bench.regressions import yardsticks
from bench.regressions.baseline import Measured
from bench.regressions.held import HELD, MEMORY_EFFECT, TIMES, Held
from bench.regressions.yardsticks import Sides, Values, Yardstick, sides, values_of
from bench.stats import Interval, holm

EFFECT = 0.05
"""The least slow-down that counts, unless another is asked for."""

STALL_SHARE = 0.01
"""Waiting counts as longer only where that is at least so much of an epoch."""

SPEED_LIMIT = 1.5
"""Where the calibrations of two days differ by more, the machine is another or was busy: times are not held."""

Verdict = Literal["slower", "faster", "more", "less", "equal", "no change shown", "not held"]
WORSE: tuple[Verdict, ...] = ("slower", "more")


@dataclass(frozen=True, slots=True)
class Finding:
    """One metric of one cell: medians of both days in the metric's unit, and what follows.

    ``ratio`` is today's over the baseline's, for times by the yardstick ``by`` which explains them best, None where one
    day has nothing but zero; ``interval`` is that of the ratio. ``p`` is the largest over all yardsticks in question,
    times ``lines``, how many lines of evidence there were. ``floor`` is by how much equal runs of either day may
    differ, as a share. ``reason`` says what speaks against a change, whatever p is.
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
    p: float | None = None
    lines: int = 1
    p_holm: float | None = None
    floor: float | None = None
    by: str | None = None
    held_exactly: bool = False

    @property
    def worse(self) -> bool:
        """Whether it is a regression."""
        return self.verdict in WORSE


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
    ratio exceeds both ``effect`` and the noise floor, by each yardstick of one line of evidence.
    """
    cells = {cell: both for cell, both in sides(before, now).items() if both.before and both.now}
    every = list(cells.values())
    found = [
        _finding(cell, both, held, every, tasks, times_not_held, effect, seed)
        for cell, both in cells.items()
        for held in HELD
    ]
    tested = [number for number, finding in enumerate(found) if finding.p is not None]
    adjusted = holm([found[number].p or 0.0 for number in tested])
    for number, p_holm in zip(tested, adjusted, strict=True):
        found[number] = _with_verdict(replace(found[number], p_holm=p_holm), len(tested))
    return tuple(found)


def _finding(
    cell: str,
    both: Sides,
    held: Held,
    all_sides: Sequence[Sides],
    tasks: Sequence[str],
    times_not_held: str | None,
    effect: float,
    seed: int,
) -> Finding:
    values = values_of(both.before, held), values_of(both.now, held)
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
    if held.kind not in TIMES and _parted_by_zero(both, held):
        # Nothing to form a ratio of, and the ranks need none.
        return replace(finding, p=unpaired.rank_p(*([v for _, v in side] for side in values)))
    if min(v for side in values for _, v in side) <= 0:
        zero = max(v for side in values for _, v in side) <= 0
        return replace(finding, verdict="equal" if zero else "not held", reason=None if zero else "zero has no ratio")
    limit = MEMORY_EFFECT
    lines = [yardsticks.PLAIN]
    if held.kind in TIMES:
        limit, lines = effect, yardsticks.lines(both, held, all_sides, values, tasks, effect)
    found = [_evidence(both, held, all_sides, values, line, limit, seed) for line in lines]
    best = min(found, key=lambda evidence: (evidence.reason is not None, evidence.p))
    return replace(
        finding,
        ratio=best.ratio.ratio,
        interval=best.ratio.interval,
        p=min(1.0, len(found) * best.p),
        lines=len(found),
        floor=best.floor,
        by=best.by if held.kind in TIMES else None,
        reason=best.reason,
    )


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What one line of evidence shows; ``ratio`` is by the yardstick ``by`` that explains runs of one day best."""

    by: str
    ratio: Ratio
    p: float
    floor: float | None
    reason: str | None


def _evidence(
    both: Sides,
    held: Held,
    all_sides: Sequence[Sides],
    values: tuple[Values, Values],
    line: Mapping[str, Yardstick],
    limit: float,
    seed: int,
) -> _Evidence:
    ratios = {name: _ratio(values, by, seed) for name, by in line.items()}
    least = min(ratios.values(), key=lambda ratio: abs(math.log(ratio.ratio)))
    size = max(least.ratio, 1 / least.ratio) - 1
    floors = [_floor(all_sides, both, held, by) for by in line.values()]
    floor = max((one for one in floors if one is not None), default=None)
    medians = [statistics.median(v for _, v in side) for side in values]
    reason = None
    if len({ratio.ratio > 1 for ratio in ratios.values()}) > 1:
        reason = "the calibrations do not agree whether it is more or less"
    elif not all(_excludes_1(ratio.interval) for ratio in ratios.values()):
        reason = "its interval includes 1"
    elif held.metric.key == "wait_s" and abs(medians[1] - medians[0]) < STALL_SHARE * _epoch_s(both.before):
        reason = f"the change is below {STALL_SHARE:.0%} of an epoch"
    elif floor is None:
        reason = "there is no control, so the noise of equal runs is unknown"
    elif size <= floor:
        reason = "it is within what equal runs differ by"
    elif size <= limit:
        reason = f"it is below {limit:.0%}"
    best = next(iter(ratios))
    return _Evidence(best, ratios[best], max(ratio.p for ratio in ratios.values()), floor, reason)


def _with_verdict(finding: Finding, comparisons: int) -> Finding:
    reason = finding.reason
    if (finding.p_holm or 0.0) >= ALPHA:
        needed = unpaired.runs_needed(comparisons * finding.lines)
        few = min(finding.n) < needed
        reason = (
            f"{min(finding.n)} runs cannot show any change among {comparisons}, {needed} are needed" if few else None
        )
    elif reason is None:
        words: tuple[Verdict, Verdict] = ("more", "less") if finding.by is None else ("slower", "faster")
        rises = finding.ratio > 1 if finding.ratio is not None else (finding.now or 0.0) > (finding.before or 0.0)
        return replace(finding, verdict=words[0] if rises else words[1])
    return replace(finding, verdict="no change shown", reason=reason)


def _exactly(finding: Finding, both: Sides, held: Held) -> Finding | None:
    """Hold a counter exactly; None where it differs between equal runs of one day, so that it cannot be."""
    before, now = _with_twins(both, held)
    if min(len(before), len(now)) < 2:
        return replace(finding, reason="one run cannot show that equal runs agree (use more --blocks)")
    if max(before) - min(before) > held.slack or max(now) - min(now) > held.slack:
        return None
    exact = replace(finding, held_exactly=True)
    if min(now) > max(before) + held.slack:
        return replace(exact, verdict="more")
    return replace(exact, verdict="less" if max(now) < min(before) - held.slack else "equal")


def _parted_by_zero(both: Sides, held: Held) -> bool:
    """Whether all runs of one day have zero and all of the other one more than the slack."""
    low, high = sorted(_with_twins(both, held), key=max)
    return max(low) <= 0 and min(high) > held.slack


def _with_twins(both: Sides, held: Held) -> tuple[list[float], list[float]]:
    """Return the values of each day, those of the control among them."""
    days = (*both.before, *both.twins_before), (*both.now, *both.twins_now)
    before, now = ([value for _, value in values_of(day, held)] for day in days)
    return before, now


def _ratio(values: tuple[Values, Values], by: Yardstick, seed: int) -> Ratio:
    before, now = by.of(values[0]), by.of(values[1])
    return unpaired.compare(before, now, seed)


def _floor(all_sides: Sequence[Sides], own: Sides, held: Held, by: Yardstick) -> float | None:
    """Return by how much equal runs differed: the control and its cell in medians, on the day when that was more.

    The cell's own control where it has one, else that of another cell of the series.
    """
    with_twins = [own] if own.twins_now or own.twins_before else [s for s in all_sides if s.twins_now or s.twins_before]
    found = []
    for both in with_twins:
        for runs, twins in ((both.before, both.twins_before), (both.now, both.twins_now)):
            one, other = (by.of([(r, v) for r, v in values_of(side, held) if v > 0]) for side in (runs, twins))
            if one and other:
                a, b = statistics.median(one), statistics.median(other)
                found.append(max(a, b) / min(a, b) - 1)
    return max(found, default=None)


def _epoch_s(runs: Sequence[Measured]) -> float:
    return statistics.median(epoch.epoch_s for run in runs for epoch in run.record.measured())


def _excludes_1(interval: Interval | None) -> bool:
    return interval is not None and not interval.low <= 1 <= interval.high
