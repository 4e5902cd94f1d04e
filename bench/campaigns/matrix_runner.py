"""A matrix under way: which campaign it goes on with, its stores, its limits, and one run after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bench.campaigns.matrix import Matrix, MatrixError, Progressed
from bench.campaigns.series import Series
from bench.comparisons.campaign import Slot
from bench.records.record import RunRecord
from bench.runs.attempt import Attempt
from bench.runs.runner import Outcome
from bench.stores import cleaning, isolated


def identity(matrix: Matrix, records: Sequence[RunRecord], *, anew: bool) -> str:
    """Return the id of the campaign to go on with: the last one of this matrix, or, ``anew``, the next."""
    known = {record.campaign.id for record in records if record.campaign is not None}
    number = 1
    while _numbered(matrix, number + 1) in known:
        number += 1
    if anew and _numbered(matrix, number) in known:
        number += 1
    return _numbered(matrix, number)


def _numbered(matrix: Matrix, number: int) -> str:
    return matrix.identity if number == 1 else f"{matrix.identity}.{number}"


def of_campaign(records: Sequence[RunRecord], name: str) -> list[RunRecord]:
    """Return the records of a campaign."""
    return [record for record in records if record.campaign is not None and record.campaign.id == name]


@contextmanager
def alone(results: Path, name: str) -> Iterator[None]:
    """Keep others from running the same matrix into the same folder. Raises MatrixError where one does."""
    results.mkdir(parents=True, exist_ok=True)
    path = results / f".{name}.lock"
    try:
        with FileLock(path).acquire(timeout=0):
            yield
            path.unlink(missing_ok=True)
    except Timeout:
        raise MatrixError(f"{name} is being run into {results} already. Wait for it, or choose --anew.") from None


class Run:
    """The rest of a matrix.

    Args:
        matrix: What is to be run.
        series: Where its records go.
        progressed: What is done already; kept up to date.
        attempt: How each run is watched.
        keep_stores: Whether stores stay when no run needs them any more.
    """

    def __init__(
        self,
        matrix: Matrix,
        series: Series,
        progressed: Progressed,
        attempt: Attempt,
        *,
        keep_stores: bool,
    ) -> None:
        self._matrix, self._series, self._progressed, self._attempt = matrix, series, progressed, attempt
        self._keep_stores = keep_stores
        self._slots = matrix.slots()
        self._stores: dict[str, frozenset[Path]] = {}

    def left(self) -> int:
        """Return how many runs are left."""
        return sum(1 for _ in self._progressed.remaining(self._slots))

    def unlike(self) -> str:
        """Return in what conditions the runs so far differ, in words; nothing where they are alike."""
        return ", ".join(map(str, self._progressed.unlike))

    def go(self) -> Iterator[tuple[Slot, Outcome]]:
        """Do one run after the other; see :meth:`bench.campaigns.series.Series.run`."""
        slots = self._progressed.remaining(self._slots)
        for slot, outcome in self._series.run(self._matrix.cells, slots, self._attempt):
            self._progressed.note(outcome.record)
            if not self._keep_stores:
                if outcome.record.store is not None:
                    self._find_store(slot.cell)
                self._remove_stores()
            yield slot, outcome

    def _find_store(self, cell: str) -> None:
        if cell in self._stores:
            return
        places = self._series.places
        # It is there, so this builds nothing.
        progress, spec = self._series.make_progress(), self._matrix.cells[cell]
        self._stores[cell] = frozenset(
            isolated.prepare(one, places.data_dir, places.search, progress).path
            for one in (spec, *spec.evaluated_stores().values())
        )

    def _remove_stores(self) -> None:
        waiting = {slot.cell for slot in self._progressed.remaining(self._slots)}
        kinds = {self._kind(cell) for cell in waiting - self._stores.keys()}
        # Which store a cell reads that has not run yet is not known: it could be any of its kind.
        kept = {cell: paths for cell, paths in self._stores.items() if cell in waiting or self._kind(cell) in kinds}
        for path in set().union(*self._stores.values()) - set().union(*kept.values()):
            cleaning.remove(cleaning.Doomed(path, disk_bytes=0))
        self._stores = kept

    def _kind(self, cell: str) -> tuple[str, str]:
        spec = self._matrix.cells[cell]
        return spec.dataset, spec.backend
