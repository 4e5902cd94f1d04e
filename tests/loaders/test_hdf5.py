"""The readers of HDF5: what they deliver and read, and what the mapped one refuses."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from conformance import Truth, check_batch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.contracts.backend import BackendError
from bench.contracts.source import SampleBlock, Schema
from bench.loaders.hdf5 import Hdf5Backend, Hdf5Options
from bench.loaders.hdf5_layout import find_chunks, read_layout
from bench.loaders.hdf5_library import suits_blocks
from bench.loading.order import Order
from bench.specs.spec import RunSpec

SEVERAL = {"max_examples": 30, "deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}
ZSTD, BLOSC = hdf5plugin.Zstd(), hdf5plugin.Blosc(shuffle=hdf5plugin.Blosc.SHUFFLE)


def backend(reader: str = "mapped", **options: Any) -> Hdf5Backend:
    return Hdf5Backend(Hdf5Options(reader=reader, **options))


def store(root: Path, x: np.ndarray, y: np.ndarray, **options: Any) -> Path:
    schema = Schema("truth", "train", len(x), x.shape[1:], x.dtype.name, tuple("abcdefghij"), "none", "local")
    root.mkdir(parents=True)
    backend(**options).write([SampleBlock(x, y)], schema, root)
    return root


def infos_of(x: Any) -> list[Any]:
    return [x.get_chunk_info(number) for number in range(x.get_num_chunks())]


def by_hand(root: Path, **created: Any) -> tuple[Path, Truth]:
    """Write a store with h5py alone."""
    truth = Truth.make("int16", (3, 8))
    with h5py.File(root / "data.h5", "w", libver=("v110", "v110")) as file:
        file.create_dataset("x", data=truth.x, **created)
        file.create_dataset("y", data=truth.y)
    return root, truth


# What they deliver


@pytest.mark.parametrize("reader", ["library", "mapped", "naive"])
@settings(**SEVERAL)
@given(data=st.data())
def test_every_layout_delivers_what_was_written(reader: str, tmp_path_factory: Any, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40), "count")
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3), "shape"))
    dtype = data.draw(st.sampled_from(["uint8", "int16", "int64", "float32", "float64"]), "dtype")
    chunk = data.draw(st.none() | st.integers(1, 50), "chunk")
    compression = data.draw(st.sampled_from(["none", "gzip", "lzf", "zstd", "blosc"]), "compression")
    rng = np.random.default_rng(data.draw(st.integers(0, 99), "seed"))
    # Some of it is random, which compression leaves as it is.
    x = (rng.integers(0, 120, (count, *shape)) * (rng.integers(0, 3, (count, *[1] * len(shape))) > 0)).astype(dtype)
    y = rng.integers(0, 10, count)
    options = {"chunk": chunk, "compression": compression}
    opened = backend(reader, **options).open(store(tmp_path_factory.mktemp("any") / "store", x, y, **options))
    # At first without having been told of an order.
    for told, order in ((False, rng.permutation(count)), (True, rng.permutation(count)), (True, np.arange(count))):
        if told:
            opened.begin(order)
        check_batch(Truth(x, y), order, opened.__getitems__(order))
        repeated = rng.integers(0, count, 2 * count)
        check_batch(Truth(x, y), repeated, opened.__getitems__(repeated))


@pytest.mark.parametrize(
    "created",
    [
        {"chunks": (4, 3, 8), "compression": "gzip", "shuffle": True},
        {"chunks": (1, 3, 8), "compression": "gzip", "shuffle": True},
        {"chunks": (5, 3, 8), "shuffle": True},
        {"chunks": (5, 3, 8), "compression": "lzf", "shuffle": True},
        {"chunks": (5, 3, 8), "shuffle": True, "compression": ZSTD},
        {"chunks": (4, 3, 8), "compression": BLOSC},
        {"chunks": (4, 3, 8), "maxshape": (None, 3, 8)},
        {"chunks": (4, 3, 8), "maxshape": (None, None, 8), "compression": "gzip"},
    ],
)
def test_mapped_reads_what_h5py_wrote(created: dict[str, Any], tmp_path: Path) -> None:
    root, truth = by_hand(tmp_path, **created)
    indices = [22, 0, 3, 3, 11, 19]
    check_batch(truth, indices, backend(chunk=4).open(root).__getitems__(indices))


@pytest.mark.parametrize("mask", [0b01, 0b10, 0b11])
def test_mapped_heeds_the_filters_that_a_chunk_skipped(mask: int, tmp_path: Path) -> None:
    root, truth = by_hand(tmp_path, chunks=(4, 3, 8), compression="gzip", shuffle=True)
    content = truth.x[4:8].tobytes()
    if not mask & 1:
        content = b"".join(content[first::2] for first in range(2))
    if not mask & 2:
        content = zlib.compress(content)
    with h5py.File(root / "data.h5", "r+") as file:
        file["x"].id.write_direct_chunk((4, 0, 0), content, mask)
        np.testing.assert_array_equal(file["x"][()], truth.x)
    indices = [5, 8, 4, 7]
    check_batch(truth, indices, backend().open(root).__getitems__(indices))


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_chunks_that_are_not_compressed_lie_behind_each_other(chunk: int, tmp_path: Path) -> None:
    x = np.zeros((3000, 5), np.uint8)
    store(tmp_path / "store", x, np.zeros(3000, np.int64), chunk=chunk)
    with h5py.File(tmp_path / "store" / "data.h5") as file:
        infos = infos_of(file["x"].id)
    assert {info.size for info in infos} == {chunk * 5}
    assert [info.byte_offset - infos[0].byte_offset for info in infos] == [chunk * 5 * n for n in range(len(infos))]


# What they read

COUNT, SIDE = 16_384, 3_072


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, np.ndarray]]:
    """Stores of 50 MB, more than a reader keeps of what is not compressed."""
    x = np.random.default_rng(3).integers(0, 256, (COUNT, SIDE), dtype=np.uint8)
    made: dict[str, Path] = {}

    def make(name: str) -> tuple[Path, np.ndarray]:
        options = {} if name == "contiguous" else {"chunk": 64}
        if name not in made:
            made[name] = store(tmp_path_factory.mktemp("large") / name, x, np.arange(COUNT) % 10, **options)
        return made[name], x

    return make


def shuffled_in_blocks() -> np.ndarray:
    rng = np.random.default_rng(5)
    buffers = rng.permutation(COUNT // 256).reshape(-1, 16)
    return np.concatenate([rng.permutation((blocks[:, None] * 256 + np.arange(256)).ravel()) for blocks in buffers])


ORDERS = {"full": np.random.default_rng(1).permutation(COUNT), "block": shuffled_in_blocks(), "none": np.arange(COUNT)}


def test_every_epoch_of_a_block_shuffle_is_taken_for_one() -> None:
    spec = RunSpec(backend="hdf5", dataset="cifar10", shuffle="block")
    kept = 42
    for count in (20_000, 50_000, 50_176):
        held_out = np.flatnonzero(np.random.default_rng(7).random(count) > 0.2)
        for members in (None, held_out):
            orders = Order(spec, count, members)
            assert all(suits_blocks(orders.epoch(epoch), 256, count, kept) for epoch in range(40)), (count, members)
    full = Order(spec.model_copy(update={"shuffle": "full"}), 20_000)
    assert not any(suits_blocks(full.epoch(epoch), 256, 20_000, kept) for epoch in range(10))


def counted() -> tuple[int, int]:
    """Return the bytes and the calls of this process's reads so far, as the kernel counts them."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"]), int(fields["syscr"])


@pytest.mark.parametrize("layout", ["contiguous", "chunked"])
@pytest.mark.parametrize("order", ORDERS)
def test_an_epoch_reads_what_it_delivers(layout: str, order: str, large: Any) -> None:
    root, x = large(layout)
    reader, indices = backend("library").open(root), ORDERS[order]
    reader.__getitems__([0])
    for _ in range(2):
        before = counted()
        reader.begin(indices)
        for start in range(0, COUNT, 256):
            wanted = indices[start : start + 256]
            np.testing.assert_array_equal(reader.__getitems__(wanted)[0].numpy(), x[wanted])
        read_bytes, calls = (after - first for after, first in zip(counted(), before, strict=True))
        # The second epoch as well: what the first has kept is forgotten.
        assert read_bytes == pytest.approx(x.nbytes, rel=0.05)
        assert calls > 0.9 * COUNT if order == "full" else calls < 600


def test_without_an_order_a_sequential_batch_is_one_read(large: Any) -> None:
    root, x = large("contiguous")
    reader = backend("library").open(root)
    reader.__getitems__([0])
    before = counted()[1]
    check_batch(Truth(x, np.arange(COUNT) % 10), range(512, 768), reader.__getitems__(range(512, 768)))
    assert counted()[1] - before <= 3


@pytest.mark.parametrize("reader", ["library", "mapped", "naive"])
def test_memory_is_bounded_where_the_store_is_larger_than_what_is_kept(reader: str, tmp_path: Path) -> None:
    x = np.zeros((128, 1 << 20), np.uint8)
    x[:, ::4096] = np.arange(128)[:, None]
    root = store(tmp_path / "store", x, np.zeros(128, np.int64), chunk=2, compression="lzf")
    opened = backend(reader, chunk=2, compression="lzf").open(root)
    opened.__getitems__([0])
    before = anonymous_bytes()
    for index in np.random.default_rng(2).permutation(128):
        batch, _ = opened.__getitems__([index])
        np.testing.assert_array_equal(batch[0], x[index])
    assert anonymous_bytes() - before < 80 << 20


def anonymous_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10


# What is refused


def refused(root: Path, problem: str, *readers: str) -> None:
    for reader in readers or ("mapped", "library", "naive"):
        with pytest.raises(BackendError, match=problem) as error:
            backend(reader).open(root)
        assert "\n" not in str(error.value)
        assert str(root / "data.h5") in str(error.value)


@pytest.mark.parametrize(
    ("created", "problem"),
    [
        ({"dtype": ">i2"}, "byte order"),
        ({"dtype": np.dtype([("a", "i2"), ("b", "i2")])}, "not a plain number"),
        ({"chunks": (4, 3, 4)}, r"chunks of shape \(4, 3, 4\) cut samples of shape \(3, 8\)"),
        ({"shape": (22, 3, 8)}, "labels are int64"),
        ({}, "never written"),
        ({"chunks": (4, 3, 8)}, "6 of the 6 chunks of x are missing"),
        ({"external": [("elsewhere.bin", 0, h5py.h5f.UNLIMITED)]}, "does not lie in this file"),
    ],
)
def test_a_file_of_another_make_is_refused(created: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("x", **{"shape": (23, 3, 8), "dtype": "int16", **created})
        file["y"] = np.zeros(23, np.int64)
    refused(tmp_path, problem)


def test_what_is_no_array_of_this_file_is_refused(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout((23, 3), "f8")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "there", (23, 3))
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["y"] = np.zeros(23, np.int64)
        file.create_virtual_dataset("x", layout)
    refused(tmp_path, "does not lie in this file")
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        del file["x"]
        file.create_group("x")
    refused(tmp_path, "x is not an array")
    with h5py.File(tmp_path / "data.h5", "w", userblock_size=512) as file:
        file["x"], file["y"] = np.zeros((23, 3)), np.zeros(23, np.int64)
    refused(tmp_path, "user block of 512 bytes")


def test_one_missing_chunk_is_an_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        x = file.create_dataset("x", (23, 3), "f8", chunks=(4, 3))
        x[:12] = x[16:] = 1
        file["y"] = np.zeros(23, np.int64)
    refused(tmp_path, "1 of the 6 chunks of x are missing")


def test_a_filter_that_mapped_does_not_know_is_named(tmp_path: Path) -> None:
    root, truth = by_hand(tmp_path, chunks=(4, 3, 8), fletcher32=True)
    refused(root, "HDF5 filter 3. Use reader=library", "mapped")
    check_batch(truth, [9, 2], backend("library").open(root).__getitems__([9, 2]))


@pytest.mark.parametrize("options", [{}, {"chunk": 1}, {"chunk": 5, "compression": "zstd"}])
def test_a_truncated_file_is_an_error_when_it_is_opened(options: dict[str, Any], tmp_path: Path) -> None:
    truth = Truth.make()
    path = store(tmp_path / "store", truth.x, truth.y, **options) / "data.h5"
    for size in range(path.stat().st_size - 1, 0, -500):
        os.truncate(path, size)
        refused(path.parent, r"data\.h5: .+")


@pytest.mark.parametrize("options", [{}, {"chunk": 1}, {"chunk": 5, "compression": "gzip"}])
def test_no_changed_byte_of_the_metadata_leads_mapped_astray(options: dict[str, Any], tmp_path: Path) -> None:
    truth = Truth.make()
    path = store(tmp_path / "store", truth.x, truth.y, **options) / "data.h5"
    sound = path.read_bytes()
    with h5py.File(path) as file:
        x = file["x"].id
        stored = [x.get_offset()] if x.get_offset() else [info.byte_offset for info in infos_of(x)]
    for position in range(0, min(stored), 5):
        path.write_bytes(sound[:position] + bytes([sound[position] ^ 0xFF]) + sound[position + 1 :])
        # It is noticed, or of no consequence.
        with contextlib.suppress(BackendError):
            reader = backend(**options).open(path.parent)
            np.testing.assert_array_equal(reader.__getitems__(range(23))[0].numpy(), truth.x)


@pytest.mark.parametrize("filtered", [{"compression": "gzip"}, {"compression": ZSTD}, {"compression": BLOSC}], ids=str)
@pytest.mark.parametrize("spoil", ["half", "no end", "one byte", "another's size", "garbage"])
def test_a_spoilt_chunk_is_an_error(filtered: dict[str, Any], spoil: str, tmp_path: Path) -> None:
    root, truth = by_hand(tmp_path, chunks=(4, 3, 8), **filtered)
    (tmp_path / "other").mkdir()
    with h5py.File(tmp_path / "other" / "data.h5", "w") as file:
        file.create_dataset("x", data=truth.x, chunks=(2, 3, 8), **filtered)
        smaller = file["x"].id.read_direct_chunk((0, 0, 0))[1]
    with h5py.File(root / "data.h5", "r+") as file:
        x = file["x"].id
        content = x.read_direct_chunk((4, 0, 0))[1]
        spoilt = {
            "half": content[: len(content) // 2],
            "no end": content[:-2],
            "one byte": content[:1],
            "another's size": smaller,
            "garbage": b"\x5a" * len(content),
        }
        x.write_direct_chunk((4, 0, 0), spoilt[spoil])
    reader = backend().open(root)
    check_batch(truth, [0, 22], reader.__getitems__([0, 22]))
    with pytest.raises(BackendError, match=r"data\.h5: chunk 1: "):
        reader.__getitems__([0, 5])


def test_an_unfiltered_chunk_of_another_size_is_an_error_when_it_is_opened(tmp_path: Path) -> None:
    root, _ = by_hand(tmp_path, chunks=(4, 3, 8), compression="gzip")
    with h5py.File(root / "data.h5", "r+") as file:
        file["x"].id.write_direct_chunk((8, 0, 0), b"\0" * 191, 1)
    refused(root, "the chunk of samples 8 to 11 has not the size of its samples", "mapped")


def test_offsets_that_were_changed_are_noticed_where_the_index_has_no_checksum(tmp_path: Path) -> None:
    truth = Truth.make("int16", (3, 8))
    with h5py.File(tmp_path / "data.h5", "w", libver=("earliest", "v108")) as file:
        file.create_dataset("x", data=truth.x, chunks=(4, 3, 8))
        file["y"] = truth.y
    path = tmp_path / "data.h5"
    with h5py.File(path) as file:
        offsets = [info.byte_offset for info in infos_of(file["x"].id)]
    check_batch(truth, [7, 2], backend().open(tmp_path).__getitems__([7, 2]))
    sound = path.read_bytes()
    assert sound.count(offsets[1].to_bytes(8, "little")) == 1
    for changed, problem in (
        (len(sound) - 100, "the chunk of samples 4 to 7 reaches past the end of the file"),
        (offsets[0] + 8, "the chunk of samples 4 to 7 begins inside of another one"),
        (offsets[0] - 8, "the chunk of samples 0 to 3 begins inside of another one"),
    ):
        path.write_bytes(sound.replace(offsets[1].to_bytes(8, "little"), changed.to_bytes(8, "little")))
        refused(tmp_path, problem, "mapped")


def test_chunks_are_found_as_well_where_hdf5_cannot_iterate_over_them(tmp_path: Path) -> None:
    root, _ = by_hand(tmp_path, chunks=(4, 3, 8), compression="gzip")
    with h5py.File(root / "data.h5") as file:
        x, old = file["x"], SimpleNamespace(get_num_chunks=file["x"].id.get_num_chunks)
        old.get_chunk_info = x.id.get_chunk_info
        layout = read_layout(root / "data.h5", file)
        for found, expected in zip(find_chunks(layout, SimpleNamespace(id=old)), find_chunks(layout, x), strict=True):
            np.testing.assert_array_equal(found, expected)
