"""One HDF5 file with the data sets ``x`` and ``y``, contiguous or chunked, read through h5py."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from bench.contracts.backend import Backend, BackendError, require_empty
from bench.contracts.options import Options
from bench.contracts.reader import BatchReader, Indices, NaiveReader, PerProcess, Reader
from bench.contracts.source import SampleBlock, Schema, reblocked

from .store import checked_blocks, damaged, gather

if TYPE_CHECKING:
    import h5py
    import torch

_FILE = "data.h5"
_WRITE_BYTES = 4 << 20
_CACHED_CHUNKS = 16
_CACHE_BYTES = 16 << 20
# From here on the fresh array that h5py returns for each sample costs more than its slower read into a buffer.
_LARGE_SAMPLE_BYTES = 32 << 10
# The default of HDF5 2; older versions keep 1 MiB, and results should not depend on that.
_NAIVE_CACHE: dict[str, Any] = {"rdcc_nbytes": 8 << 20, "rdcc_nslots": 8191}


class Hdf5Options(Options):
    """Options of the HDF5 backend."""

    layout: Literal["contiguous", "chunked"] = Field(
        "contiguous", description="contiguous: one block, no compression; chunk or compression imply chunked"
    )
    chunk: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="samples per chunk; 1 if not given, as a shuffled epoch decodes a whole chunk for each sample",
    )
    compression: Literal["none", "lzf", "gzip", "zstd", "blosc"] = Field(
        "none", description="gzip at level 4; zstd (level 3) and blosc (LZ4, shuffled bytes) need the hdf5plugin extra"
    )
    reader: Literal["library", "naive"] = Field(
        "library", description="library: whole batches, sorted; naive: h5py defaults, one sample at a time"
    )

    @model_validator(mode="before")
    @classmethod
    def _imply_chunked(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        chunked = [
            name for name, absent in (("chunk", None), ("compression", "none")) if given.get(name, absent) != absent
        ]
        if not chunked:
            return given
        if given.get("layout") == "contiguous":
            raise ValueError(f"layout=contiguous cannot be combined with {' or '.join(chunked)}; use layout=chunked")
        return {**given, "layout": "chunked"}


class Hdf5Backend(Backend[Hdf5Options]):
    """``data.h5``; every process opens it anew, as handles that cross a fork return wrong data."""

    name: ClassVar[str] = "hdf5"
    options_type: ClassVar[type[Options]] = Hdf5Options

    def resolved(self, schema: Schema) -> Options:
        """See Backend.resolved."""
        return self.options.model_copy(update={"chunk": self._chunk(schema)})

    def _chunk(self, schema: Schema) -> int | None:
        if self.options.layout == "contiguous":
            return None
        return min(self.options.chunk or 1, max(schema.count, 1))

    def write(self, samples: Iterable[SampleBlock], schema: Schema, root: Path) -> None:
        """See Backend.write."""
        import h5py

        require_empty(root)
        chunk = self._chunk(schema)
        create = {"chunks": chunk and (chunk, *schema.shape), **_compression(self.options.compression)}
        step = chunk or 1
        step *= max(1, _WRITE_BYTES // (step * schema.sample_bytes))
        # The file format is pinned: what h5py takes by default depends on its version.
        with h5py.File(root / _FILE, "w", libver=("v110", "v110")) as file:
            x = file.create_dataset("x", (schema.count, *schema.shape), schema.dtype, fill_time="never", **create)
            y = file.create_dataset("y", (schema.count,), np.int64)
            done = 0
            for block in reblocked(checked_blocks(samples, schema), step):
                x[done : done + len(block.y)] = block.x
                y[done : done + len(block.y)] = block.y
                done += len(block.y)

    def open(self, root: Path) -> BatchReader:
        """See Backend.open."""
        path = root / _FILE
        _compression(self.options.compression)
        with _reading(path):
            import h5py

            with h5py.File(path, "r") as file:
                meta = _inspect(path, self.options.compression, file["x"], file["y"])
        return (_Naive if self.options.reader == "naive" else _Library)(meta)


def _compression(name: str) -> dict[str, Any]:
    """Return the keywords of h5py for a filter; loads the plug-in that reading needs as well."""
    if name in ("zstd", "blosc"):
        try:
            import hdf5plugin
        except ImportError as error:
            raise BackendError(f"compression={name} of hdf5 needs hdf5plugin: pip install hdf5plugin") from error
        if name == "zstd":
            return {"compression": hdf5plugin.Zstd(clevel=3)}
        return {"compression": hdf5plugin.Blosc(cname="lz4", clevel=5, shuffle=hdf5plugin.Blosc.SHUFFLE)}
    if name == "gzip":
        return {"compression": "gzip", "compression_opts": 4}
    return {} if name == "none" else {"compression": name}


class _Meta(NamedTuple):
    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    compression: str
    chunked: bool
    cache_bytes: int


def _inspect(path: Path, compression: str, x: h5py.Dataset, y: h5py.Dataset) -> _Meta:
    if y.shape != x.shape[:1] or y.dtype != np.int64:
        raise damaged(path, f"labels are {y.dtype} {y.shape} for samples of shape {x.shape}")
    # A chunk is cached only where it must be decoded: without a cache HDF5 reads just the rows asked for.
    filtered = x.chunks is not None and x.id.get_create_plist().get_nfilters() > 0
    chunk_bytes = int(np.prod(x.chunks, dtype=np.int64)) * x.dtype.itemsize if filtered else 0
    cache_bytes = max(chunk_bytes, min(_CACHED_CHUNKS * chunk_bytes, _CACHE_BYTES))
    return _Meta(path, x.shape, x.dtype, compression, x.chunks is not None, cache_bytes)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise damaged(path, error) from error


class _Handle(NamedTuple):
    file: h5py.File
    x: h5py.Dataset
    y: NDArray[np.int64]


def _open_tuned(meta: _Meta) -> _Handle:
    import h5py
    from h5py import h5f, h5p

    _compression(meta.compression)
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_cache(0, 1009, meta.cache_bytes, 1.0)
    # HDF5 would read 64 KiB for every smaller piece of a contiguous data set: three times slower when shuffled.
    access.set_sieve_buf_size(0)
    with _reading(meta.path):
        file = h5py.File(h5f.open(os.fsencode(meta.path), h5f.ACC_RDONLY, fapl=access))
        return _Handle(file, file["x"], file["y"][()])


def _open_plain(meta: _Meta) -> _Handle:
    import h5py

    _compression(meta.compression)
    with _reading(meta.path):
        file = h5py.File(meta.path, "r", **_NAIVE_CACHE)
        return _Handle(file, file["x"], file["y"][()])


class _Library(Reader):
    def __init__(self, meta: _Meta) -> None:
        super().__init__(meta.shape[0], meta.shape[1:], meta.dtype)
        self._meta = meta
        self._handle = PerProcess(partial(_open_tuned, meta))
        self._large = int(np.prod(self.shape, dtype=np.int64)) * meta.dtype.itemsize >= _LARGE_SAMPLE_BYTES

    def read_into(self, indices: Indices, x: torch.Tensor, y: torch.Tensor) -> None:
        handle = self._handle()
        y.numpy()[:] = handle.y[indices]
        with _reading(self._meta.path):
            if self._large:
                _read_in_place(handle.x, indices, x.numpy())
            elif self._meta.chunked:
                _read_rows(handle.x, indices, x.numpy())
            else:
                _read_at_once(handle.x, indices, x.numpy())


def _read_at_once(data: h5py.Dataset, indices: Indices, x: NDArray[Any]) -> None:
    """One selection of all rows: fastest where samples are small and contiguous."""
    unique, inverse = np.unique(indices, return_inverse=True)
    if len(unique):
        gather(data[unique], inverse, x)


def _read_rows(data: h5py.Dataset, indices: Indices, x: NDArray[Any]) -> None:
    """Row by row, as a selection of several rows is 40 times slower on chunks; sorted, so that each decodes once."""
    order = np.argsort(indices, kind="stable")
    for row, index in zip(order.tolist(), indices[order].tolist(), strict=True):
        x[row] = data[index]


def _read_in_place(data: h5py.Dataset, indices: Indices, x: NDArray[Any]) -> None:
    """Row by row into the buffer, through the low-level interface: fastest where samples are large."""
    from h5py import h5s

    order = np.argsort(indices, kind="stable")
    count, rest = (1, *x.shape[1:]), (0,) * (x.ndim - 1)
    here, there = h5s.create_simple(count), data.id.get_space()
    for row, index in zip(order.tolist(), indices[order].tolist(), strict=True):
        there.select_hyperslab((index, *rest), count)
        data.id.read(here, there, x[row : row + 1])


class _Naive(NaiveReader):
    def __init__(self, meta: _Meta) -> None:
        super().__init__(meta.shape[0], meta.shape[1:], meta.dtype)
        self._meta = meta
        self._handle = PerProcess(partial(_open_plain, meta))

    def read_one(self, index: int) -> tuple[NDArray[Any], int]:
        handle = self._handle()
        with _reading(self._meta.path):
            sample: NDArray[Any] = handle.x[index]
        return sample, int(handle.y[index])
