"""The library reader of HDF5: h5py's public interface, used well, and the naive one."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.reader import Indices, NaiveReader, PerProcess, Reader

from .chunks import CACHE_BYTES, KeptChunks
from .hdf5_handle import Runs, load_filter, open_file, read_block
from .hdf5_layout import Layout, reading
from .store import gather

if TYPE_CHECKING:
    import h5py
    import torch

# From here on the fresh array that h5py returns for a selection costs more than reading row by row into the buffer.
_LARGE_SAMPLE_BYTES = 32 << 10
# The default of HDF5 2; older versions keep 1 MiB, and results should not depend on that.
_NAIVE_CACHE: dict[str, Any] = {"rdcc_nbytes": 8 << 20, "rdcc_nslots": 8191}
# Read at once, a block takes not much longer than ten rows of a few KiB.
_BLOCK_BYTES = 1 << 20
# Where nothing is decoded, blocks that fall out of the processor's own cache are hardly worth keeping.
_KEPT_BYTES = 32 << 20
_WINDOW = 256
# Two buffers of a block shuffle by default, so that it is seen for what it is wherever the shorter last block falls.
_WINDOWS = 32
# Blocks of an order that leaves out samples lie across those of the file, so each touches two or three.
_MOST_READ = 3.5


class _Handle:
    """An open file, its labels, and the blocks of samples that are kept."""

    def __init__(self, layout: Layout, compression: str, rows_per_block: int, kept_bytes: int) -> None:
        load_filter(compression)
        with reading(layout.path):
            file = open_file(layout.path)
            self.x: h5py.Dataset = file["x"]
            self.y: NDArray[np.int64] = file["y"][()]
        fill = partial(read_block, layout, rows_per_block, self.x)
        blocks = -(-layout.count // rows_per_block)
        # HDF5 reads and undoes filters for one thread at a time.
        self.blocks = KeptChunks(fill, blocks, rows_per_block, layout.row_bytes, kept_bytes, side_by_side=False)


class LibraryReader(Reader):
    """Whole batches through h5py.

    Under a full shuffle the samples of a batch are read one by one, in the order of the file, and no more is read than
    is delivered. An order that takes samples soon after their neighbours is served from blocks that are read at once;
    so is any order of a store whose blocks can all be kept, and any where chunks of several samples have to be decoded
    whole. Each process that reads keeps the last ones that it used, 32 MB of them or 64 where they were decoded, until
    the next epoch begins.
    """

    def __init__(self, layout: Layout, compression: str) -> None:
        super().__init__(layout.count, layout.shape[1:], layout.dtype)
        self._layout = layout
        decoded_at_once = (layout.filters and layout.rows_per_chunk) or 1
        self._always_in_blocks = self._in_blocks = decoded_at_once > 1
        self._rows_per_block = decoded_at_once if self._in_blocks else _rows_per_block(layout)
        self._selects = layout.rows_per_chunk is None and layout.row_bytes < _LARGE_SAMPLE_BYTES
        self._kept_bytes = CACHE_BYTES if self._in_blocks else _KEPT_BYTES
        self._handle = PerProcess(partial(_Handle, layout, compression, self._rows_per_block, self._kept_bytes))

    def make_ready(self) -> None:
        """See Reader.make_ready."""
        self._handle()

    def begin(self, order: Indices) -> None:
        """See Reader.begin."""
        self._handle().blocks.begin()
        if not self._always_in_blocks:
            kept = self._kept_bytes // max(1, self._rows_per_block * self._layout.row_bytes)
            self._in_blocks = suits_blocks(order, self._rows_per_block, self.count, kept)

    def read_into(self, indices: Indices, x: torch.Tensor, y: torch.Tensor) -> None:
        """See Reader.read_into."""
        handle = self._handle()
        np.take(handle.y, indices, out=y.numpy(), mode="clip")
        with reading(self._layout.path):
            if self._in_blocks:
                handle.blocks.gather(indices, x.numpy())
                return
            runs = Runs(indices)
            if self._selects and len(runs) > len(indices) // 2:
                _select(handle.x, indices, x.numpy())
            else:
                runs.read(handle.x, x.numpy())


def _rows_per_block(layout: Layout) -> int:
    """Return the power of two that fits into a block, as users count in those."""
    return 1 << (max(1, _BLOCK_BYTES // max(1, layout.row_bytes)).bit_length() - 1)


def suits_blocks(order: Indices, rows_per_block: int, count: int, kept: int) -> bool:
    """Say whether an order read in blocks, of which the ``kept`` last ones used are kept, reads little in vain.

    Found out by going through the beginning of the order, up to 8,192 samples of it.
    """
    if rows_per_block == 1 or not kept:
        return False
    order = order[: _WINDOW * _WINDOWS]
    most = _MOST_READ * len(order) / min(rows_per_block, count)
    blocks: OrderedDict[int, None] = OrderedDict()
    read = 0
    for start in range(0, len(order), _WINDOW):
        for block in np.unique(order[start : start + _WINDOW] // rows_per_block).tolist():
            read += block not in blocks
            blocks[block] = None
            blocks.move_to_end(block)
        while len(blocks) > kept:
            blocks.popitem(last=False)
        if read > most:
            return False
    return True


def _select(data: h5py.Dataset, indices: Indices, x: NDArray[Any]) -> None:
    """Read one selection of all rows: fastest where samples are small and contiguous."""
    unique, inverse = np.unique(indices, return_inverse=True)
    if len(unique):
        gather(data[unique], inverse, x)


def _open_plain(layout: Layout, compression: str) -> tuple[h5py.Dataset, NDArray[np.int64]]:
    import h5py

    load_filter(compression)
    with reading(layout.path):
        file = h5py.File(layout.path, "r", **_NAIVE_CACHE)
        return file["x"], file["y"][()]


class HandWrittenReader(NaiveReader):
    """One sample at a time, under h5py's defaults, with the file opened anew for each epoch.

    Left open, HDF5's own cache of 8 MiB of chunks would hold all of a small store from then on.
    """

    def __init__(self, layout: Layout, compression: str) -> None:
        super().__init__(layout.count, layout.shape[1:], layout.dtype)
        self._path = layout.path
        self._handle = PerProcess(partial(_open_plain, layout, compression))

    def make_ready(self) -> None:
        """See Reader.make_ready."""
        self._handle()

    def begin(self, order: Indices) -> None:  # noqa: ARG002  # whatever the order
        """See Reader.begin."""
        self._handle.forget()

    def read_one(self, index: int) -> tuple[NDArray[Any], int]:
        """See NaiveReader.read_one."""
        x, y = self._handle()
        with reading(self._path):
            sample: NDArray[Any] = x[index]
        return sample, int(y[index])
