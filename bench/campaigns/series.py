"""Runs in the order of a plan, one after the other; each leaves a record, whatever became of it."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.comparisons.campaign import Slot
from bench.records import results as folder
from bench.records.record import CampaignInfo
from bench.runs import runner
from bench.runs.attempt import Attempt
from bench.runs.observer import RunProgress
from bench.runs.runner import Outcome, Places
from bench.specs.spec import RunSpec


def new_identity(name: str) -> str:
    """Return an id for a campaign: when it began, about what it is, and what tells it from others of that second."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{name}-{secrets.token_hex(2)}"


@dataclass(frozen=True, slots=True)
class Series:
    """A campaign under way: its id, the seed of its order, how many blocks there are, and where things lie."""

    identity: str
    seed: int
    blocks: int
    places: Places
    results: Path
    make_progress: Callable[[], RunProgress]

    def run(
        self,
        cells: Mapping[str, RunSpec],
        slots: Iterable[Slot],
        attempt: Attempt,
        begins: Callable[[Slot], None] = lambda _: None,
    ) -> Iterator[tuple[Slot, Outcome]]:
        """Do the runs of ``slots``, taken from them one by one, and yield each once its record is written.

        ``begins`` hears of each before it starts. Ends after a run that was interrupted. Raises ResultsError where a
        record cannot be written.
        """
        for slot in slots:
            begins(slot)
            info = CampaignInfo(
                id=self.identity,
                seed=self.seed,
                blocks=self.blocks,
                block=slot.block,
                position=slot.position,
                cell=slot.cell,
                control=slot.control,
            )
            with_place = dataclasses.replace(attempt, campaign=info)
            outcome = runner.run(cells[slot.cell], self.places, self.make_progress(), with_place)
            folder.write(outcome.record, self.results)
            yield slot, outcome
            if outcome.record.status == "interrupted":
                return


class Clock:
    """How long the rest of a number of runs will take, by those that are done."""

    def __init__(self, runs: int, now: Callable[[], float] = time.monotonic) -> None:
        self._runs, self._now, self._started, self._done = runs, now, now(), 0

    def tick(self) -> None:
        """Note that a run is done."""
        self._done += 1

    def left(self) -> str:
        """Return the time left in words, nothing before the first run is done."""
        if not self._done or self._done >= self._runs:
            return ""
        left_s = (self._now() - self._started) / self._done * (self._runs - self._done)
        return f", about {left_s / 60:.0f} min left" if left_s > 90 else f", about {left_s:.0f} s left"
