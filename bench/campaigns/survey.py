"""A short measurement for advice, within a budget: pilots of all ways on few samples, then blocks of the best ones.

Every run leaves a record; stores that were built for it are removed again, unless they are to be kept.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.campaigns.estimate import trained_s
from bench.campaigns.series import Series
from bench.campaigns.shortlist import Pilot, Plan, plan
from bench.comparisons import campaign
from bench.comparisons.advice import PILOT
from bench.comparisons.campaign import Slot
from bench.contracts.errors import BenchError
from bench.records.metrics import METRICS
from bench.records.record import RunRecord
from bench.runs.attempt import Attempt
from bench.runs.time_limit import Limited
from bench.specs.spec import RunSpec
from bench.stats import blocks_needed
from bench.stores import cleaning, isolated
from bench.stores.store import Store

PILOT_BATCHES = 4
"""So many batches are what a pilot gets: enough to see what is far slower."""

_PILOT_SHARE = 0.4
"""Of the budget, at most so much goes into pilots, where two of them are done."""

_GRACE = 1.15
"""By how much a run that has begun may exceed the budget before it is ended."""

_TOO_SHORT = "--budget is too short here"
_LONGER = "Give a longer one, fewer --backend, or a --limit."


class SurveyError(BenchError):
    """A measurement for advice that cannot be made."""


class OutOfTimeError(SurveyError):
    """A step that was ended because the budget was spent."""


@dataclass(slots=True)
class Surveyed:
    """What was measured: the records of the blocks, and what became of the rest.

    ``dropped`` says why ways were left out, ``samples`` are those of the blocks, of ``total``.
    """

    identity: str
    total: int
    samples: int = 0
    blocks: int = 0
    enough: bool = False
    records: list[RunRecord] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    elapsed_s: float = 0.0
    interrupted: bool = False


class Survey:
    """One measurement.

    Args:
        cells: The ways by name, with all samples that the user wants.
        total: How many samples these are.
        series: Where records go: the id of the campaign, the seed of its order, places, progress.
        attempt: How each run is watched.
        budget_s: What all of it may take.
        criterion: The metric that the aim asks for first; where it is the epoch, what is far slower is dropped.
        keep_stores: Whether stores that were built here stay.
        say: Hears a line for each event.
    """

    def __init__(
        self,
        cells: Mapping[str, RunSpec],
        total: int,
        series: Series,
        attempt: Attempt,
        *,
        budget_s: float,
        criterion: str,
        keep_stores: bool,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cells, self._series, self._criterion = cells, series, criterion
        self._total = total
        self._attempt = replace(attempt, errors_are_results=True)
        self._keep_stores, self._say, self._clock = keep_stores, say, clock
        self._begun, self._budget_s = clock(), budget_s
        self._built: set[Path] = set()
        self._found = Surveyed(series.identity, self._total)

    def run(self) -> Surveyed:
        """Measure until the budget is spent or the runs are interrupted. Raises BenchError where nothing can be."""
        try:
            pilots = self._pilots()
            if not self._found.interrupted:
                self._main(pilots)
            if not self._found.blocks and not self._found.interrupted:
                raise SurveyError(f"{_TOO_SHORT}: not one block of runs was done in time. {_LONGER}")
        finally:
            self._remove_stores()
        self._found.elapsed_s = self._clock() - self._begun
        return self._found

    def _left_s(self, grace: float = 1.0) -> float:
        return self._begun + grace * self._budget_s - self._clock()

    def _pilots(self) -> list[Pilot]:
        batch = next(iter(self._cells.values())).batch_size
        samples = min(self._total, PILOT_BATCHES * batch)
        series = replace(self._series, identity=f"{self._series.identity}{PILOT}", blocks=1)
        pilots: list[Pilot] = []
        for position, name in enumerate(self._cells):
            if len(pilots) > 1 and self._left_s() < (1 - _PILOT_SHARE) * self._budget_s:
                self._drop(name, "not tried, as the time for pilots was over")
                continue
            try:
                pilot = self._pilot(series, Slot(0, position, name, control=False), samples)
            except BenchError as error:
                self._drop(name, str(error))
                continue
            if pilot is None:
                return pilots
            pilots.append(pilot)
            self._say(f"Pilot on {samples:,} samples: {name}: {pilot.epoch_s:.3g} s an epoch")
        if not pilots:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self._found.dropped.items())
            raise SurveyError(f"No way of storing gave a result. {reasons}")
        if samples != self._total:
            # Nothing but the pilots uses them.
            self._remove_stores()
        return pilots

    def _pilot(self, series: Series, slot: Slot, samples: int) -> Pilot | None:
        """Build and run once; None when interrupted. Raises BenchError where that fails or takes too long."""
        spec = self._limited(slot.cell, samples)
        begun = self._clock()
        store = self._build(spec, self._left_s())
        built = self._clock()
        record = self._one(series, spec, slot, self._left_s())
        ended = self._clock()
        if record.status == "interrupted":
            self._found.interrupted = True
            return None
        if record.error is not None:
            raise SurveyError(record.error.message)
        epoch, value = METRICS["epoch_s"].of(record), METRICS[self._criterion].of(record)
        if epoch is None:
            raise SurveyError("its run held no epoch.")
        return Pilot(
            slot.cell,
            store.manifest.count,
            epoch.median,
            value.median if value is not None else epoch.median,
            ended - built,
            trained_s(record),
            built - begun,
            store.built_s,
        )

    def _main(self, pilots: list[Pilot]) -> None:
        found = self._found
        by_speed = self._criterion == "epoch_s"
        planned = plan(pilots, self._total, self._left_s(), by_speed=by_speed)
        for name, reason in planned.dropped.items():
            self._drop(name, reason)
        found.samples = planned.samples
        specs = self._built_specs(planned)
        if len(specs) < 2:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in found.dropped.items())
            raise SurveyError(f"There is nothing to choose from, as fewer than two ways gave a result. {reasons}")
        expected = {pilot.name: pilot.run_s(planned.samples) for pilot in pilots}
        names = list(specs)
        block_s = sum(expected[name] for name in [*names, names[0]])
        blocks = max(1, int(self._left_s() / block_s))
        found.enough = blocks >= blocks_needed(len(names) - 1)
        self._say(
            f"{blocks} {'block' if blocks == 1 else 'blocks'} of {len(names)} ways on {planned.samples:,} of "
            f"{self._total:,} samples fit into the time that is left."
        )
        self._blocks(specs, blocks, block_s)
        found.enough = found.blocks >= blocks_needed(len(names) - 1)

    def _built_specs(self, planned: Plan) -> dict[str, RunSpec]:
        specs = {}
        for name in planned.names:
            spec = self._limited(name, planned.samples)
            try:
                self._build(spec, self._left_s())
            except OutOfTimeError as error:
                built = f"the stores of {planned.samples:,} samples were not built in time"
                raise SurveyError(f"{_TOO_SHORT}: {built}. {_LONGER}") from error
            except BenchError as error:
                self._drop(name, str(error))
            else:
                specs[name] = spec
        return specs

    def _blocks(self, specs: Mapping[str, RunSpec], blocks: int, block_s: float) -> None:
        """Do block after block, those that were planned and more of them, as long as another one is expected to fit."""
        took_s: list[float] = []
        number = 0
        while number == 0 or self._left_s() >= (statistics.fmean(took_s) if took_s else block_s):
            series = replace(self._series, blocks=max(blocks, number + 1))
            slots = campaign.plan(list(specs), number + 1, series.seed)
            begun = self._clock()
            for slot in (slot for slot in slots if slot.block == number):
                if self._left_s(_GRACE) <= 0:
                    return
                record = self._one(series, specs[slot.cell], slot, self._left_s(_GRACE))
                self._found.records.append(record)
                if record.status == "interrupted":
                    self._found.interrupted = True
                    return
                if record.error is not None:
                    self._say(f"{slot.name}: {record.error.message}")
            took_s.append(self._clock() - begun)
            number += 1
            self._found.blocks = number
            self._say(f"Block {number} done, {max(0.0, self._left_s()):.0f} s left")

    def _one(self, series: Series, spec: RunSpec, slot: Slot, limit_s: float) -> RunRecord:
        timed = replace(series, make_progress=lambda: Limited(series.make_progress(), limit_s, _out_of_time))
        ((_, outcome),) = timed.run({slot.cell: spec}, [slot], self._attempt, lambda _: None)
        return outcome.record

    def _build(self, spec: RunSpec, limit_s: float) -> Store:
        if reason := spec.open_backend().unsupported_device(spec.device):
            raise SurveyError(reason)
        places = self._series.places
        progress = Limited(self._series.make_progress(), limit_s, _out_of_time)
        store = isolated.prepare(spec, places.data_dir, places.search, progress, repair=self._attempt.repair)
        if store.built:
            self._built.add(store.path)
        return store

    def _limited(self, name: str, samples: int) -> RunSpec:
        spec = self._cells[name]
        return spec if samples == self._total else RunSpec.model_validate({**spec.model_dump(), "limit": samples})

    def _drop(self, name: str, reason: str) -> None:
        self._found.dropped[name] = reason.rstrip(".")
        self._say(f"Left out: {name}: {reason}")

    def _remove_stores(self) -> None:
        if not self._keep_stores:
            for path in self._built:
                cleaning.remove(cleaning.Doomed(path, disk_bytes=0))
            self._built.clear()


def _out_of_time(limit_s: float) -> OutOfTimeError:
    return OutOfTimeError(f"It was not done after {limit_s:.0f} s, and more was not left of --budget.")
