"""Bytes from storage and bytes through read calls, against plug-ins that read a known number of them."""

from __future__ import annotations

import pytest
from told import COUNT, KINDS, Told, measured, require_disk
from truth_plugins import EXTRA_BYTES, SIDE

DATA_BYTES = COUNT * SIDE**2


def cold(environment, temporary, *more: str, how: str, backend: str = "truth-reads", **acts) -> Told:
    told = measured(environment, temporary, backend, "--epochs", "1", "--cache", "cold", *more, how=how, ms=0, **acts)
    require_disk(told.record)
    assert told.record.cache.achieved == "verified"
    return told


@pytest.mark.parametrize(("how", "call_bytes"), [("pread", DATA_BYTES), ("map", 0)])
def test_bytes_read_in_the_training_process(bench_environment, tmp_path_factory, how: str, call_bytes: int) -> None:
    info = cold(bench_environment, tmp_path_factory, how=how).epoch()
    assert info.io.storage_read_bytes == pytest.approx(DATA_BYTES, rel=0.02)
    assert info.io.read_call_bytes == pytest.approx(call_bytes, rel=0.02, abs=DATA_BYTES / 1000)


def test_what_a_child_read_that_came_and_went_is_counted_once(bench_environment, tmp_path_factory) -> None:
    # Enough that the child's program, which may have to be read from the disk as well, is below 2 %.
    info = cold(bench_environment, tmp_path_factory, how="map", backend="truth-child", count=4 * COUNT).epoch()
    assert info.io.storage_read_bytes == pytest.approx(4 * DATA_BYTES + EXTRA_BYTES, rel=0.02)
    assert info.io.read_call_bytes == pytest.approx(EXTRA_BYTES, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_read_by_workers(bench_environment, tmp_path_factory, kind: str) -> None:
    """Half of the samples are read by calls, half through a mapping, which no call shows."""
    # Enough that parts of libraries, which a new process may fault in with its first batch, are below 2 %.
    count = 4 * COUNT
    told = cold(bench_environment, tmp_path_factory, *KINDS[kind], how="both", count=count)
    assert len({act["pid"] for act in told.acts}) == (1 if kind == "thread" else 2)
    assert told.epoch().io.storage_read_bytes == pytest.approx(4 * DATA_BYTES, rel=0.02)
    assert told.epoch().io.read_call_bytes == pytest.approx(4 * DATA_BYTES / 2, rel=0.02)
