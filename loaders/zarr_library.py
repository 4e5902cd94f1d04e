"""The readers of Zarr that go through zarr-python: its best use for whole batches, and the one with its defaults."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.contracts.reader import Indices, NaiveReader, PerProcess

from .chunks import KeptChunks
from .frames import decoder
from .mapped import MappedReader, Opened, RowSource
from .store import damaged, gather

if TYPE_CHECKING:
    import zarr

    from .zarr_store import CheckedStore, CompleteStore

# A whole batch of chunks at a time through the pipeline: by default each chunk is a task of its own.
_PIPELINE_BATCH = 256


class _Handle(NamedTuple):
    x: zarr.Array[Any]
    y: NDArray[np.int64]


class LibraryReader(MappedReader):
    """Whole batches through zarr-python's public API.

    Finding and decoding a chunk takes zarr's arrays about 0.1 ms, most of it asyncio's tasks. So zarr opens and checks
    the arrays, names the files of their chunks (``metadata.encode_chunk_key``) and reads them, each once per batch,
    through the synchronous interface of its store (``zarr.abc.store.SupportsGetSync``); numcodecs, of which zarr's own
    codecs are made, decodes them; and the last chunks used are kept. No more is read than the chunks that are touched.
    What is not encoded is read by the store straight to where it is kept.
    Shards, and codecs other than zstd and blosc, are left to ``Array.oindex``, one sorted selection per batch.
    """

    def __init__(self, root: Path) -> None:
        x = _open_tuned(root)[1].x
        super().__init__(x.shape[0], x.shape[1:], x.dtype, partial(_open_rows, root), gathers=False)


class OneByOneReader(NaiveReader):
    """One sample at a time, ``array[index]``, with zarr's defaults: its store, its pipeline, its threads."""

    def __init__(self, root: Path, *, blosc: bool) -> None:
        opener = partial(_open_plain, root, blosc=blosc)
        x = opener().x
        super().__init__(x.shape[0], x.shape[1:], x.dtype)
        self._root = root
        self._handle = PerProcess(opener)

    def make_ready(self) -> None:
        """See Reader.make_ready."""
        self._handle()

    def read_one(self, index: int) -> tuple[NDArray[Any], int]:
        """See NaiveReader.read_one."""
        handle = self._handle()
        with _reading(self._root):
            sample = np.asarray(handle.x[index])
        return sample, int(handle.y[index])


class _Selections:
    """Rows of an array by one selection for each batch."""

    def __init__(self, root: Path, x: zarr.Array[Any]) -> None:
        self._root = root
        self._x = x

    def begin(self) -> None:
        """See RowSource.begin."""

    def gather(self, indices: Indices, x: NDArray[Any]) -> None:
        """See RowSource.gather."""
        # Sorted and without repeats: some versions of zarr return wrong rows of shards otherwise.
        unique, inverse = np.unique(indices, return_inverse=True)
        if not len(unique):
            return
        with _reading(self._root):
            rows = np.asarray(self._x.oindex[unique])
        gather(rows, inverse, x)


@contextmanager
def _reading(root: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise damaged(root, error) from error


def _open_rows(root: Path) -> Opened:
    store, handle = _open_tuned(root)
    codec = _codec_of(handle.x)
    rows: RowSource = _Selections(root, handle.x) if codec is None else _kept_chunks(store, handle.x, codec)
    return Opened(rows, handle.y)


def _open_tuned(root: Path) -> tuple[CompleteStore, _Handle]:
    import torch
    import zarr

    from .zarr_store import CompleteStore

    settings: dict[str, Any] = {"codec_pipeline.batch_size": _PIPELINE_BATCH}
    if torch.get_num_threads() == 1:
        # As in worker processes: with threads of zarr's in each, they would only compete.
        settings["threading.max_workers"] = 1
    # Zarr makes its threads when it first needs one, and both settings take effect while the arrays are opened.
    with zarr.config.set(settings):
        store = CompleteStore(root, read_only=True)
        return store, _open(root, store)


def _open_plain(root: Path, *, blosc: bool) -> _Handle:
    from .zarr_store import BloscStore, CheckedStore

    return _open(root, (BloscStore if blosc else CheckedStore)(root, read_only=True))


def _open(root: Path, store: CheckedStore) -> _Handle:
    import zarr

    with _reading(root):
        group = zarr.open_group(store, mode="r", zarr_format=3)
        x, y = group["x"], group["y"]
        if not isinstance(x, zarr.Array) or not isinstance(y, zarr.Array):
            raise damaged(root, "x and y are not both arrays")
        if y.shape != x.shape[:1] or y.dtype != np.int64:
            raise damaged(root, f"labels are {y.dtype} {y.shape} for samples of shape {x.shape}")
        return _Handle(x, np.asarray(y[:]))


def _codec_of(x: zarr.Array[Any]) -> str | None:
    """Return none, zstd or blosc where each chunk file of the array holds whole samples so encoded, else None."""
    from zarr.codecs import BloscCodec, BytesCodec, Endian, ZstdCodec

    if x.shards is not None or x.chunks[1:] != x.shape[1:] or x.filters:
        return None
    if not isinstance(x.serializer, BytesCodec) or x.serializer.endian is Endian.big:
        return None
    names = {(): "none", (ZstdCodec,): "zstd", (BloscCodec,): "blosc"}
    return names.get(tuple(map(type, x.compressors)))


def _kept_chunks(store: CompleteStore, x: zarr.Array[Any], codec: str) -> KeptChunks:
    from zarr.buffer import default_buffer_prototype

    prototype, decode = default_buffer_prototype(), decoder(codec)
    key_of, others = x.metadata.encode_chunk_key, (0,) * (x.ndim - 1)

    def decode_value(key: str, out: NDArray[np.uint8]) -> None:
        content = store.get_sync(key, prototype=prototype)
        if content is None:
            raise damaged(store.root / key, "this chunk is missing")
        decode(content.as_numpy_array(), out)

    read = store.read_into if codec == "none" else decode_value

    def decode_chunk(chunk: int, out: NDArray[np.uint8]) -> None:
        key = f"{x.path}/{key_of((chunk, *others))}"
        try:
            read(key, out)
        except (OSError, ValueError, RuntimeError) as error:
            raise damaged(store.root / key, error) from error

    sample_bytes = math.prod(x.shape[1:]) * x.dtype.itemsize
    chunks, rows = -(-x.shape[0] // x.chunks[0]), x.chunks[0]
    return KeptChunks(decode_chunk, chunks, rows, sample_bytes, side_by_side=codec != "none")
