"""A Zarr v3 group with the arrays ``x`` and ``y``, optionally sharded: its options, and how it is written."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from bench.contracts.backend import Backend, require_empty
from bench.contracts.options import Options
from bench.contracts.reader import BatchReader
from bench.contracts.source import SampleBlock, Schema, reblocked

from .mapped import MappedReader
from .store import checked_blocks
from .zarr_library import LibraryReader, OneByOneReader
from .zarr_mapped import checked_layout, open_mapped

_DEFAULT_CHUNK_BYTES = 64 << 10
_WRITE_BYTES = 4 << 20
_LABELS_PER_CHUNK = 1 << 16
_DEFAULT_LEVEL = {"zstd": 3, "blosc": 5}


class ZarrOptions(Options):
    """Options of the Zarr backend."""

    chunk: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="samples per chunk; if not given, the power of two that fits into 64 KiB (16 CIFAR images): a "
        "shuffled epoch reads a chunk for every sample, so larger ones are slower, and smaller ones gain little but "
        "make a file per sample",
    )
    shard: int | None = Field(
        None,
        ge=1,
        le=1 << 20,
        description="samples per shard file, a multiple of chunk; not sharded if not given, as finding a chunk inside "
        "a shard costs zarr-python (reader=library) more than opening a file",
    )
    codec: Literal["none", "zstd", "blosc"] = Field("none", description="compression; blosc is LZ4 on shuffled bytes")
    clevel: int | None = Field(
        None, ge=1, le=19, description="level of the codec: zstd 1 to 19 (3 if not given), blosc 1 to 9 (5)"
    )
    reader: Literal["library", "mapped", "naive"] = Field(
        "library",
        description="library: whole batches through zarr-python, each chunk read once per batch; mapped: chunk files "
        "or shards mapped and read by their published layout, without zarr-python; naive: one sample at a time",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ZarrOptions:
        if self.shard is not None and (self.chunk is None or self.shard % self.chunk):
            given = "chunk is not given" if self.chunk is None else f"chunk={self.chunk}"
            raise ValueError(f"shard={self.shard} must be a multiple of chunk, but {given}")
        if self.clevel is not None and self.codec == "none":
            raise ValueError(f"clevel={self.clevel} needs codec=zstd or codec=blosc")
        if self.clevel is not None and self.codec == "blosc" and self.clevel > 9:
            raise ValueError(f"clevel={self.clevel} is above 9, the highest level of blosc")
        return self

    def samples_per_chunk(self, schema: Schema) -> int:
        """Return the chunk length, never above the number of samples unless shards need it."""
        if self.shard is not None and self.chunk is not None:
            return self.chunk
        fitting = max(1, _DEFAULT_CHUNK_BYTES // max(1, schema.sample_bytes))
        return min(self.chunk or 1 << (fitting.bit_length() - 1), max(1, schema.count))


class ZarrBackend(Backend[ZarrOptions]):
    """A Zarr group; the first axis of ``x`` is cut into chunks, the others are whole."""

    name: ClassVar[str] = "zarr"
    options_type: ClassVar[type[Options]] = ZarrOptions

    def resolved(self, schema: Schema) -> Options:
        """See Backend.resolved."""
        level = self.options.clevel or _DEFAULT_LEVEL.get(self.options.codec)
        return self.options.model_copy(update={"chunk": self.options.samples_per_chunk(schema), "clevel": level})

    def write(self, samples: Iterable[SampleBlock], schema: Schema, root: Path) -> None:
        """See Backend.write."""
        import zarr

        require_empty(root)
        chunk, shard = self.options.samples_per_chunk(schema), self.options.shard
        group = zarr.create_group(root, zarr_format=3)
        # Flat file names: with "/" each chunk would get folders of its own. Empty chunks are written, since a missing
        # one could not be told from one that was lost.
        shared: dict[str, Any] = {
            "chunk_key_encoding": {"name": "default", "separator": "."},
            "config": {"write_empty_chunks": True},
            "fill_value": 0,
        }
        x = group.create_array(
            "x",
            shape=(schema.count, *schema.shape),
            dtype=schema.dtype,
            chunks=(chunk, *schema.shape),
            shards=None if shard is None else (shard, *schema.shape),
            compressors=self._compressors(np.dtype(schema.dtype)),
            **shared,
        )
        unit = shard or chunk
        step = unit * max(1, _WRITE_BYTES // max(1, unit * schema.sample_bytes))
        labels = np.empty(schema.count, np.int64)
        done = 0
        for block in reblocked(checked_blocks(samples, schema), step):
            x[done : done + len(block.y)] = block.x
            labels[done : done + len(block.y)] = block.y
            done += len(block.y)
        group.create_array(
            "y", data=labels, chunks=(min(_LABELS_PER_CHUNK, max(1, schema.count)),), compressors=None, **shared
        )

    def _compressors(self, dtype: np.dtype[Any]) -> Any:
        from zarr.codecs import BloscCodec, ZstdCodec

        if self.options.codec == "none":
            return None
        level = self.options.clevel or _DEFAULT_LEVEL[self.options.codec]
        if self.options.codec == "zstd":
            return ZstdCodec(level=level)
        return BloscCodec(cname="lz4", clevel=level, shuffle="shuffle", typesize=dtype.itemsize)

    def open(self, root: Path) -> BatchReader:
        """See Backend.open."""
        if self.options.reader == "naive":
            return OneByOneReader(root, blosc=self.options.codec == "blosc" and self.options.shard is None)
        if self.options.reader == "library":
            return LibraryReader(root)
        x = checked_layout(root)
        return MappedReader(
            x.shape[0], x.shape[1:], x.dtype, partial(open_mapped, root), gathers=self.options.codec == "none"
        )
