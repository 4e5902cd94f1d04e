"""By what a time of one day is held against one of another day: the machine's own speed, or what else was measured.

Copying memory, decoding or plain computing: which of them a time follows is not known for certain, so a calibration is
in question as long as it explains the runs of one day about as well as the best yardstick does; a change between the
days leaves that as it is. "As measured" is in question with them unless the runs kept a processor busy: what sleeps or
waits for a device does not follow it.

A calibration explains nothing where its task feels something that the runs do not: a copy or a plain loop slows down
beside a neighbour on the same core, and hashing in hardware does not. There the other cells of the series tell, which
ran in the same blocks in the same way: where they took as long as then, the machine was as fast for such work, and
what was measured may be held as it is, and beside them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.records.metrics import METRICS
from bench.records.record import RunRecord
from bench.regressions.baseline import Measured
from bench.regressions.held import Held

EXPLAINS_AS_WELL = 1.5
"""A calibration stays in question while runs of one day spread at most this many times as much as under the best."""

EXPLAINS_NOTHING = 2.0
"""Beside other cells, a calibration is out of question only where runs spread more than so many times as much."""

BUSY_SHARE = 0.9
"""Runs that use so much CPU time per second follow the processor's speed; others may as well not."""

AS_MEASURED = "as measured"
OTHERS = "the other cells"

Values = list[tuple[Measured, float]]
Line = Mapping[str, "Yardstick"]
"""Yardsticks in question together, by name, the one to be shown first."""


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


def values_of(runs: Sequence[Measured], held: Held) -> Values:
    """Return a metric of those runs that have it."""
    found = [(run, held.metric.of(run.record)) for run in runs]
    return [(run, summary.median) for run, summary in found if summary is not None and math.isfinite(summary.median)]


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What one unit is for each run; None for a run of which that is not known."""

    unit: Callable[[Measured], float | None]

    def of(self, values: Values) -> list[float]:
        """Return values in these units, without those of runs whose unit is not known."""
        found = [(value, self.unit(run)) for run, value in values]
        return [value / unit for value, unit in found if unit is not None]


PLAIN: Line = {AS_MEASURED: Yardstick(lambda run: 1.0)}  # noqa: ARG005  # the same for every run


def lines(
    both: Sides,
    held: Held,
    all_sides: Sequence[Sides],
    values: tuple[Values, Values],
    tasks: Sequence[str],
    effect: float,
) -> list[Line]:
    """Return the lines of evidence for a time of one cell: by calibrations, and beside other cells that held still.

    ``tasks`` are the calibrations whose unit is the same on both days; other cells hold still that changed by no more
    than ``effect``, a share.
    """
    calibrations = {task: _per(task, fastest=held.kind == "fastest") for task in tasks}
    may_wait = not (held.metric.key == "cpu_s" or _follows_processor(both))
    alone = {**calibrations, **(PLAIN if may_wait or not tasks else {})}
    found = [_in_question(values, alone, EXPLAINS_AS_WELL)]
    units = _taken_by_others(all_sides, held)
    others = Yardstick(lambda run: units.get(id(run)))
    levels = [[units[id(run)] for run, _ in side if id(run) in units] for side in values]
    if all(levels) and abs(math.log(statistics.median(levels[1]) / statistics.median(levels[0]))) <= math.log1p(effect):
        beside = {**PLAIN, OTHERS: others}
        found.append({**beside, **_in_question(values, {**calibrations, **beside}, EXPLAINS_NOTHING)})
    return found


def _taken_by_others(all_sides: Sequence[Sides], held: Held) -> dict[int, float]:
    """Return what the other cells took in the block of each run, as a geometric mean, by the run's identity.

    Runs in whose block one of them is missing are left out: the mean would be one of other cells.
    """
    found: dict[int, float] = {}
    for day in (_before, _now):
        logs: dict[int, dict[str, float]] = {}
        for side in all_sides:
            for run, value in values_of(day(side)[0], held):
                if value > 0:
                    logs.setdefault(run.block, {})[run.cell] = math.log(value)
        for run in (run for side in all_sides for runs in day(side) for run in runs):
            others = [log for cell, log in logs.get(run.block, {}).items() if cell != run.cell]
            if others and len(others) == len(all_sides) - 1:
                found[id(run)] = math.exp(statistics.fmean(others))
    return found


def _before(side: Sides) -> tuple[tuple[Measured, ...], tuple[Measured, ...]]:
    return side.before, side.twins_before


def _now(side: Sides) -> tuple[tuple[Measured, ...], tuple[Measured, ...]]:
    return side.now, side.twins_now


def _per(task: str, *, fastest: bool) -> Yardstick:
    return Yardstick(lambda run: run.calibration.seconds(task, fastest=fastest))


def _follows_processor(both: Sides) -> bool:
    """Whether the runs of both days kept a processor busy, so that their time depends on its speed."""
    shares = [_busy(run.record) for run in (*both.before, *both.now)]
    known = [share for share in shares if share is not None]
    return len(known) == len(shares) and statistics.median(known) >= BUSY_SHARE


def _busy(record: RunRecord) -> float | None:
    cpu, epoch = METRICS["cpu_s"].of(record), METRICS["epoch_s"].of(record)
    return None if cpu is None or epoch is None else cpu.median / epoch.median


def _in_question(values: tuple[Values, Values], line: Line, most: float) -> Line:
    """Return the yardsticks with up to ``most`` times the spread of the one with the least, which comes first."""
    spreads = {name: _spread(values, by) for name, by in line.items()}
    ordered = sorted(line, key=spreads.__getitem__)
    return {name: line[name] for name in ordered if spreads[name] <= most * spreads[ordered[0]]}


def _spread(values: tuple[Values, Values], by: Yardstick) -> float:
    """Return the median distance of runs from the median of their day, on the log scale."""
    distances: list[float] = []
    for side in values:
        logs = [math.log(value) for value in by.of(side)]
        middle = statistics.median(logs)
        distances += [abs(log - middle) for log in logs]
    return statistics.median(distances)
