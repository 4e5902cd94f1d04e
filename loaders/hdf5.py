"""One HDF5 file with the data sets ``x`` and ``y``, contiguous or chunked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from bench.contracts.backend import Backend, require_empty
from bench.contracts.options import Options
from bench.contracts.reader import BatchReader
from bench.contracts.source import SampleBlock, Schema, reblocked

from .hdf5_handle import load_filter, open_file
from .hdf5_layout import read_layout, reading
from .hdf5_library import HandWrittenReader, LibraryReader
from .hdf5_mapped import open_mapped
from .mapped import MappedReader
from .store import checked_blocks

_FILE = "data.h5"
_WRITE_BYTES = 4 << 20


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
    reader: Literal["library", "mapped", "naive"] = Field(
        "library",
        description="library: whole batches through h5py; mapped: a mapping of the file, which HDF5 only says the "
        "layout of; naive: h5py defaults, one sample at a time",
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
    # 2: chunks that are not compressed lie behind each other.
    format_version: ClassVar[int] = 2
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
        from h5py import h5d, h5p

        require_empty(root)
        chunk = self._chunk(schema)
        create = {"chunks": chunk and (chunk, *schema.shape), **load_filter(self.options.compression)}
        # Allocated before anything else, chunks lie at even distances, and need no index.
        layout = h5p.create(h5p.DATASET_CREATE)
        layout.set_alloc_time(h5d.ALLOC_TIME_EARLY if self.options.compression == "none" else h5d.ALLOC_TIME_DEFAULT)
        step = chunk or 1
        step *= max(1, _WRITE_BYTES // (step * schema.sample_bytes))
        # The file format is pinned: what h5py takes by default depends on its version.
        with h5py.File(root / _FILE, "w", libver=("v110", "v110")) as file:
            x = file.create_dataset(
                "x", (schema.count, *schema.shape), schema.dtype, fill_time="never", dcpl=layout, **create
            )
            y = file.create_dataset("y", (schema.count,), np.int64)
            done = 0
            for block in reblocked(checked_blocks(samples, schema), step):
                x[done : done + len(block.y)] = block.x
                y[done : done + len(block.y)] = block.y
                done += len(block.y)

    def open(self, root: Path) -> BatchReader:
        """See Backend.open."""
        path, compression = root / _FILE, self.options.compression
        mapped = self.options.reader == "mapped"
        if not mapped:
            load_filter(compression)
        with reading(path), open_file(path) as file:
            layout = read_layout(path, file)
        if not mapped:
            return (HandWrittenReader if self.options.reader == "naive" else LibraryReader)(layout, compression)
        reader = MappedReader(
            layout.count, layout.shape[1:], layout.dtype, partial(open_mapped, path), gathers=not layout.filters
        )
        # What is damaged is to show now: so the file is mapped in this process at once.
        reader.make_ready()
        return reader
