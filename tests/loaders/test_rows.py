"""Rows gathered through a mapping, against the bytes of files written by hand."""

from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.contracts.backend import BackendError
from bench.loaders import read_ahead, rows
from bench.loaders.rows import MappedRows, Pieces, Rows


def gathered(mapped: MappedRows, indices: list[int], row_bytes: int) -> np.ndarray:
    x = np.zeros((len(indices), row_bytes), np.uint8)
    mapped.gather(np.array(indices), x)
    return x


def scattered(folder: Path, data: np.ndarray, per_piece: int, files: int, gap: int, seed: int) -> Pieces:
    """Write rows piece by piece into files in a random order, with rubbish before each, and say where they are."""
    rng = np.random.default_rng(seed)
    pieces = [data[start : start + per_piece] for start in range(0, len(data), per_piece)]
    contents = [bytearray() for _ in range(files)]
    file_of = rng.integers(0, files, len(pieces))
    offsets = np.zeros(len(pieces), np.int64)
    for number in rng.permutation(len(pieces)):
        content = contents[file_of[number]]
        content += os.urandom(gap)
        offsets[number] = len(content)
        content += pieces[number].tobytes()
    paths = [folder / f"{number}.bin" for number in range(files)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return Pieces(paths, file_of, offsets, per_piece)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 60),
    row_bytes=st.sampled_from([1, 7, 64, 784, 3072, 4096, 70_000]),
    per_piece=st.integers(1, 20),
    files=st.integers(1, 4),
    gap=st.sampled_from([0, 5, 3072, 4096]),
    seed=st.integers(0, 99),
)
def test_rows_are_found_wherever_they_lie(tmp_path_factory, count, row_bytes, per_piece, files, gap, seed) -> None:
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (count, row_bytes), np.uint8)
    pieces = scattered(tmp_path_factory.mktemp("rows"), data, per_piece, files, gap, seed)
    mapped = MappedRows(pieces, count, row_bytes)
    indices = rng.integers(0, count, 40)
    x = np.zeros((40, row_bytes), np.uint8)
    mapped.gather(indices, x)
    assert np.array_equal(x, data[indices])


def test_samples_of_any_type_are_gathered_as_bytes(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(30, 2, 5)).astype(np.float32)
    (tmp_path / "x").write_bytes(b"header" + data.tobytes())
    mapped = MappedRows(Pieces.contiguous(tmp_path / "x", 6, 30), 30, 40)
    x = np.zeros((3, 2, 5), np.float32)
    mapped.gather(np.array([29, 0, 29]), x)
    assert np.array_equal(x, data[[29, 0, 29]])


def test_a_mapping_holds_as_long_as_it_is_used_and_not_longer(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_bytes(bytes(8192))
    mapped = MappedRows(Pieces(paths, np.array([0, 1]), np.array([0, 0]), 2), 4, 4096)
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    del mapped
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("files", [1, 2])
@pytest.mark.parametrize("missing", [1, 4096, 8192])
def test_a_file_that_ends_too_soon_is_refused_before_it_is_mapped(tmp_path: Path, files: int, missing: int) -> None:
    paths = [tmp_path / str(number) for number in range(files)]
    for path in paths:
        path.write_bytes(bytes(8192))
    os.truncate(paths[-1], 8192 - missing)
    pieces = Pieces(paths, np.arange(files), np.zeros(files, np.int64), 2)
    with pytest.raises(BackendError, match=rf"{paths[-1]}: ends after {8192 - missing} bytes, where 8192 are needed\."):
        MappedRows(pieces, 2 * files, 4096)


def test_a_missing_file_and_too_many_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = Pieces([tmp_path / "gone"], np.zeros(1, np.int64), np.zeros(1, np.int64), 1)
    with pytest.raises(BackendError, match=r"gone: No such file"):
        MappedRows(pieces, 1, 8)
    monkeypatch.setattr(rows, "_allowed", lambda: 0)
    with pytest.raises(BackendError, match=r"1 files take . mappings, more than the 0 .* reader=library"):
        MappedRows(pieces, 1, 8)


def test_pieces_that_do_not_make_sense_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(100))
    with pytest.raises(BackendError, match="fewer rows"):
        MappedRows(Pieces([tmp_path / "x"], np.zeros(1, np.int64), np.zeros(1, np.int64), 2), 5, 8)
    with pytest.raises(BackendError, match="begin before the file does"):
        MappedRows(Pieces([tmp_path / "x"], np.zeros(1, np.int64), np.array([-8]), 2), 2, 8)


@pytest.mark.parametrize("thread", [True, False])
def test_a_gather_is_the_same_in_any_thread(thread: bool) -> None:
    data = np.random.default_rng(1).integers(0, 256, (500, 3072), np.uint8)
    indices = np.random.default_rng(2).integers(0, 500, 256)
    x = np.zeros((256, 3072), np.uint8)
    gather = lambda: Rows(data).gather(indices, x)  # noqa: E731
    if thread:
        worker = threading.Thread(target=gather)
        worker.start()
        worker.join()
    else:
        gather()
    assert np.array_equal(x, data[indices])


def in_page_table_kib(path: Path) -> int:
    """Return how much of a mapped file this process can read without a fault (proc_pid_smaps(5))."""
    _, _, rest = Path("/proc/self/smaps").read_text().partition(f"{path}\n")
    return int(rest.partition("\nRss:")[2].split()[0])


@pytest.mark.parametrize("files", [1, 20])
@pytest.mark.skipif(
    tuple(map(int, os.uname().release.split(".")[:2])) < (5, 14), reason="the kernel does not enter pages ahead"
)
def test_files_that_are_not_in_memory_are_read_ahead(files: int, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    paths = [tmp_path / f"{number:02}" for number in range(files)]
    for path in paths:
        path.write_bytes(os.urandom((20 << 20) // files))
    pieces = Pieces([empty, *paths], 1 + np.arange(files), np.zeros(files, np.int64), 20 // files)
    mapped = MappedRows(pieces, 20, 1 << 20)
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    pages = mapped._files._ahead._pages
    assert len(pages) >= read_ahead._LOOKED_AT
    if all(map(read_ahead._in_memory, pages)):
        pytest.skip("files here cannot be evicted")
    mapped.begin()
    started = mapped._files._ahead._thread
    assert started is not None
    started.join(timeout=30)
    assert not mapped._files.being_read
    assert all(map(read_ahead._in_memory, pages))
    assert sum(map(in_page_table_kib, paths)) == 20 << 10
    mapped.begin()
    assert mapped._files._ahead._thread is started, "what is in memory is not read again"


@pytest.mark.parametrize("gap", [0, 1])
def test_rows_are_waited_for_while_their_file_is_read(
    gap: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    data = np.frombuffer(os.urandom(20 << 20), np.uint8).reshape(20, 1 << 20)
    path.write_bytes(data[:10].tobytes() + bytes(gap) + data[10:].tobytes())
    # With a gap, rows are no longer those of one array.
    offsets = (np.arange(20) << 20) + gap * (np.arange(20) >= 10)
    go_on = [threading.Event(), threading.Event()]

    def read(files, reader) -> None:
        for event, end in zip(go_on, (10 << 20, 21 << 20), strict=True):
            assert event.wait(timeout=30)
            reader().move_to(files[0].memory.ctypes.data + end)

    monkeypatch.setattr(read_ahead, "_in_memory", lambda _: False)
    monkeypatch.setattr(read_ahead, "_read", read)
    mapped = MappedRows(Pieces([path], np.zeros(20, np.int64), offsets, 1), 20, 1 << 20)
    mapped.begin()
    with ThreadPoolExecutor(2) as pool:
        try:
            early = pool.submit(gathered, mapped, [9, 3], 1 << 20)
            late = pool.submit(gathered, mapped, [0, 10], 1 << 20)
            assert not wait([early, late], timeout=0.2).done
            go_on[0].set()
            np.testing.assert_array_equal(early.result(timeout=30), data[[9, 3]])
            assert not wait([late], timeout=0.2).done
        finally:
            for event in go_on:
                event.set()
        np.testing.assert_array_equal(late.result(timeout=30), data[[0, 10]])


def test_nobody_waits_for_a_thread_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    path = tmp_path / "x"
    path.write_bytes(bytes(range(20)))
    mapped = MappedRows(Pieces.contiguous(path, 0, 20), 20, 1)
    monkeypatch.setattr(read_ahead, "_in_memory", lambda _: False)
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="new thread"):
        mapped.begin()
    assert gathered(mapped, [19], 1).item() == 19


def test_waiting_for_slow_storage_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(range(20)))
    mapped = MappedRows(Pieces.contiguous(path, 0, 20), 20, 1)
    go_on = threading.Event()
    monkeypatch.setattr(read_ahead, "_in_memory", lambda _: False)
    monkeypatch.setattr(read_ahead, "_read", lambda *_: go_on.wait(timeout=30))
    monkeypatch.setattr(read_ahead, "_PATIENCE_S", 0.1)
    mapped.begin()
    assert gathered(mapped, [19], 1).item() == 19
    assert not go_on.is_set()
    go_on.set()


@pytest.mark.parametrize("kernel", ["5.14", "5.13"])
def test_reading_ends_with_the_reader(kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(20 << 20))
    go_on, asked, told = threading.Event(), [], []

    def madvise(address: int, size: int, advice: int) -> int:
        assert go_on.wait(timeout=30)
        asked.append((size, advice))
        return 0 if kernel == "5.14" else -1

    monkeypatch.setattr(read_ahead, "_in_memory", lambda _: False)
    monkeypatch.setattr(read_ahead._LIBC, "madvise", madvise)
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: told.append(arguments[1:]))
    mapped = MappedRows(Pieces.contiguous(path, 0, 20), 20, 1 << 20)
    mapped.begin()
    thread = mapped._files._ahead._thread
    del mapped
    gc.collect()
    go_on.set()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert len(asked) == (2 if kernel == "5.14" else 1), "a page to see whether it works, and one piece of many"
    assert told == ([] if kernel == "5.14" else [(0, 20 << 20, os.POSIX_FADV_WILLNEED)])


@pytest.mark.parametrize("limit", ["30000000", "max"])
@pytest.mark.parametrize("limited", ["a", "a/b"])
def test_more_than_fits_within_a_memory_limit_is_not_read_ahead(
    limit: str, limited: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(20 << 20))
    (tmp_path / "group").write_text("1:cpu:/elsewhere\n0::/a/b\n")
    (tmp_path / "groups/a/b").mkdir(parents=True)
    (tmp_path / "groups" / limited / "memory.max").write_text(f"{limit}\n")
    monkeypatch.setattr(read_ahead, "_OWN_GROUP", tmp_path / "group")
    monkeypatch.setattr(read_ahead, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(read_ahead, "_in_memory", lambda _: False)
    mapped = MappedRows(Pieces.contiguous(path, 0, 20), 20, 1 << 20)
    mapped.begin()
    assert (mapped._files._ahead._thread is None) == (limit != "max")
    assert gathered(mapped, [19], 1 << 20).sum() == 0
