"""What differs between a baseline and today beside the code, and what follows from it. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.contracts.errors import BenchError
from bench.measure.calibration import TASKS
from bench.records.comparability import Difference, differences
from bench.records.surroundings import MACHINE
from bench.regressions.baseline import Baseline, Measured
from bench.regressions.regression import SPEED_LIMIT, speeds

_TOLD = frozenset({"python", "libraries", "bench", "kernel", "freed memory kept"})

_MACHINE = (MACHINE | {"cache achieved"}) - _TOLD
"""Where one of these differs, times differ for reasons that no calibration tells."""


class ChangedWorkError(BenchError):
    """A baseline of other data or other work than what would be compared with it."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """``versions`` are differences that one may want to compare, ``machine`` those that keep times from being held.

    ``speeds`` say by which factor each task of the calibration took longer today; ``tasks`` are those with equal units.
    """

    versions: tuple[Difference, ...]
    machine: tuple[Difference, ...]
    speeds: Mapping[str, float]
    tasks: tuple[str, ...]

    @property
    def times_not_held(self) -> str | None:
        """Why times cannot be held; None where they can."""
        if self.machine:
            return f"the machine or its state is another one: {', '.join(map(str, self.machine))}"
        if not self.tasks:
            return "what the calibrations use has changed its version, all of it"
        far = {task: self.speeds[task] for task in self.tasks if abs(math.log(self.speeds[task])) > _LIMIT}
        if far:
            found = ", ".join(f"{task} {factor:.2f} times" for task, factor in far.items())
            return (
                f"the machine is another one or was busy: its calibration took {found} as long as on the baseline's day"
            )
        return None


_LIMIT = math.log(SPEED_LIMIT)


def require_same_data(baseline: Baseline, cell: str, digest: str) -> None:
    """Raise ChangedWorkError where a cell of a baseline read other samples than those of ``digest``."""
    before = {run.record.data.digest for run in baseline.runs if run.cell == cell and run.record.data is not None}
    if before - {digest}:
        raise ChangedWorkError(
            f"{baseline.name} is no baseline for this: the samples of {cell} are not what they were. Bring the data "
            "back, or save a new one with `bench regress --save`."
        )


def circumstances(baseline: Baseline, now: Sequence[Measured], units: Mapping[str, str]) -> Circumstances:
    """Return what differs, cell by cell. Raises ChangedWorkError where data or work is another."""
    found: dict[str, Difference] = {}
    for cell in baseline.cells:
        # All of them: what changed in the middle of a day is in its medians, too.
        known = [r.record for r in (*baseline.runs, *now) if r.cell == cell and r.record.status == "ok"]
        found |= {difference.name: difference for difference in differences(known, own=())}
    versions = [d for name, d in found.items() if name in _TOLD or name.startswith("version of ")]
    machine = [d for name, d in found.items() if name in _MACHINE]
    others = [d for d in found.values() if d not in versions and d not in machine]
    if others:
        raise ChangedWorkError(
            f"{baseline.name} is no baseline for this: data or work differ in {', '.join(map(str, others))}. "
            "Save a new one with `bench regress --save`."
        )
    tasks = tuple(task for task in TASKS if baseline.units.get(task) == units.get(task))
    return Circumstances(tuple(versions), tuple(machine), speeds(baseline.runs, now), tasks)
