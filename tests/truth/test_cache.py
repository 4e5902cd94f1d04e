"""The state of the page cache: brought about, proved, and not claimed where it was not."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from mmap import PAGESIZE
from pathlib import Path

import pytest
from told import COUNT, RUN, bench, flags, measured, require_disk, run
from truth_plugins import SIDE

from bench.records.record import read_record

DATA_BYTES = COUNT * SIDE**2


def evict(folder: Path) -> None:
    for path in filter(Path.is_file, folder.rglob("*")):
        with path.open("rb") as file:
            os.fsync(file)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("backend", ["memmap", "hdf5"])
def test_cold_is_verified_and_every_epoch_reads_from_storage(bench_environment, tmp_path_factory, backend) -> None:
    arguments = (backend, "--epochs", "3", "--cache", "cold")
    # Enough that libraries' own pages, which may have to be read from the disk as well, are below 2 %.
    record = measured(bench_environment, tmp_path_factory, *arguments, count=4 * COUNT).record
    require_disk(record)
    assert record.cache.achieved == "verified"
    for info in record.epochs:
        assert info.resident_before <= 0.01
        # Reading ahead may read a page twice, never leave one out.
        assert info.io.storage_read_bytes == pytest.approx(4 * DATA_BYTES, rel=0.02)


def test_warm_is_verified_and_nothing_is_read_from_storage(bench_environment, tmp_path: Path) -> None:
    data = tmp_path / "data"
    arguments = ("memmap", "--data-dir", str(data), "--epochs")
    run(bench_environment, tmp_path, *arguments, "1")
    evict(data)
    record = run(bench_environment, tmp_path, *arguments, "2", "--cache", "warm").record
    assert record.cache.achieved == "verified"
    for info in record.epochs:
        assert info.resident_before >= 0.99
        assert info.io.storage_read_bytes <= 0.001 * DATA_BYTES


def test_small_files_take_whole_pages_of_memory_and_whole_blocks_of_the_disk(bench_environment, tmp_path: Path) -> None:
    arguments = ("filesystem", "--data-dir", str(tmp_path / "data"), "--epochs", "1", "--cache", "warm")
    record = run(bench_environment, tmp_path, *arguments, count=160, side=8).record
    require_disk(record)
    (root,) = (tmp_path / "data" / "stores").glob("*/*/data")
    sizes = [path.stat().st_size for path in root.rglob("*") if path.is_file()]
    assert record.memory.page_cache_bytes == sum(-(-size // PAGESIZE) * PAGESIZE for size in sizes) > 2 * sum(sizes)
    told = subprocess.run(["du", "-s", "-B1", root], capture_output=True, text=True, check=True).stdout
    assert record.store.allocated_bytes == int(told.split()[0])
    assert record.store.size_bytes == sum(sizes)


def test_a_store_that_stays_mapped_is_not_called_cold(bench_environment, tmp_path: Path) -> None:
    arguments = (*RUN, "--backend", "truth-pins", "--epochs", "2", "--cache", "cold", *flags(log=tmp_path))
    ended = bench(bench_environment, tmp_path, *arguments)
    assert ended.returncode == 0, ended.stderr
    (path,) = (tmp_path / "results").iterdir()
    record = read_record(path)
    require_disk(record)
    assert record.cache.achieved == "not-achieved"
    assert record.cache.resident_before > 0.8
    assert "stayed in memory" in record.cache.proof
    assert "cache-state" in {warning.kind for warning in record.warnings}
    assert "not-achieved" in ended.stdout


@pytest.fixture
def in_memory() -> Iterator[Path]:
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("there is no /dev/shm here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_files_in_memory_cannot_be_cold(bench_environment, tmp_path_factory, in_memory: Path) -> None:
    arguments = ("memmap", "--epochs", "2", "--cache", "cold", "--data-dir", str(in_memory))
    record = measured(bench_environment, tmp_path_factory, *arguments, count=160).record
    assert record.cache.achieved == "impossible"
    assert "tmpfs" in record.cache.proof
