"""The mapped reader of HDF5: HDF5 only says where the samples lie, and is not asked again."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .chunks import Decode, KeptChunks
from .frames import decoder
from .hdf5_handle import open_file, read_block
from .hdf5_layout import (
    BLOSC,
    DEFLATE,
    LZF,
    SHUFFLE,
    ZSTD,
    Chunks,
    Layout,
    check_filters,
    find_chunks,
    read_layout,
    reading,
)
from .mapped import Opened
from .rows import MappedFiles, MappedRows, Pieces
from .store import damaged

Bytes = NDArray[np.uint8]
Step = Callable[[Bytes, Bytes], Any]

_KNOWN = frozenset({SHUFFLE, DEFLATE, LZF, BLOSC, ZSTD})


def open_mapped(path: Path) -> Opened:
    """Map the samples of ``path``, and read its labels.

    Raises:
        BackendError: The file is missing or damaged, or its samples went through a filter that is unknown here.
    """
    with reading(path), open_file(path) as file:
        layout = read_layout(path, file)
        check_filters(layout, _KNOWN)
        x, y = file["x"], file["y"][()]
        if layout.rows_per_chunk is None:
            pieces = Pieces.contiguous(path, x.id.get_offset() or 0, layout.count)
            return Opened(MappedRows(pieces, layout.count, layout.row_bytes), y)
        chunks = find_chunks(layout, x)
    if layout.filters:
        return Opened(_EncodedRows(layout, chunks), y)
    pieces = Pieces([path], np.zeros(layout.chunks, np.int64), chunks.offsets, layout.rows_per_chunk)
    return Opened(MappedRows(pieces, layout.count, layout.row_bytes), y)


class _EncodedRows(KeptChunks):
    """Rows in filtered chunks, decoded out of a mapping of the file.

    LZF has no decoder outside of HDF5: its chunks go through h5py, which decodes one at a time.
    """

    def __init__(self, layout: Layout, chunks: Chunks) -> None:
        end = int((chunks.offsets + chunks.sizes).max(initial=0))
        self._files = MappedFiles([layout.path], np.array([end], np.int64))
        decode = _decode(layout, chunks, self._files.bytes)
        super().__init__(decode, layout.chunks, layout.rows_per_chunk or 1, layout.row_bytes)

    def begin(self) -> None:
        """See RowSource.begin."""
        super().begin()
        self._files.begin()


def _decode(layout: Layout, chunks: Chunks, mapped: Bytes) -> Decode:
    # A memoryview's items are Python's own numbers, at no memory.
    offsets, sizes, masks = (array.data for array in chunks)
    with reading(layout.path):
        x = open_file(layout.path)["x"] if LZF in layout.filters else None
    undo_of = {mask: _undo(layout, mask) for mask in np.unique(chunks.masks).tolist()}

    def decode(chunk: int, out: Bytes) -> None:
        undo = undo_of[masks[chunk]]
        begin = offsets[chunk]
        try:
            if undo is None:
                read_block(layout, layout.rows_per_chunk or 1, x, chunk, out)
            else:
                undo(mapped[begin : begin + sizes[chunk]], out)
        except (OSError, ValueError, RuntimeError, zlib.error) as error:
            raise damaged(layout.path, f"chunk {chunk}: {error}") from error

    return decode


def _undo(layout: Layout, mask: int) -> Step | None:
    """Return what undoes the filters that ``mask`` does not say were skipped; None where LZF is one of them."""
    applied = [number for bit, number in enumerate(layout.filters) if not mask >> bit & 1]
    if LZF in applied:
        return None
    steps = [_step(number, layout.dtype.itemsize) for number in reversed(applied)] or [decoder("none")]
    return steps[0] if len(steps) == 1 else partial(_one_after_the_other, steps)


def _one_after_the_other(steps: list[Step], data: Bytes, out: Bytes) -> None:
    for step in steps[:-1]:
        undone = np.empty_like(out)
        step(data, undone)
        data = undone
    steps[-1](data, out)


def _step(number: int, item_bytes: int) -> Step:
    if number == SHUFFLE:
        return partial(_unshuffle, item_bytes)
    return _inflate if number == DEFLATE else decoder("zstd" if number == ZSTD else "blosc")


def _inflate(data: Bytes, out: Bytes) -> None:
    stream = zlib.decompressobj()
    # One byte more than there should be, so that too many are noticed without decoding them all.
    plain = stream.decompress(data.data, len(out) + 1)
    if len(plain) != len(out) or not stream.eof:
        raise ValueError(f"{len(data)} bytes of zlib do not decode to the {len(out)} of a chunk")
    out.data[:] = plain


def _unshuffle(item_bytes: int, data: Bytes, out: Bytes) -> None:
    """Undo HDF5's byte shuffle: first the first byte of each item, then the second of each, and so on."""
    if len(data) != len(out):
        raise ValueError(f"{len(data)} bytes where a chunk has {len(out)}")
    out.reshape(-1, item_bytes)[:] = data.reshape(item_bytes, -1).T
