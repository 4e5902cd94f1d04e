"""What ``bench tune`` measures with: the normal runner, within a limit of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

from bench.campaigns.estimate import trained_s
from bench.campaigns.tuning import Configuration, Measured, OutOfTimeError, TuneError
from bench.records import results as folder
from bench.records.metrics import METRICS
from bench.records.record import RunRecord
from bench.runs import runner
from bench.runs.attempt import Attempt
from bench.runs.observer import RunProgress
from bench.runs.runner import Places
from bench.runs.time_limit import Limited
from bench.specs.spec import RunSpec
from bench.stores import cleaning, isolated

Cell = Callable[[Configuration, int], tuple[RunSpec, Attempt]]


class BuiltStores:
    """The stores that a tuning has built itself, and for which configurations; ``remove`` takes one away."""

    def __init__(self, remove: Callable[[Path], object]) -> None:
        self._remove = remove
        self._users: dict[Path, set[Configuration]] = {}

    def note(self, configuration: Configuration, store: Path, *, built: bool) -> None:
        """Remember who uses a store; one that was there before (not ``built``) is none of ours."""
        if built or store in self._users:
            self._users.setdefault(store, set()).add(configuration)

    def keep_only(self, kept: Collection[Configuration]) -> None:
        """Remove what none of these configurations uses."""
        for store in [store for store, users in self._users.items() if users.isdisjoint(kept)]:
            del self._users[store]
            self._remove(store)


class RunLaboratory:
    """Measures by the normal runner; each run leaves a record that names the tuning and the rung.

    ``cell`` says what to run for a configuration on so many samples.
    """

    def __init__(
        self,
        cell: Cell,
        where: Places,
        results: Path,
        identity: str,
        make_progress: Callable[[], RunProgress],
        *,
        keep_stores: bool,
    ) -> None:
        self._make_progress = make_progress
        self._cell, self._where, self._results = cell, where, results
        self._identity, self._keep_stores = identity, keep_stores
        self._stores = BuiltStores(lambda path: cleaning.remove(cleaning.Doomed(path, disk_bytes=0)))
        self.records: list[RunRecord] = []

    def measure(self, configuration: Configuration, samples: int, rung: int, limit_s: float) -> Measured:
        """See Laboratory.measure."""
        begun = time.monotonic()
        spec, attempt = self._cell(configuration, samples)
        if reason := spec.open_backend().unsupported_device(spec.device):
            raise TuneError(f"{spec.backend}: {reason}")
        where, watch = self._where, Limited(self._make_progress(), limit_s, _out_of_time)
        store = isolated.prepare(spec, where.data_dir, where.search, watch, repair=attempt.repair)
        self._stores.note(configuration, store.path, built=store.built)
        record = runner.run(spec, where, watch, attempt).record
        noted = {**record.environment, "tuning": {"id": self._identity, "rung": rung}}
        record = record.model_copy(update={"environment": noted})
        folder.write(record, self._results)
        if record.status == "interrupted":
            raise KeyboardInterrupt
        if record.error is not None:
            raise TuneError(record.error.message)
        self.records.append(record)
        known, epoch_s = store.manifest, METRICS["epoch_s"].over([record])
        if epoch_s is None:
            raise TuneError("the record of its run holds no epoch.")
        return Measured(
            # As many as were asked for: how many the whole data has is known only now, where files are left out.
            samples=samples,
            epoch_s=epoch_s.median,
            store_bytes=store.disk_bytes,
            peak_bytes=record.memory.peak_pss_bytes or 0,
            prepare_s=known.prepare_s,
            wall_s=time.monotonic() - begun,
            work_s=trained_s(record) + store.built_s,
            delivered=known.count,
        )

    def tidy(self, kept: Collection[Configuration]) -> None:
        """See Laboratory.tidy."""
        if not self._keep_stores:
            self._stores.keep_only(kept)


def _out_of_time(limit_s: float) -> OutOfTimeError:
    return OutOfTimeError(f"it was not done after {limit_s:.0f} s, where less was expected or left.")
