"""Every reader of the formats that have several: a batch in random order, and an epoch in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.pytest_plugin import MakeBackend
from bench.runs.in_process import Prepared, measured

READERS = (("hdf5", "library"), ("hdf5", "mapped"), ("zarr", "library"), ("zarr", "mapped"))


@pytest.fixture(params=READERS, ids=lambda pair: "-".join(pair))
def chosen(request: pytest.FixtureRequest, bench_backend: MakeBackend):
    name, reader = request.param
    return bench_backend(name, reader=reader)


@pytest.fixture(params=["full", "block"])
def prepared(request: pytest.FixtureRequest, chosen) -> Iterator[Prepared]:
    made = chosen.prepared(shuffle=request.param)
    yield made
    made.remove()


def test_one_batch(benchmark, prepared: Prepared) -> None:
    prepared.start()
    measured(benchmark, prepared, lambda: prepared.epoch(batches=1), rounds=50)
    assert prepared.check()


def test_epoch(benchmark, prepared: Prepared) -> None:
    prepared.start()
    measured(benchmark, prepared, prepared.epoch, rounds=5)
    assert prepared.check()
