"""The mapped reader of Zarr against arrays that zarr-python wrote, shards laid out by hand, and files that lie."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from conformance import COUNT, Store, Truth, check_batch
from google_crc32c import value as crc32c

from bench.contracts.backend import BackendError
from bench.contracts.source import SampleBlock, Schema
from bench.loaders import rows
from bench.loaders.zarr_ import ZarrBackend, ZarrOptions
from bench.loaders.zarr_layout import find_chunks, read_layout

MISSING = 2**64 - 1


def mapped(**options: Any) -> ZarrBackend:
    return ZarrBackend(ZarrOptions(reader="mapped", **options))


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    meta = json.loads(path.read_text())
    edit(meta)
    path.write_text(json.dumps(meta))


# What zarr-python writes under other options than this package's.


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64", "bool"])
@pytest.mark.parametrize(
    "given",
    [
        {"chunks": (4, 3, 5), "chunk_key_encoding": {"name": "default", "separator": "/"}},
        {"chunks": (4, 3, 5), "chunk_key_encoding": {"name": "v2", "separator": "."}},
        {"chunks": (30, 3, 5), "compressors": zarr.codecs.ZstdCodec(level=1, checksum=True)},
        {"chunks": (3, 3, 5), "compressors": zarr.codecs.BloscCodec(cname="zstd", shuffle="bitshuffle")},
    ],
    ids=["slashes", "v2-keys", "zstd-checksum", "blosc-zstd"],
)
def test_reads_what_zarr_python_writes(dtype: str, given: dict[str, Any], tmp_path: Path) -> None:
    x = np.random.default_rng(1).integers(0, 200, (COUNT, 3, 5)).astype(dtype)
    compressors = given.get("compressors")
    write_with_zarr(tmp_path, x, **{**given, "compressors": compressors})
    np.testing.assert_array_equal(mapped().open(tmp_path).__getitems__([22, 0, 9, 9])[0].numpy(), x[[22, 0, 9, 9]])


@pytest.mark.parametrize(("name", "separator"), [("default", "/"), ("v2", ".")])
def test_chunk_keys_have_the_separators_of_the_specification(name: str, separator: str, tmp_path: Path) -> None:
    x = np.arange(COUNT * 6).reshape(COUNT, 6)
    encoding = {"name": name, "separator": separator}
    write_with_zarr(tmp_path, x, chunks=(4, 6), compressors=None, chunk_key_encoding=encoding)
    for written in ({"name": name}, name):
        change(tmp_path / "x" / "zarr.json", set_in("chunk_key_encoding", written))
        np.testing.assert_array_equal(mapped().open(tmp_path).__getitems__([22, 3])[0], x[[22, 3]])


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_reads_shards_with_their_index_at_either_end(location: str, checked: bool, codec: str, tmp_path: Path) -> None:
    x = np.random.default_rng(2).integers(0, 9, (COUNT, 3, 5)).astype(np.int32)
    bytes_codec = zarr.codecs.BytesCodec()
    sharding = zarr.codecs.ShardingCodec(
        chunk_shape=(2, 3, 5),
        codecs=[bytes_codec] if codec == "none" else [bytes_codec, zarr.codecs.ZstdCodec(level=1)],
        index_codecs=[bytes_codec, zarr.codecs.Crc32cCodec()] if checked else [bytes_codec],
        index_location=location,
    )
    write_with_zarr(tmp_path, x, chunks=(8, 3, 5), serializer=sharding, compressors=None)
    np.testing.assert_array_equal(mapped().open(tmp_path).__getitems__(range(COUNT))[0].numpy(), x)


def test_a_chunk_that_begins_within_the_index_is_an_error(tmp_path: Path) -> None:
    x = np.random.default_rng(2).integers(0, 9, (COUNT, 3, 5)).astype(np.int32)
    sharding = zarr.codecs.ShardingCodec(
        chunk_shape=(2, 3, 5), index_codecs=[zarr.codecs.BytesCodec()], index_location="start"
    )
    write_with_zarr(tmp_path, x, chunks=(8, 3, 5), serializer=sharding, compressors=None)
    path = tmp_path / "x" / "c" / "1" / "0" / "0"
    content = path.read_bytes()
    for offset in (0, 63):
        path.write_bytes(offset.to_bytes(8, "little") + content[8:])
        with pytest.raises(BackendError, match="chunk 0 lies outside"):
            mapped().open(tmp_path)


def test_reads_arrays_that_zarr_python_wrote_in_pieces_and_in_any_order(tmp_path: Path) -> None:
    x = np.random.default_rng(3).integers(0, 255, (COUNT, 3, 5)).astype(np.uint8)
    write_with_zarr(tmp_path, x * 0, chunks=(2, 3, 5), shards=(8, 3, 5), compressors=None)
    array = zarr.open_array(tmp_path / "x", mode="r+", config={"write_empty_chunks": True})
    for begin in (20, 3, 13, 0, 8, 17, 5, 11):
        array[begin : begin + 3] = x[begin : begin + 3]
    np.testing.assert_array_equal(mapped().open(tmp_path).__getitems__(range(COUNT))[0].numpy(), array[:])


def write_with_zarr(root: Path, x: np.ndarray, **given: Any) -> None:
    group = zarr.create_group(root, zarr_format=3)
    config = {"write_empty_chunks": True}
    group.create_array("x", shape=x.shape, dtype=x.dtype, config=config, **given)[:] = x
    group.create_array("y", data=np.arange(len(x), dtype=np.int64), compressors=None, config=config)


# Shards laid out by hand: inner chunks in any order, with gaps between them.


@pytest.fixture
def shard(tmp_path: Path) -> tuple[Path, Truth]:
    """Return a shard of 12 chunks of 2 samples, and 4 behind the last sample that are missing, and what is in it."""
    store = Store.write(mapped(chunk=2, shard=32), tmp_path / "store")
    return store.root / "x" / "c.0.0.0.0", store.truth


def lay_out(path: Path, order: list[int], gap: int = 0) -> None:
    """Write the chunks of a shard again in ``order``, with gaps before each."""
    content = path.read_bytes()
    index = np.frombuffer(content[-(16 * 16 + 4) : -4], "<u8").reshape(-1, 2).copy()
    moved = b""
    for chunk in order:
        begin, size = map(int, index[chunk])
        moved += bytes(gap)
        index[chunk] = len(moved), size
        moved += content[begin : begin + size]
    path.write_bytes(moved + index.tobytes() + crc32c(index.tobytes()).to_bytes(4, "little"))


@pytest.mark.parametrize("gap", [0, 7])
def test_chunks_may_lie_anywhere_in_a_shard(shard: tuple[Path, Truth], gap: int) -> None:
    path, truth = shard
    lay_out(path, np.random.default_rng(4).permutation(12).tolist(), gap)
    indices = [22, 0, 3, 3, 13, 1, 9]
    for reader in ("library", "mapped"):
        check_batch(truth, indices, ZarrBackend(ZarrOptions(reader=reader)).open(path.parents[1]).__getitems__(indices))


def rewrite_entry(path: Path, chunk: int, offset: int, size: int) -> None:
    """Change where the index says that a chunk lies; its checksum is right."""
    content = bytearray(path.read_bytes())
    index = np.frombuffer(content[-(16 * 16 + 4) : -4], "<u8").reshape(-1, 2).copy()
    index[chunk] = offset, size
    content[-(16 * 16 + 4) :] = index.tobytes() + crc32c(index.tobytes()).to_bytes(4, "little")
    path.write_bytes(content)


CHUNK_BYTES = 2 * 3 * 8 * 8
DATA_BYTES = 12 * CHUNK_BYTES


@pytest.mark.parametrize(
    ("offset", "size", "said"),
    [
        (MISSING, MISSING, "chunk 5 of this shard is missing"),
        (DATA_BYTES - CHUNK_BYTES + 1, CHUNK_BYTES, "outside"),
        (DATA_BYTES, 0, "0 bytes, where a chunk has"),
        (2**64 - CHUNK_BYTES, CHUNK_BYTES, "outside"),
        (0, 2**64 - 8, "outside"),
        (2**63, CHUNK_BYTES, "outside"),
        (CHUNK_BYTES, 2**64 - 8, "outside"),
        (0, CHUNK_BYTES - 1, f"where a chunk has {CHUNK_BYTES}"),
    ],
)
def test_an_index_that_points_astray_is_an_error(shard: tuple[Path, Truth], offset: int, size: int, said: str) -> None:
    path, _ = shard
    rewrite_entry(path, 5, offset, size)
    with pytest.raises(BackendError, match=said) as raised:
        mapped().open(path.parents[1])
    assert str(path) in str(raised.value)


def test_a_wrong_checksum_of_an_index_is_an_error(shard: tuple[Path, Truth]) -> None:
    path, _ = shard
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BackendError, match="checksum"):
        mapped().open(path.parents[1])


# Damage is found when the store is opened.


@pytest.mark.parametrize("options", [{"chunk": 4}, {"chunk": 2, "shard": 8}, {"chunk": 4, "codec": "zstd"}], ids=str)
@pytest.mark.parametrize("name", ["x/c.1.0.0.0", "y/c.0"])
@pytest.mark.parametrize("kept", [None, 0, 0.5])
def test_a_file_that_is_missing_or_cut_short_is_an_error(
    options: dict[str, Any], name: str, kept: float | None, tmp_path: Path
) -> None:
    store = Store.write(mapped(**options), tmp_path / "store")
    path = store.root / name
    if kept is None:
        path.unlink()
    else:
        os.truncate(path, int(kept * path.stat().st_size))
    with pytest.raises(BackendError) as raised:
        store.open().__getitems__([5])
    assert str(path) in str(raised.value)
    if kept == 0.5 and "codec" in options and name.startswith("x"):
        return
    with pytest.raises(BackendError):
        store.open()


def set_in(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    *parents, last = path.split(".")

    def edit(meta: Any) -> None:
        for parent in parents:
            meta = meta[int(parent) if parent.isdigit() else parent]
        meta[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (set_in("shape", [24, 3, 8, 8]), "labels are"),
        (set_in("shape", [-1, 3, 8, 8]), "sizes"),
        (set_in("shape", [23, 3, 8, 9]), "whole samples"),
        (set_in("zarr_format", 2), "zarr_format 2"),
        (set_in("node_type", "group"), "node_type group"),
        (set_in("data_type", "int64"), "endian None"),
        (set_in("data_type", "r16"), "data_type r16"),
        (set_in("data_type", {"name": "numpy.datetime64"}), "numpy.datetime64"),
        (set_in("chunk_grid.name", "rectilinear"), "chunk_grid rectilinear"),
        (set_in("chunk_grid.configuration.chunk_shape", [4, 3, 8, 4]), "whole samples"),
        (set_in("chunk_grid.configuration.chunk_shape", [0, 3, 8, 8]), "sizes"),
        (set_in("chunk_grid.configuration.chunk_shape", [5, 3, 8, 8]), "where a chunk has"),
        (set_in("chunk_key_encoding.name", "suffix"), "chunk_key_encoding suffix"),
        (set_in("chunk_key_encoding.configuration.separator", "/"), "c/0/0/0/0"),
        (set_in("codecs", []), "codecs none"),
        (set_in("codecs", [{"name": "transpose"}, {"name": "bytes"}]), "codecs transpose bytes"),
        (set_in("codecs", [{"name": "bytes"}, {"name": "gzip"}]), "codecs bytes gzip"),
        (set_in("codecs", "bytes"), "not the metadata"),
        (set_in("storage_transformers", [{"name": "other"}]), "storage_transformers"),
        (set_in("new_field", {"name": "other"}), "new_field"),
        (lambda meta: meta.pop("fill_value"), "no fill_value"),
        (lambda meta: meta["chunk_grid"].pop("configuration"), "chunk_shape"),
    ],
)
def test_metadata_that_is_wrong_or_not_understood_is_an_error(
    edit: Callable[[dict[str, Any]], Any], said: str, tmp_path: Path
) -> None:
    store = Store.write(mapped(chunk=4), tmp_path / "store")
    change(store.root / "x" / "zarr.json", edit)
    with pytest.raises(BackendError, match=said):
        store.open()


def test_labels_and_samples_that_claim_more_than_there_is_are_an_error(tmp_path: Path) -> None:
    store = Store.write(mapped(chunk=4), tmp_path / "store")
    for count in (25, 1 << 46):
        change(store.root / "x" / "zarr.json", set_in("shape", [count, 3, 8, 8]))
        change(store.root / "y" / "zarr.json", set_in("shape", [count]))
        with pytest.raises(BackendError, match=r"c\.[16]\b"):
            store.open()


def test_big_endian_samples_are_left_to_zarr_python(tmp_path: Path) -> None:
    x = np.arange(COUNT * 6).reshape(COUNT, 6)
    big = zarr.codecs.BytesCodec(endian="big")
    write_with_zarr(tmp_path, x, chunks=(4, 6), serializer=big, compressors=None)
    with pytest.raises(BackendError, match=r"endian big.*reader=library"):
        mapped().open(tmp_path)
    np.testing.assert_array_equal(ZarrBackend(ZarrOptions()).open(tmp_path).__getitems__([22, 3])[0], x[[22, 3]])


def test_an_unknown_field_that_need_not_be_understood_is_passed_over(tmp_path: Path) -> None:
    store = Store.write(mapped(chunk=4), tmp_path / "store")
    change(store.root / "x" / "zarr.json", set_in("new_field", {"must_understand": False}))
    store.check([5], store.open().__getitems__([5]))


def test_a_layout_says_where_each_chunk_lies(tmp_path: Path) -> None:
    store = Store.write(mapped(chunk=2, shard=8), tmp_path / "store")
    chunks = find_chunks(read_layout(store.root / "x"))
    assert [path.name for path in chunks.files] == ["c.0.0.0.0", "c.1.0.0.0", "c.2.0.0.0"]
    for chunk in range(12):
        content = chunks.files[chunks.file_of[chunk]].read_bytes()[chunks.offsets[chunk] :][: chunks.sizes[chunk]]
        wanted = store.truth.x[2 * chunk : 2 * chunk + 2].tobytes()
        assert content[: len(wanted)] == wanted


def test_many_small_files_are_mapped_closely_and_too_many_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.write(mapped(chunk=1), tmp_path / "store")
    # As many mappings as files, which leaves none for gaps between them; and one less.
    monkeypatch.setattr(rows, "_allowed", lambda: COUNT)
    store.check([22, 0, 3, 3], store.open().__getitems__([22, 0, 3, 3]))
    monkeypatch.setattr(rows, "_allowed", lambda: COUNT - 1)
    with pytest.raises(BackendError, match=r"23 files take 23 mappings.*reader=library"):
        store.open().__getitems__([0])


# The library reader


def test_where_torch_has_one_thread_zarr_gets_one_too(tmp_path: Path) -> None:
    x = np.arange(64 * 12, dtype=np.uint8).reshape(64, 1, 3, 4)
    schema = Schema(
        name="few",
        split="train",
        count=64,
        shape=(1, 3, 4),
        dtype="uint8",
        classes=("a",),
        licence="none",
        origin="local",
    )
    ZarrBackend(ZarrOptions(chunk=2, shard=8, codec="zstd")).write(
        [SampleBlock(x, np.zeros(64, np.int64))], schema, tmp_path
    )
    script = (
        "import sys, threading, torch\n"
        "from pathlib import Path\n"
        "from bench.loaders.zarr_ import ZarrBackend, ZarrOptions\n"
        "torch.set_num_threads(int(sys.argv[2]))\n"
        "options = ZarrOptions(chunk=2, shard=8, codec='zstd')\n"
        "ZarrBackend(options).open(Path(sys.argv[1])).__getitems__(list(range(0, 64, 3)))\n"
        "print(sum(thread.name.startswith(('zarr_pool', 'asyncio_')) for thread in threading.enumerate()))\n"
    )
    asked = [sys.executable, "-c", script, str(tmp_path)]
    counts = [int(subprocess.run([*asked, n], capture_output=True, text=True, check=True).stdout) for n in ("1", "2")]
    assert counts[0] == 1 < counts[1]
