"""Reading rows through h5py: files opened without HDF5's own caches, and runs of rows read to where they belong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.backend import BackendError
from bench.contracts.reader import Indices

from .hdf5_layout import Layout

if TYPE_CHECKING:
    import h5py


def load_filter(name: str) -> dict[str, Any]:
    """Return the keywords of h5py for writing with a filter; loads the plug-in that reading needs as well.

    Raises BackendError where there is none.
    """
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


def open_file(path: Path) -> h5py.File:
    """Open for reading whole rows, each of which is read once."""
    import h5py
    from h5py import h5f, h5p

    access = h5p.create(h5p.FILE_ACCESS)
    # Without a cache HDF5 reads just the rows asked for, unless their chunk has to be decoded.
    access.set_cache(0, 0, 0, 0.75)
    # It would read 64 KiB for every smaller piece of a contiguous data set: three times slower when shuffled.
    access.set_sieve_buf_size(0)
    return h5py.File(h5f.open(os.fsencode(path), h5f.ACC_RDONLY, fapl=access))


class Runs:
    """A batch as runs: consecutive samples that also lie behind each other in the batch.

    A batch in the order of the file is a single run, a shuffled one has as many as samples.
    """

    def __init__(self, indices: Indices) -> None:
        # In the order of the file, which is the order in which storage is read soonest.
        order = np.argsort(indices, kind="stable")
        ordered = indices[order]
        breaks = (np.diff(ordered) != 1) | (np.diff(order) != 1)
        starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(order)), np.bool_), breaks]))
        self.lengths = np.diff(starts, append=len(order))
        self._places, self._firsts = order[starts], ordered[starts]

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, data: h5py.Dataset, x: NDArray[Any]) -> None:
        """Read the samples into ``x`` ``(n, *shape)``, each run at once.

        This is h5py's low-level interface, as its selections of several rows are 40 times slower on chunks, and
        ``data[index]`` makes an array for each sample.
        """
        from h5py import h5s

        # Given, as working out the type of the array takes h5py as long as reading a small sample.
        kind, there, rest = data.id.get_type(), data.id.get_space(), (0,) * (x.ndim - 1)
        spaces = {n: h5s.create_simple((n, *x.shape[1:])) for n in np.unique(self.lengths).tolist()}
        runs = (self._places.tolist(), self._firsts.tolist(), self.lengths.tolist())
        for place, first, n in zip(*runs, strict=True):
            there.select_hyperslab((first, *rest), (n, *x.shape[1:]))
            data.id.read(spaces[n], there, x[place : place + n], kind)


def read_block(layout: Layout, rows_per_block: int, data: h5py.Dataset, block: int, out: NDArray[np.uint8]) -> None:
    """Read the samples of a block into the bytes ``out`` of a whole one, the last of which may stay as they were."""
    from h5py import h5s

    first = block * rows_per_block
    shape = (min(rows_per_block, layout.count - first), *layout.shape[1:])
    x = out.view(layout.dtype).reshape(rows_per_block, *layout.shape[1:])[: shape[0]]
    there = data.id.get_space()
    there.select_hyperslab((first, *(0,) * (x.ndim - 1)), shape)
    data.id.read(h5s.create_simple(shape), there, x, data.id.get_type())
