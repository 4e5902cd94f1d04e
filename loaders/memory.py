"""The ceiling: the whole split as one array in RAM. Answers what no storage format can beat."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.contracts.backend import Backend, require_empty
from bench.contracts.options import Options
from bench.contracts.reader import BatchReader, Indices, NaiveReader, Reader
from bench.contracts.source import SampleBlock, Schema

from . import npy
from .rows import Rows, row_bytes

if TYPE_CHECKING:
    import torch


class MemoryOptions(Options):
    """Options of the memory backend."""

    reader: Literal["library", "naive"] = Field(
        "library", description="library: one gather per batch; naive: one sample at a time"
    )


class MemoryBackend(Backend[MemoryOptions]):
    """One array file, read into RAM when the store is opened.

    ``open`` is therefore neither cheap nor lazy. Forked workers share the copy;
    spawned ones get the path and read their own.
    """

    name: ClassVar[str] = "memory"
    options_type: ClassVar[type[Options]] = MemoryOptions

    def write(self, samples: Iterable[SampleBlock], schema: Schema, root: Path) -> None:
        """See Backend.write."""
        require_empty(root)
        npy.write_arrays(samples, schema, root / "x.npy", root / "y.npy")

    def open(self, root: Path) -> BatchReader:
        """See Backend.open."""
        return (_Naive if self.options.reader == "naive" else _Library)(root)


class _Arrays:
    """The arrays of a store; a pickle carries the folder, not the samples."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.x, self.y = self._load()
        self.rows = Rows(row_bytes(self.x))

    def _load(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        npy.read_pair(self.root / "x.npy", self.root / "y.npy")
        return npy.load(self.root / "x.npy"), npy.load(self.root / "y.npy")

    def __reduce__(self) -> tuple[type[_Arrays], tuple[Path]]:
        return _Arrays, (self.root,)


class _Library(Reader):
    gathers = True

    def __init__(self, root: Path) -> None:
        self._data = _Arrays(root)
        super().__init__(len(self._data.y), self._data.x.shape[1:], self._data.x.dtype)

    def read_into(self, indices: Indices, x: torch.Tensor, y: torch.Tensor) -> None:
        self._data.rows.gather(indices, row_bytes(x.numpy()))
        np.take(self._data.y, indices, out=y.numpy(), mode="clip")


class _Naive(NaiveReader):
    def __init__(self, root: Path) -> None:
        self._data = _Arrays(root)
        super().__init__(len(self._data.y), self._data.x.shape[1:], self._data.x.dtype)

    def read_one(self, index: int) -> tuple[NDArray[Any], int]:
        return self._data.x[index].copy(), int(self._data.y[index])
