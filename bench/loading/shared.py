"""A ring of buffers in memory that processes share, and the order of the epoch beside it."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from multiprocessing import reduction
from typing import Any

import numpy as np
import torch

from bench.contracts.errors import BenchError
from bench.contracts.reader import Indices, Reader
from bench.loading.batches import Slot


class PageLockError(BenchError):
    """Memory that CUDA refuses to page-lock."""


class SharedRing:
    """Slots for ``samples`` each, mapped from a file without a name; a pickle carries its descriptor.

    Page-locked for CUDA with ``pin``, in the process that made it.
    """

    def __init__(self, reader: Reader, slots: int, samples: int, batch_size: int, *, pin: bool) -> None:
        self._form = (slots, samples, batch_size, len(reader), tuple(reader.shape), reader.dtype.str)
        self._lay_out()
        self._descriptor = _nameless_file(self._size)
        self._map()
        # Touched, so that no page is missing when time counts.
        self._bytes[:] = 0
        self._pinned = pin
        if pin:
            self._page_lock()

    def _page_lock(self) -> None:
        status = int(_cudart().cudaHostRegister(self._address, self._size, 0))
        if status:
            # What is not locked needs no unlocking.
            self._pinned = False
            self.close()
            raise PageLockError(
                f"CUDA refuses to page-lock {self._size:,} bytes that worker processes share (cudaHostRegister: error "
                f"{status}). Use --worker-kind thread or --workers 0, whose memory CUDA allocates itself."
            )

    def _lay_out(self) -> None:
        slots, samples, _, count, shape, dtype = self._form
        self._order_bytes = _whole_pages(count * 8)
        self._x_bytes = _whole_pages(samples * math.prod(shape) * np.dtype(dtype).itemsize)
        self._slot_bytes = self._x_bytes + _whole_pages(samples * 8)
        self._size = max(mmap.PAGESIZE, self._order_bytes + slots * self._slot_bytes)

    def _map(self) -> None:
        slots, samples, batch_size, count, shape, dtype = self._form
        memory = mmap.mmap(self._descriptor, self._size)
        self._bytes = np.frombuffer(memory, np.uint8)
        self._address = self._bytes.ctypes.data
        self.order: Indices = np.frombuffer(memory, np.int64, count)
        self.slots = []
        for number in range(slots):
            begin = self._order_bytes + number * self._slot_bytes
            x: Any = np.ndarray((samples, *shape), dtype, memory, begin)
            y: Any = np.ndarray(samples, np.int64, memory, begin + self._x_bytes)
            self.slots.append(Slot(torch.from_numpy(x), torch.from_numpy(y), batch_size))

    def close(self) -> None:
        """Give the memory back as soon as no batch refers to it. Raises nothing, as it comes after failures, too."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._pinned:
            # After an error of the device this fails like all else there, and whoever met it first has told it.
            _cudart().cudaHostUnregister(self._address)
            self._pinned = False
        self.slots = []
        self._bytes, self.order = np.empty(0, np.uint8), np.empty(0, np.int64)

    def __getstate__(self) -> tuple[Any, ...]:
        return self._form, reduction.DupFd(self._descriptor)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._form, descriptor = state
        self._descriptor = descriptor.detach()
        self._pinned = False
        self._lay_out()
        self._map()


def _nameless_file(size: int) -> int:
    # Not /dev/shm, which containers limit to 64 MB.
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("bench-ring", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]  # torch annotates no result
