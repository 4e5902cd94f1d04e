"""Fixtures for the test suites of storage libraries: ``bench_dataset``, ``bench_backend`` and ``benchmark_epoch``.

Loaded by pytest in every project of an environment that has this package, so it imports nothing else until a fixture
is asked for, and has no options. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from bench.contracts.backend import Backend
    from bench.runs.in_process import Prepared

SAMPLES = 2048
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class BenchDataset:
    """A data set as ``bench`` knows it, or ``synthetic``; ``limit`` samples of it, with its own options."""

    name: str = "synthetic"
    limit: int | None = SAMPLES
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BenchBackend:
    """A backend by its registered name or as a class, with its options."""

    backend: str | type[Backend[Any]]
    options: dict[str, Any]
    folder: Path

    def prepared(self, dataset: BenchDataset | str = "synthetic", **work: Any) -> Prepared:
        """Write and verify a store of the data, and return what can be read from. Raises BenchError.

        ``work`` are those fields of a run's spec that change how it loads: ``batch_size``, ``workers``, ``shuffle`` and
        so on. All others are refused.
        """
        from bench.commands.places import places
        from bench.runs.in_process import Prepared, spec_of

        data = BenchDataset(dataset) if isinstance(dataset, str) else dataset
        chosen = {"limit": data.limit, **work}
        spec = spec_of(self.backend, self.options, data.name, dataset_options=data.options, **chosen)
        # Where ``bench run`` looks. Downloads and stores are in the temporary folder all the same.
        return Prepared(spec, self.folder, places(self.folder).search)


class MakeBackend:
    """Calling it names a backend: ``bench_backend("zarr", chunk=64)`` or ``bench_backend(MyBackend, chunk=64)``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, backend: str | type[Backend[Any]], **options: Any) -> BenchBackend:
        """Return the backend with these options; they are checked once there is data."""
        return BenchBackend(backend, options, self._folder)


class MakeDataset:
    """Calling it names a data set: ``bench_dataset("cifar10", limit=512)``."""

    def __call__(self, name: str = "synthetic", *, limit: int | None = SAMPLES, **options: Any) -> BenchDataset:
        """Return the data set, or its first ``limit`` samples (None for all), with options of its own."""
        return BenchDataset(name, limit, options)


class BenchmarkEpoch:
    """Calling it times epochs of loading, and proves that what came is what was stored."""

    def __init__(self, benchmark: Any) -> None:
        self._benchmark = benchmark
        self._made: list[Prepared] = []

    def __call__(
        self,
        backend: BenchBackend,
        dataset: BenchDataset | str = "synthetic",
        *,
        rounds: int = ROUNDS,
        **work: Any,
    ) -> dict[str, Any]:
        """Time ``rounds`` epochs after one that warms up, and return what else was measured (see ``extra_info``).

        Where pytest-benchmark is disabled, as it is by xdist, that is of one epoch, and nothing is timed.

        Raises BenchError, which fails the test: a backend that cannot, or that delivers anything but what was stored.
        """
        from bench.runs.in_process import measured

        prepared = backend.prepared(dataset, **work)
        self._made.append(prepared)
        # Opened and started before: an epoch is timed, nothing else.
        prepared.start()
        facts = measured(self._benchmark, prepared, prepared.epoch, rounds=rounds)
        facts["checked_samples"] = self._benchmark.extra_info["checked_samples"] = prepared.check()
        return facts

    def close(self) -> None:
        """End the workers and remove the stores."""
        for prepared in self._made:
            prepared.remove()


@pytest.fixture(scope="session")
def bench_dataset() -> MakeDataset:
    """Name a data set: ``bench_dataset("cifar10", limit=512)``; ``synthetic`` needs no files and no network."""
    return MakeDataset()


@pytest.fixture(scope="session")
def bench_backend(tmp_path_factory: pytest.TempPathFactory) -> MakeBackend:
    """Name a backend, registered or your class: ``bench_backend("zarr", chunk=64)``."""
    return MakeBackend(tmp_path_factory.mktemp("bench-data"))


class _WithBenchmark:
    @pytest.fixture
    def benchmark_epoch(self, benchmark: Any) -> Iterator[BenchmarkEpoch]:
        """Time epochs of loading: ``benchmark_epoch(bench_backend("mine"), dataset="synthetic")``."""
        made = BenchmarkEpoch(benchmark)
        yield made
        made.close()


class _WithoutBenchmark:
    @pytest.fixture
    def benchmark_epoch(self) -> None:
        """Skip the test: there is nothing to time it with."""
        pytest.skip("benchmark_epoch needs pytest-benchmark: pip install pytest-benchmark")


def pytest_configure(config: pytest.Config) -> None:
    """Offer ``benchmark_epoch``: it names pytest-benchmark's own fixture, by which ``--benchmark-only`` finds tests."""
    there = config.pluginmanager.hasplugin("benchmark")
    config.pluginmanager.register(_WithBenchmark() if there else _WithoutBenchmark(), "dataset-bench-epoch")
