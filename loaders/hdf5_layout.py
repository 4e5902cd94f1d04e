"""Where an HDF5 file keeps its samples, by h5py's public index of chunks, checked before anything relies on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.contracts.backend import BackendError

from .store import damaged

if TYPE_CHECKING:
    import h5py

DEFLATE, SHUFFLE, LZF, BLOSC, ZSTD = 1, 2, 32000, 32001, 32015
"""Numbers under which filters are registered with the HDF Group."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How samples are stored; ``rows_per_chunk`` is None where they are contiguous, ``filters`` in order of writing."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows_per_chunk: int | None
    filters: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of samples."""
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """Size of a sample."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def chunks(self) -> int:
        """Number of chunks; 0 where the samples are contiguous."""
        return -(-self.count // self.rows_per_chunk) if self.rows_per_chunk else 0


class Chunks(NamedTuple):
    """For each chunk its first byte in the file, its size in bytes, and the filters skipped (a bit each), all int64."""

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    masks: NDArray[np.int64]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what h5py and HDF5 raise into a BackendError."""
    try:
        yield
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise damaged(path, error) from error


def read_layout(path: Path, file: h5py.File) -> Layout:
    """Return the layout of ``x``.

    Raises:
        BackendError: It is not a plain array of whole samples in native numbers that lie in this file, complete, with
            an int64 label each.
    """
    import h5py
    from h5py import h5d

    x, y = file["x"], file["y"]
    for name, data in (("x", x), ("y", y)):
        if not isinstance(data, h5py.Dataset) or not data.shape:
            raise damaged(path, f"{name} is not an array")
    if y.shape != x.shape[:1] or y.dtype != np.int64:
        raise damaged(path, f"labels are {y.dtype} {y.shape} for samples of shape {x.shape}")
    kind = x.id.get_create_plist().get_layout()
    if kind not in (h5d.CONTIGUOUS, h5d.CHUNKED) or x.external:
        raise damaged(path, "x does not lie in this file as a contiguous or chunked data set")
    if x.dtype.kind not in "biufc" or x.id.get_type() != h5py.h5t.py_create(x.dtype.newbyteorder("=")):
        raise damaged(path, f"x is stored as {x.dtype}, which is not a plain number in this machine's byte order")
    if file.userblock_size:
        raise damaged(path, f"begins with a user block of {file.userblock_size} bytes, which no store has")
    rows = x.chunks[0] if x.chunks else None
    if x.chunks and x.chunks[1:] != x.shape[1:]:
        raise damaged(path, f"chunks of shape {x.chunks} cut samples of shape {x.shape[1:]}")
    plist = x.id.get_create_plist()
    filters = tuple(plist.get_filter(number)[0] for number in range(plist.get_nfilters()))
    layout = Layout(path, x.shape, x.dtype, rows, filters)
    _check_complete(layout, x)
    return layout


def _check_complete(layout: Layout, x: h5py.Dataset) -> None:
    """Raise BackendError where something was never written: HDF5 would deliver zeros."""
    if layout.chunks:
        there = x.id.get_num_chunks()
        if there != layout.chunks:
            raise damaged(layout.path, f"{layout.chunks - there} of the {layout.chunks} chunks of x are missing")
    elif x.size and (x.id.get_offset() is None or x.id.get_storage_size() != x.size * x.dtype.itemsize):
        raise damaged(layout.path, "the samples of x were never written")


def find_chunks(layout: Layout, x: h5py.Dataset) -> Chunks:
    """Return where the chunks lie.

    Raises:
        BackendError: A chunk is missing, reaches past the end of the file or into another one, or is stored unfiltered
            and not in its full size.
    """
    rows, path = layout.rows_per_chunk or 1, layout.path
    found = np.full((3, layout.chunks), -1, np.int64)
    stored = _chunk_infos(x)
    numbers = [info.chunk_offset[0] // rows for info in stored]
    found[:, numbers] = np.array([(info.byte_offset or 0, info.size, info.filter_mask) for info in stored]).T
    chunks = Chunks(*found)
    _check_chunk(layout, chunks.offsets <= 0, "is missing")
    _check_chunk(layout, chunks.offsets + chunks.sizes > path.stat().st_size, "reaches past the end of the file")
    order = np.argsort(chunks.offsets)
    follows = np.zeros(layout.chunks, np.bool_)
    follows[order[1:]] = (chunks.offsets + chunks.sizes)[order[:-1]] > chunks.offsets[order[1:]]
    _check_chunk(layout, follows, "begins inside of another one")
    plain = chunks.masks & _all_of(layout.filters) == _all_of(layout.filters)
    _check_chunk(layout, plain & (chunks.sizes != rows * layout.row_bytes), "has not the size of its samples")
    return chunks


def _all_of(filters: tuple[int, ...]) -> int:
    return (1 << len(filters)) - 1


def _check_chunk(layout: Layout, wrong: NDArray[np.bool_], problem: str) -> None:
    if wrong.any():
        rows = layout.rows_per_chunk or 1
        first = int(np.flatnonzero(wrong)[0]) * rows
        raise damaged(layout.path, f"the chunk of samples {first} to {min(first + rows, layout.count) - 1} {problem}")


def _chunk_infos(x: h5py.Dataset) -> list[Any]:
    """Return h5py's description of each chunk; one by one where HDF5 is too old to iterate, which is quadratic."""
    if not hasattr(x.id, "chunk_iter"):
        return [x.id.get_chunk_info(number) for number in range(x.id.get_num_chunks())]
    infos: list[Any] = []
    x.id.chunk_iter(infos.append)
    return infos


def check_filters(layout: Layout, known: frozenset[int]) -> None:
    """Raise BackendError where the samples went through a filter that is not ``known``."""
    for number in layout.filters:
        if number not in known:
            raise BackendError(
                f"{layout.path}: reader=mapped cannot undo the HDF5 filter {number}. Use reader=library instead."
            )
