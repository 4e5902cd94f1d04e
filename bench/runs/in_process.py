"""A store that is read in the process that asks, for benchmarks within somebody's test suite.

Quicker than a run of its own process, and with less to say: other things that the process did count towards its
memory and its caches. What is delivered is proved all the same.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PrivateAttr

from bench import loading, registry
from bench.contracts.backend import Backend
from bench.contracts.errors import BenchError
from bench.contracts.reader import BatchReader
from bench.loading import order
from bench.measure import calibration, environment, memory, probes
from bench.measure.calibration import Calibration
from bench.specs.spec import NO_MODEL, RunSpec, SpecError, make_spec, validated_options
from bench.stores import digest, prepare
from bench.stores.store import Store

CHECKED_BYTES = 2**30
"""How much of an epoch is compared: all of most sets, in less time than the epochs take that are timed."""

SYNTHETIC = "synthetic"
"""Stands for the smallest photos, imitated: nothing is looked for or downloaded."""

_IMITATED = "cifar10"

_STORED = ("dataset", "dataset_options", "backend", "options")

WORK = (
    *("source", "split", "limit", "batch_size", "shuffle", "block_samples", "buffer_blocks", "seed"),
    *("workers", "worker_kind", "start_method", "prefetch"),
)
"""Fields of a run that change what is stored or how it is loaded, so that they count here; no other one does."""


class DeliveredWrongError(BenchError):
    """Samples that are not what the store holds."""


class _Quiet:
    """Progress that nobody watches."""

    def note(self, text: str) -> None:
        pass

    def start(self, label: str, total: int | None, unit: str) -> None:
        pass

    def advance(self, count: int) -> None:
        pass

    def finish(self) -> None:
        pass


class _OwnClassSpec(RunSpec):
    """A spec whose backend is a class at hand, not one that is registered."""

    _cls: type[Backend[Any]] = PrivateAttr()

    def open_backend(self) -> Backend[Any]:
        return self._cls(self._cls.options_type.model_validate(self.options))


def spec_of(
    backend: str | type[Backend[Any]],
    options: Mapping[str, Any],
    dataset: str,
    *,
    dataset_options: Mapping[str, Any] | None = None,
    **work: Any,
) -> RunSpec:
    """Return what is to be measured: loading alone, of a registered backend or of a class.

    ``dataset`` is ``synthetic``, ``NAME`` or ``NAME:PATH``; ``work`` are fields of a RunSpec, of those in ``WORK``.
    Raises SpecError.
    """
    for name in work:
        if name not in WORK:
            raise SpecError(
                f"{name} has no effect here: samples are loaded in this process, and nothing else is done. Leave it "
                f"out or use `bench run`. What has: {', '.join(WORK)}."
            )
    if dataset == SYNTHETIC:
        dataset, work = _IMITATED, {"source": SYNTHETIC, **work}
    fields = {"dataset": dataset, "model": NO_MODEL, **work}
    cls = registry.backend_class(backend) if isinstance(backend, str) else backend
    if not getattr(cls, "name", None) or not hasattr(cls, "options_type"):
        raise SpecError(f"{cls.__name__} is no backend: it needs a name and an options_type.")
    # Through the checks of flags with a backend that is always there: options are values here, and texts there.
    checked = make_spec(RunSpec, [], dataset_options=dataset_options, backend="memmap", **fields)
    checked.require_use()
    chosen = validated_options(cls, options).model_dump(mode="json")
    complete = {**checked.model_dump(), "backend": cls.name, "options": chosen}
    if isinstance(backend, str):
        return RunSpec(**complete)
    spec = _OwnClassSpec(**complete)
    spec._cls = cls
    return spec


class Prepared:
    """A verified store of a spec below ``folder``, and what can be done with it.

    Raw data is looked for there, and then in the folders of ``search``.
    """

    def __init__(self, spec: RunSpec, folder: Path, search: tuple[Path, ...] = ()) -> None:
        self.spec = spec
        self._folder = folder
        self._search = tuple(dict.fromkeys((folder, *search)))
        self.store: Store = self._prepare()
        self._loader: loading.Loader | None = None
        self._epoch = 0

    def build(self) -> Store:
        """Write and verify the store once more, in place of the one that is there."""
        self.close()
        self.store = self._prepare(rebuild=True)
        return self.store

    def _prepare(self, *, rebuild: bool = False) -> Store:
        return prepare.prepare(self.spec, self._folder, self._search, _Quiet(), rebuild=rebuild)

    def open(self) -> BatchReader:
        """Open the store."""
        return self.spec.open_backend().open(self.store.root)

    def start(self) -> None:
        """Open the store and bring up the workers, unless that has been done."""
        if self._loader is None:
            self._loader = loading.make_loader(self.open(), self.spec)
            self._loader.start()

    def epoch(self, batches: int | None = None) -> int:
        """Load the next epoch, or its first ``batches``, and return how many samples came.

        Raises DeliveredWrongError where a whole epoch has not as many as the store.
        """
        self.start()
        assert self._loader is not None  # noqa: S101  # start has just made it
        number, self._epoch = self._epoch, self._epoch + 1
        samples = sum(len(y) for _, y in self._loader.epoch(number, batches))
        count = self.store.manifest.count
        if batches is None and samples != count:
            raise DeliveredWrongError(f"{self.spec.backend} delivered {samples} samples in an epoch of {count}.")
        return samples

    def check(self) -> int:
        """Compare one more epoch with the store's hashes; return how many samples were compared.

        Of an epoch of more than ``CHECKED_BYTES`` those of its first batches that have so many. Raises
        DeliveredWrongError.
        """
        self.start()
        assert self._loader is not None  # noqa: S101  # start has just made it
        hashes, checked = self.store.hashes(), 0
        known = self.store.manifest
        batch_bytes = self.spec.batch_size * math.prod(known.shape) * np.dtype(known.dtype).itemsize
        batches = math.ceil(CHECKED_BYTES / batch_bytes)
        plan = order.batch_indices(self.spec, len(hashes), self._epoch, batches)
        for indices, (x, y) in zip(plan, self._loader.epoch(self._epoch, len(plan)), strict=True):
            same = len(y) == len(indices) and np.array_equal(
                digest.sample_hashes(indices, x.numpy(), y.numpy()), hashes[indices]
            )
            if not same:
                raise DeliveredWrongError(f"{self.spec.backend} delivered wrong data in the batch of {indices[0]}.")
            checked += len(indices)
        self._epoch += 1
        return checked

    def close(self) -> None:
        """End the workers."""
        if self._loader is not None:
            self._loader.close()
            self._loader = None

    def remove(self) -> None:
        """End the workers and remove the store."""
        self.close()
        shutil.rmtree(self.store.path, ignore_errors=True)


class Meter:
    """What rounds of something read, how much memory the process had, and the machine's speed before and after."""

    def __init__(self) -> None:
        self._before_calibration: Calibration = calibration.measure()
        self._counted: list[probes.Counters] = []
        self._before: probes.Snapshot | None = None
        self._rss_before = memory.current_rss_bytes()
        memory.reset_peak_rss()

    def begin(self) -> None:
        """A round begins."""
        self._before = probes.snapshot_before()

    def end(self) -> None:
        """A round is over."""
        used = probes.used_between(self._before, probes.snapshot_after())
        if used is not None:
            self._counted.append(used)

    def facts(self, prepared: Prepared, *, warmup_rounds: int = 0) -> dict[str, Any]:
        """Return all of it as plain data; counters are per round, without those that warmed up, in order."""
        # Before the calibration's own buffers count.
        peak_bytes = memory.peak_rss_bytes()
        calibrations = self._before_calibration, calibration.measure()
        counted = self._counted[warmup_rounds:]
        manifest, spec = prepared.store.manifest, prepared.spec
        return {
            # Without what was not done: no epochs were trained, and no cache was emptied.
            "spec": spec.model_dump(mode="json", include={*_STORED, *WORK}),
            "samples": manifest.count,
            "origin": manifest.origin,
            "digest": manifest.source_digest,
            "store_bytes": manifest.size_bytes,
            "files": manifest.file_count,
            "io": {
                "read_calls": [used.read_calls for used in counted],
                "read_call_bytes": [used.read_call_bytes for used in counted],
                "storage_read_bytes": [used.storage_read_bytes for used in counted],
                "major_faults": [used.major_faults for used in counted],
            },
            "cpu_s": [used.cpu_user_s + used.cpu_system_s for used in counted],
            "memory": {"rss_before_bytes": self._rss_before, "rss_peak_bytes": peak_bytes},
            "calibration": [one.facts() for one in calibrations],
            "calibration_units": calibration.units(),
            "libraries": environment.libraries() | registry.packages(prepared.spec.backend, prepared.spec.dataset_name),
        }


def measured(
    benchmark: Any,
    prepared: Prepared,
    action: Callable[[], object],
    *,
    rounds: int,
    warmup_rounds: int = 1,
) -> dict[str, Any]:
    """Time an action by pytest-benchmark's ``pedantic`` and return the facts, which also go into its ``extra_info``.

    Counters are read outside of what is timed. Where pytest-benchmark is disabled, as it is by xdist, nothing is timed,
    and there are facts of a single round, behind as many that warm up.
    """
    meter = Meter()
    if benchmark.disabled:
        # It then calls the action once: nothing warms up, and no teardown follows.
        for _ in range(warmup_rounds):
            meter.begin()
            action()
            meter.end()

    benchmark.pedantic(
        action, setup=meter.begin, teardown=meter.end, rounds=rounds, warmup_rounds=warmup_rounds, iterations=1
    )
    if benchmark.disabled:
        meter.end()
    facts = meter.facts(prepared, warmup_rounds=warmup_rounds)
    benchmark.extra_info.update(facts)
    return facts
