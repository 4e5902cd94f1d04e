"""Two plain array files, mapped into memory: the page cache is the only cache."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.contracts.backend import Backend, require_empty
from bench.contracts.options import Options
from bench.contracts.reader import BatchReader, Indices, NaiveReader, PerProcess, Reader
from bench.contracts.source import SampleBlock, Schema

from . import npy
from .mapped import MappedReader, Opened
from .store import gather

if TYPE_CHECKING:
    import torch


class MemmapOptions(Options):
    """Options of the memmap backend."""

    reader: Literal["mapped", "library", "naive"] = Field(
        "mapped",
        description="mapped: one gather per batch from a mapping of the file; library: one np.take from NumPy's memmap "
        "per batch; naive: row by row",
    )


class MemmapBackend(Backend[MemmapOptions]):
    """``x.npy`` and ``y.npy``; written as a stream, since writing through a mapping fills the RAM."""

    name: ClassVar[str] = "memmap"
    options_type: ClassVar[type[Options]] = MemmapOptions

    def write(self, samples: Iterable[SampleBlock], schema: Schema, root: Path) -> None:
        """See Backend.write."""
        require_empty(root)
        npy.write_arrays(samples, schema, root / "x.npy", root / "y.npy")

    def open(self, root: Path) -> BatchReader:
        """See Backend.open."""
        layout = npy.read_pair(root / "x.npy", root / "y.npy")
        if self.options.reader == "mapped":
            return MappedReader(
                layout.shape[0], layout.shape[1:], layout.dtype, partial(_open_mapped, root), gathers=True
            )
        return (_Naive if self.options.reader == "naive" else _Library)(root, layout)


def _open_mapped(root: Path) -> Opened:
    layout = npy.read_pair(root / "x.npy", root / "y.npy")
    return Opened(npy.mapped_rows(root / "x.npy", layout), npy.load(root / "y.npy"))


class _Arrays(NamedTuple):
    x: NDArray[Any]
    y: NDArray[np.int64]


def _open_arrays(root: Path) -> _Arrays:
    # Checked once more, as reading past the end of a mapped file kills the process.
    npy.read_pair(root / "x.npy", root / "y.npy")
    return _Arrays(np.load(root / "x.npy", mmap_mode="r"), npy.load(root / "y.npy"))


class _Library(Reader):
    def __init__(self, root: Path, layout: npy.NpyLayout) -> None:
        super().__init__(layout.shape[0], layout.shape[1:], layout.dtype)
        self._arrays = PerProcess(partial(_open_arrays, root))

    def make_ready(self) -> None:
        self._arrays()

    def read_into(self, indices: Indices, x: torch.Tensor, y: torch.Tensor) -> None:
        data = self._arrays()
        gather(data.x, indices, x.numpy())
        gather(data.y, indices, y.numpy())


class _Naive(NaiveReader):
    def __init__(self, root: Path, layout: npy.NpyLayout) -> None:
        super().__init__(layout.shape[0], layout.shape[1:], layout.dtype)
        self._arrays = PerProcess(partial(_open_arrays, root))

    def make_ready(self) -> None:
        self._arrays()

    def read_one(self, index: int) -> tuple[NDArray[Any], int]:
        data = self._arrays()
        return np.array(data.x[index]), int(data.y[index])
