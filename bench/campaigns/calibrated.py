"""Runs of a series, each between two calibrations of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from bench.campaigns.series import Series
from bench.comparisons.campaign import Slot
from bench.measure import calibration
from bench.measure.calibration import Calibration
from bench.regressions.baseline import Measured
from bench.runs.attempt import Attempt
from bench.runs.runner import Outcome
from bench.specs.spec import RunSpec


def run(
    series: Series,
    cells: Mapping[str, RunSpec],
    slots: Iterable[Slot],
    attempt: Attempt,
    begins: Callable[[Slot], None],
    measure: Callable[[], Calibration] = calibration.measure,
) -> Iterator[tuple[Slot, Measured, Outcome]]:
    """Do the runs of ``slots`` as :meth:`bench.campaigns.series.Series.run` does, and calibrate before and after each.

    Both are taken while nothing else of ours runs: before the measured process starts, and after it has ended.
    """
    before: list[Calibration] = []

    def begin(slot: Slot) -> None:
        begins(slot)
        before[:] = [measure()]

    for slot, outcome in series.run(cells, slots, attempt, begin):
        yield slot, Measured(outcome.record, calibration.between([*before, measure()])), outcome
