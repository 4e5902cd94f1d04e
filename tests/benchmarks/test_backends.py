"""Every backend that needs no further library: opening, a batch, an epoch, and preparing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.pytest_plugin import BenchmarkEpoch, MakeBackend
from bench.runs.in_process import Prepared, measured

BACKENDS = ("filesystem", "hdf5", "memmap", "memory", "zarr")
BATCH = 128


@pytest.fixture(params=BACKENDS)
def prepared(request: pytest.FixtureRequest, bench_backend: MakeBackend) -> Iterator[Prepared]:
    made = bench_backend(request.param).prepared(batch_size=BATCH)
    yield made
    made.remove()


def test_open(benchmark, prepared: Prepared) -> None:
    facts = measured(benchmark, prepared, prepared.open, rounds=20)
    assert len(facts["io"]["read_calls"]) == 20


def test_one_batch(benchmark, prepared: Prepared) -> None:
    prepared.start()
    measured(benchmark, prepared, lambda: prepared.epoch(batches=1), rounds=50)
    assert prepared.check()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("workers", [0, 2])
def test_epoch(benchmark_epoch: BenchmarkEpoch, bench_backend: MakeBackend, backend: str, workers: int) -> None:
    facts = benchmark_epoch(bench_backend(backend), batch_size=BATCH, workers=workers)
    assert facts["checked_samples"] == 2048


def test_prepare(benchmark, prepared: Prepared) -> None:
    facts = measured(benchmark, prepared, prepared.build, rounds=3, warmup_rounds=0)
    assert facts["files"] >= 1
