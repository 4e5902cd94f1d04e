"""What is kept of decoded chunks, and what the decoders believe; and all readers of Zarr over random layouts."""

from __future__ import annotations

import asyncio
import os
import struct
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from conformance import Store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numcodecs import blosc, zstd
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.buffer import default_buffer_prototype

from bench.contracts.backend import BackendError
from bench.contracts.source import SampleBlock, Schema
from bench.loaders.chunks import KeptChunks
from bench.loaders.frames import decoder
from bench.loaders.zarr_ import ZarrBackend, ZarrOptions
from bench.loaders.zarr_store import CompleteStore

ROWS, ROW_BYTES, CHUNKS = 4, 10_000, 50
CHUNK_BYTES = ROWS * ROW_BYTES
X = np.random.default_rng(6).integers(0, 255, (CHUNKS * ROWS, ROW_BYTES)).astype(np.uint8)


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    options: dict[str, Any] = {"codec": draw(st.sampled_from(["none", "zstd", "blosc"]))}
    options["chunk"] = draw(st.integers(1, 9) | st.none())
    if options["chunk"] and draw(st.booleans()):
        options["shard"] = options["chunk"] * draw(st.integers(1, 5))
    return options


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    options=layouts(),
    count=st.integers(1, 40),
    shape=st.lists(st.integers(1, 6), max_size=3).map(tuple),
    dtype=st.sampled_from(["uint8", "int16", "int64", "float32", "float64"]),
    data=st.data(),
)
def test_every_reader_delivers_any_layout(
    options: dict[str, Any], count: int, shape: tuple[int, ...], dtype: str, data: st.DataObject
) -> None:
    rng = np.random.default_rng(count)
    x, y = rng.integers(0, 99, (count, *shape)).astype(dtype), rng.integers(0, 9, count)
    indices = data.draw(st.lists(st.integers(0, count - 1), max_size=2 * count))
    with TemporaryDirectory() as folder:
        root = Path(folder)
        schema = Schema("truth", "train", count, shape, dtype, tuple("abcdefghij"), "none", "local")
        ZarrBackend(ZarrOptions(**options)).write([SampleBlock(x, y)], schema, root)
        for reader in ("library", "mapped", "naive"):
            opened = ZarrBackend(ZarrOptions(**options, reader=reader)).open(root)
            found_x, found_y = opened.__getitems__(indices)
            np.testing.assert_array_equal(found_x.numpy(), x[indices])
            np.testing.assert_array_equal(found_y.numpy(), y[indices])


# What is kept.


class Decoding:
    """Decodes chunks of ``X``, and takes note of which, and in which thread."""

    def __init__(self) -> None:
        self.chunks: list[int] = []
        self.threads: set[threading.Thread] = set()
        self.failing: set[int] = set()

    def __call__(self, chunk: int, out: np.ndarray) -> None:
        if chunk in self.failing:
            raise BackendError(f"chunk {chunk}")
        self.chunks.append(chunk)
        self.threads.add(threading.current_thread())
        assert out.flags.c_contiguous
        out[:] = X[chunk * ROWS : (chunk + 1) * ROWS].reshape(-1)


def kept(decode: Decoding, places: float) -> KeptChunks:
    return KeptChunks(decode, CHUNKS, ROWS, ROW_BYTES, int(places * CHUNK_BYTES))


def check(rows: KeptChunks, indices: Any) -> None:
    wanted = np.asarray(indices, dtype=np.int64)
    out = np.full((len(wanted), ROW_BYTES), 7, np.uint8)
    rows.gather(wanted, out)
    assert np.array_equal(out, X[wanted])


@pytest.mark.parametrize("places", [0, 0.5, 1, 3, CHUNKS, 2 * CHUNKS])
def test_any_rows_whatever_there_is_place_for(places: float) -> None:
    rows, rng = kept(Decoding(), places), np.random.default_rng(8)
    for size in (0, 1, 2, 7, 40, 300):
        check(rows, rng.integers(0, len(X), size))


def test_a_chunk_is_decoded_once_per_batch_and_kept_while_there_is_place() -> None:
    decode = Decoding()
    rows = kept(decode, 3)
    check(rows, [0, 3, 1, 0, 5])
    assert sorted(decode.chunks) == [0, 1]
    check(rows, [2, 7, 8])
    assert sorted(decode.chunks) == [0, 1, 2]
    check(rows, [1, 9])
    # 1 is the one that was not used for longest.
    check(rows, [12])
    check(rows, [0, 8])
    assert sorted(decode.chunks) == [0, 1, 2, 3]
    check(rows, [4])
    assert sorted(decode.chunks) == [0, 1, 1, 2, 3]


def test_more_chunks_than_there_is_place_for_are_decoded_once_each() -> None:
    decode = Decoding()
    check(kept(decode, 3), np.random.default_rng(9).permutation(len(X)))
    assert sorted(decode.chunks) == list(range(CHUNKS))


def test_a_chunk_that_fails_leaves_the_others_as_they_were() -> None:
    decode = Decoding()
    rows = kept(decode, 2)
    check(rows, [0])
    decode.failing = {1, 2, 3}
    for indices in ([4], [4, 8, 12], [0, 4, 8]):
        with pytest.raises(BackendError, match=r"chunk [123]"):
            check(rows, indices)
    decode.failing = set()
    check(rows, [4, 8, 0])
    check(rows, [12, 4])


@pytest.mark.parametrize("places", [0, CHUNKS])
def test_a_chunk_that_fails_in_whichever_thread_fails_the_batch(places: int) -> None:
    decode = Decoding()
    rows = kept(decode, places)
    for chunk in range(8):
        decode.failing = {chunk}
        with pytest.raises(BackendError, match=f"chunk {chunk}"):
            check(kept(decode, places), range(8 * ROWS))
        with pytest.raises(BackendError, match=f"chunk {chunk}"):
            check(rows, range(chunk * ROWS, 8 * ROWS))
        rows.begin()
    decode.failing = set()
    check(rows, range(8 * ROWS))


def test_memory_stays_within_the_bound() -> None:
    rows = kept(Decoding(), 5)
    tracemalloc.start()
    try:
        rows = kept(Decoding(), 5)
        before, _ = tracemalloc.get_traced_memory()
        for begin in range(0, len(X), 8):
            rows.gather(np.arange(begin, begin + 8), out := np.empty((8, ROW_BYTES), np.uint8))
        del out
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    threads = torch.get_num_threads()
    assert before < 5 * CHUNK_BYTES + 100_000
    # The batch, of two chunks; a chunk aside for each thread; and lists.
    assert peak < (5 + 2 + threads) * CHUNK_BYTES + 100_000


@pytest.mark.skipif(torch.get_num_threads() < 2, reason="torch has one thread")
def test_chunks_are_decoded_side_by_side_in_the_main_thread_alone() -> None:
    for places in (CHUNKS, 1):
        decode = Decoding()
        check(kept(decode, places), range(len(X)))
        assert len(decode.threads) > 1
        assert sorted(decode.chunks) == list(range(CHUNKS))
        decode = Decoding()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(check, kept(decode, places), range(len(X))).result()
        assert len(decode.threads) == 1


@pytest.mark.parametrize("places", [0, 2, 5, 30])
def test_threads_that_share_what_is_kept_do_not_disturb_each_other(places: int) -> None:
    rows, rng = kept(Decoding(), places), np.random.default_rng(10)
    batches = [rng.integers(0, len(X), 24) for _ in range(120)]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(check, rows, batch) for batch in batches]:
            done.result()


def test_chunks_that_batches_share_are_decoded_once_and_divided_between_their_threads() -> None:
    together = threading.Barrier(2, timeout=60)
    decode = Decoding()

    def meeting(chunk: int, out: np.ndarray) -> None:
        # Nobody gets past the first two chunks before both threads have one.
        if chunk < 2:
            together.wait()
        decode(chunk, out)

    rows = KeptChunks(meeting, CHUNKS, ROWS, ROW_BYTES)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(check, rows, range(6 * ROWS)) for _ in range(2)]:
            done.result()
    assert sorted(decode.chunks) == list(range(6))
    assert len(decode.threads) == 2


def test_what_is_merely_read_is_divided_in_groups_and_the_main_thread_does_it_alone() -> None:
    together = threading.Barrier(2, timeout=60)
    read = Decoding()

    def meeting(chunk: int, out: np.ndarray) -> None:
        # The first chunk of each group: 256 KiB are six of them.
        if chunk in (0, 6):
            together.wait()
        read(chunk, out)

    rows = KeptChunks(meeting, CHUNKS, ROWS, ROW_BYTES, side_by_side=False)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(check, rows, range(12 * ROWS)) for _ in range(2)]:
            done.result()
    assert sorted(read.chunks) == list(range(12))
    assert len(read.threads) == 2
    alone = Decoding()
    check(KeptChunks(alone, CHUNKS, ROWS, ROW_BYTES, side_by_side=False), range(len(X)))
    assert alone.threads == {threading.main_thread()}


def test_a_chunk_of_a_group_that_cannot_be_read_leaves_the_others_to_be_read_again() -> None:
    read = Decoding()
    read.failing = {2}
    rows = KeptChunks(read, CHUNKS, ROWS, ROW_BYTES, side_by_side=False)
    with pytest.raises(BackendError):
        check(rows, range(6 * ROWS))
    read.failing = set()
    check(rows, range(6 * ROWS))
    assert sorted(read.chunks[-4:]) == [2, 3, 4, 5]


def test_a_batch_of_kept_chunks_decodes_nothing_and_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = Decoding()
    rows = kept(decode, 3)
    check(rows, range(2 * ROWS))
    decode.chunks.clear()
    check(rows, [5, 0, 5, 3, 1])
    assert decode.chunks == []
    gather = rows._rows.gather

    def meanwhile(positions: np.ndarray, out: np.ndarray) -> None:
        # Another batch needs two places now: one is free, and what this one is made of is not given away.
        monkeypatch.setattr(rows._rows, "gather", gather)
        check(rows, range(2 * ROWS, 4 * ROWS))
        gather(positions, out)

    monkeypatch.setattr(rows._rows, "gather", meanwhile)
    check(rows, [5, 0, 5, 3, 1])
    assert not rows._users.any()


def test_a_batch_that_waited_for_a_chunk_in_vain_decodes_it_itself() -> None:
    begun, waited_for = threading.Event(), threading.Event()
    tried: list[int] = []

    def failing_at_first(chunk: int, out: np.ndarray) -> None:
        tried.append(chunk)
        if len(tried) == 1:
            begun.set()
            waited_for.wait(60)
            raise BackendError(f"chunk {chunk}")
        out[:] = X[chunk * ROWS : (chunk + 1) * ROWS].reshape(-1)
        if chunk == 1:
            waited_for.set()

    rows = KeptChunks(failing_at_first, CHUNKS, ROWS, ROW_BYTES)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(check, rows, range(ROWS))
        assert begun.wait(60)
        second = pool.submit(check, rows, range(2 * ROWS))
        with pytest.raises(BackendError, match="chunk 0"):
            first.result()
        second.result()
    assert tried == [0, 1, 0]


def test_library_reads_each_touched_chunk_once_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def noting(method: Any) -> Any:
        def noted(self: CompleteStore, key: str, *args: Any, **given: Any) -> Any:
            read.append(key)
            return method(self, key, *args, **given)

        return noted

    for name in ("get_sync", "read_into"):
        monkeypatch.setattr(CompleteStore, name, noting(getattr(CompleteStore, name)))
    for codec in ("none", "zstd"):
        store = Store.write(ZarrBackend(ZarrOptions(chunk=4, codec=codec)), tmp_path / codec)
        reader = store.open()
        reader.__getitems__([22])
        read.clear()
        store.check([9, 1, 8, 9, 22, 3], reader.__getitems__([9, 1, 8, 9, 22, 3]))
        assert sorted(read) == ["x/c.0.0.0.0", "x/c.2.0.0.0"]


def test_a_store_reads_ranges_and_reports_missing_chunks(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "c.0").write_bytes(b"0123456789")
    (tmp_path / "x" / "c.1").write_bytes(b"")
    store, prototype = CompleteStore(tmp_path, read_only=True), default_buffer_prototype()
    for asked, wanted in (
        (None, b"0123456789"),
        (RangeByteRequest(2, 5), b"234"),
        (RangeByteRequest(8, 50), b"89"),
        (OffsetByteRequest(7), b"789"),
        (SuffixByteRequest(4), b"6789"),
        (SuffixByteRequest(40), b"0123456789"),
    ):
        for found in (
            store.get_sync("x/c.0", prototype=prototype, byte_range=asked),
            asyncio.run(store.get("x/c.0", prototype, asked)),
        ):
            assert found is not None
            assert found.to_bytes() == wanted
    whole = np.zeros(10, np.uint8)
    store.read_into("x/c.0", whole)
    assert whole.tobytes() == b"0123456789"
    for size in (9, 11):
        with pytest.raises(ValueError, match=f"10 bytes where a chunk has {size}"):
            store.read_into("x/c.0", np.zeros(size, np.uint8))
    with pytest.raises(FileNotFoundError):
        store.read_into("x/zarr.json", whole)
    # Nobody ever writes to the pipe: it must not be waited for.
    os.mkfifo(tmp_path / "x" / "c.3")
    (tmp_path / "x" / "c.4").mkdir()
    for key in ("x/c.1", "x/c.2", "x/c.3", "x/c.4"):
        with pytest.raises(BackendError, match="missing or empty"):
            store.get_sync(key)
        with pytest.raises(BackendError, match="missing or empty"):
            store.read_into(key, whole)
        with pytest.raises(BackendError, match="missing or empty"):
            asyncio.run(store.get(key, prototype))
    assert store.get_sync("x/zarr.json") is None
    assert asyncio.run(store.get("x/zarr.json", prototype)) is None


# What the decoders believe. RFC 8878: a frame of one raw block, with its size told in each way, and with the number of
# a dictionary, 0, which means none.


def raw_zstd_frame(content: bytes, flags: int, told: bytes) -> bytes:
    window = b"" if flags & 0x20 else b"\x58"
    block = (len(content) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd" + bytes([flags]) + window + told + block + content


@pytest.mark.parametrize(
    ("flags", "told", "size"),
    [
        (0x00, b"", 300),
        (0x20, b"\xc8", 200),
        (0x40, struct.pack("<H", 300 - 256), 300),
        (0x60, struct.pack("<H", 300 - 256), 300),
        (0x80, struct.pack("<I", 300), 300),
        (0xC0, struct.pack("<Q", 300), 300),
        (0xE0, struct.pack("<Q", 300), 300),
        (0x21, b"\0\xc8", 200),
        (0x62, b"\0\0" + struct.pack("<H", 300 - 256), 300),
        (0x83, b"\0\0\0\0" + struct.pack("<I", 300), 300),
    ],
)
def test_a_zstandard_frame_must_hold_exactly_a_chunk(flags: int, told: bytes, size: int) -> None:
    content = np.random.default_rng(11).bytes(size)
    frame = np.frombuffer(raw_zstd_frame(content, flags, told), np.uint8)
    out = np.zeros(size, np.uint8)
    decoder("zstd")(frame, out)
    assert out.tobytes() == content
    for other in (size - 1, size + 1):
        with pytest.raises((ValueError, RuntimeError)):
            decoder("zstd")(frame, np.zeros(other, np.uint8))


@pytest.mark.parametrize("codec", ["zstd", "blosc"])
def test_frames_that_are_too_short_or_of_another_size_are_refused(codec: str) -> None:
    content = np.random.default_rng(12).integers(0, 4, 5000).astype(np.uint8).tobytes()
    frame = zstd.compress(content, 3) if codec == "zstd" else blosc.compress(content, b"lz4", 5, 1)
    array = np.frombuffer(frame, np.uint8)
    decode = decoder(codec)
    decode(array, out := np.zeros(5000, np.uint8))
    assert out.tobytes() == content
    for length in (0, 3, 4, 5, 12, 15, 16, 100, len(array) - 1):
        with pytest.raises((ValueError, RuntimeError)):
            decode(array[:length], np.zeros(5000, np.uint8))
    for other in (4999, 5001, 10_000):
        with pytest.raises((ValueError, RuntimeError)):
            decode(array, np.zeros(other, np.uint8))
    with pytest.raises((ValueError, RuntimeError)):
        decode(np.append(array, np.uint8(0)), np.zeros(5000, np.uint8))


def test_frames_of_another_size_in_a_store_are_an_error(tmp_path: Path) -> None:
    for codec in ("zstd", "blosc"):
        store = Store.write(ZarrBackend(ZarrOptions(chunk=4, codec=codec)), tmp_path / codec)
        content = bytes(3 * 3 * 8 * 8)
        frame = zstd.compress(content, 3) if codec == "zstd" else blosc.compress(content, b"lz4", 5, 1)
        path = store.root / "x" / "c.2.0.0.0"
        path.write_bytes(frame)
        for reader in ("library", "mapped"):
            opened = ZarrBackend(ZarrOptions(codec=codec, reader=reader)).open(store.root)
            with pytest.raises(BackendError) as raised:
                opened.__getitems__([1, 9])
            assert str(path) in str(raised.value)
            store.check([1, 22], opened.__getitems__([1, 22]))


def test_nothing_is_kept_from_one_epoch_to_the_next() -> None:
    decoded: list[int] = []

    def decode(chunk: int, out: np.ndarray) -> None:
        decoded.append(chunk)
        out[:] = X[chunk * ROWS : (chunk + 1) * ROWS].reshape(-1)

    chunks = KeptChunks(decode, CHUNKS, ROWS, ROW_BYTES)
    x = np.empty((20, ROW_BYTES), np.uint8)
    for begins, expected in ((False, 5), (False, 5), (True, 10)):
        if begins:
            chunks.begin()
        chunks.gather(np.arange(20), x)
        assert len(decoded) == expected
        assert np.array_equal(x, X[:20])
