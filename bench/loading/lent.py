"""Memory that is lent out as tensors, and used again once nobody holds any of them."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.contracts.buffers import page_aligned
from bench.contracts.reader import Reader, torch_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Memory:
    """Room for samples and their labels, touched so that no page is missing when time counts."""

    def __init__(self, reader: Reader, samples: int) -> None:
        self._x = page_aligned((samples, *reader.shape), reader.dtype)
        self._x[...] = 0
        self._y = np.zeros(samples, np.int64)
        self._lent: list[weakref.ref[memoryview]] = []

    @property
    def is_idle(self) -> bool:
        return all(view() is None for view in self._lent)

    def lend(self) -> tuple[torch.Tensor, torch.Tensor]:
        # A tensor, and so each view of it, keeps the object alive whose memory it has: one made for it alone.
        x, y = self._x.reshape(-1).view(np.uint8).data, self._y.view(np.uint8).data
        self._lent = [weakref.ref(x), weakref.ref(y)]
        return _tensor(x, self._x), _tensor(y, self._y)


def _tensor(memory: memoryview, like: NDArray[Any]) -> torch.Tensor:
    return torch.frombuffer(memory, dtype=torch_dtype(like.dtype)).view(like.shape)


class Lender:
    """Lends memory for ``samples`` of a reader, and keeps up to ``most`` pieces of it to lend again.

    Fresh memory for each batch costs as much as copying small samples into it: its pages are made one by one, and lie
    in no cache.
    """

    def __init__(self, reader: Reader, samples: int, most: int) -> None:
        self._reader = reader
        self.samples = samples
        self._most = most
        self._kept: list[_Memory] = []

    def lend(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``x`` ``(samples, *shape)`` and ``y`` ``(samples,)`` int64, of any content, that nobody else holds."""
        for memory in self._kept:
            if memory.is_idle:
                return memory.lend()
        memory = _Memory(self._reader, self.samples)
        if len(self._kept) < self._most:
            self._kept.append(memory)
        return memory.lend()
