"""Reading and writing ``.npy`` files: streamed out, and checked against their size when read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from bench.contracts.source import SampleBlock, Schema

from .rows import MappedRows, Pieces
from .store import checked_blocks, damaged


class NpyLayout(NamedTuple):
    """Where the array lies in a file; C order is certain."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Bytes of the array itself."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Write the header of a C-ordered array."""
    descr = npy_format.dtype_to_descr(dtype)
    npy_format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


def write_arrays(samples: Iterable[SampleBlock], schema: Schema, x_path: Path, y_path: Path) -> None:
    """Stream all samples into one array and their labels into another."""
    with x_path.open("wb") as x_file, y_path.open("wb") as y_file:
        write_header(x_file, (schema.count, *schema.shape), np.dtype(schema.dtype))
        write_header(y_file, (schema.count,), np.dtype(np.int64))
        for x, y in checked_blocks(samples, schema):
            x_file.write(x.data)
            y_file.write(y.data)


def read_layout(path: Path) -> NpyLayout:
    """Read a header. Raises BackendError unless the file holds exactly the array that it declares."""
    try:
        with path.open("rb") as file:
            version = npy_format.read_magic(file)
            read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            shape, fortran_order, dtype = read(file)
            layout = NpyLayout(file.tell(), shape, dtype)
            size = file.seek(0, 2)
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    if fortran_order or dtype.hasobject:
        raise damaged(path, "not a plain C-ordered array")
    if size != layout.offset + layout.size:
        raise damaged(path, f"{size} bytes on disk, but its header asks for {layout.offset + layout.size}")
    return layout


def read_pair(x_path: Path, y_path: Path) -> NpyLayout:
    """Return the layout of the samples, certain that there are as many labels."""
    layout, labels = read_layout(x_path), read_layout(y_path)
    if not layout.shape or labels.shape != layout.shape[:1] or labels.dtype != np.int64:
        raise damaged(y_path, f"labels are {labels.dtype} {labels.shape} for samples of shape {layout.shape}")
    return layout


def load(path: Path) -> NDArray[Any]:
    """Read a whole array into memory. Raises BackendError when the file is missing or damaged."""
    layout = read_layout(path)
    array = np.fromfile(path, dtype=layout.dtype, offset=layout.offset)
    if array.nbytes != layout.size:
        raise damaged(path, f"only {array.nbytes} of {layout.size} bytes could be read")
    return array.reshape(layout.shape)


def mapped_rows(path: Path, layout: NpyLayout) -> MappedRows:
    """Map a whole array, whose first axis counts the rows. Raises BackendError."""
    count = layout.shape[0]
    return MappedRows(Pieces.contiguous(path, layout.offset, count), count, layout.size // max(1, count))
