"""The reader that asks a source of rows for its batches, whatever the format, and what such a source is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.contracts.reader import Indices, PerProcess, Reader

if TYPE_CHECKING:
    import torch


class RowSource(Protocol):
    """Delivers samples as rows of bytes; safe to use from several threads."""

    def begin(self) -> None:
        """All rows are about to be needed, in any order."""

    def gather(self, indices: Indices, x: NDArray[Any]) -> None:
        """Copy rows into ``x`` ``(n, ...)``, C-contiguous."""


class Opened(NamedTuple):
    """What a store is read through, in one process."""

    x: RowSource
    y: NDArray[np.int64]


class MappedReader(Reader):
    """Reads through what ``opener`` returns, a picklable function that checks the store and raises BackendError."""

    def __init__(
        self, count: int, shape: tuple[int, ...], dtype: np.dtype[Any], opener: Callable[[], Opened], *, gathers: bool
    ) -> None:
        super().__init__(count, shape, dtype)
        self.gathers = gathers
        self._opened = PerProcess(opener)

    def make_ready(self) -> None:
        """See Reader.make_ready."""
        self._opened()

    def begin(self, order: Indices) -> None:  # noqa: ARG002  # all of it is in any order
        """See Reader.begin."""
        self._opened().x.begin()

    def read_into(self, indices: Indices, x: torch.Tensor, y: torch.Tensor) -> None:
        """See Reader.read_into."""
        opened = self._opened()
        opened.x.gather(indices, x.numpy())
        opened.y.take(indices, out=y.numpy(), mode="clip")
