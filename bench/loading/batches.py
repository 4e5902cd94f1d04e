"""What all loaders share: their interface, the buffers that they hand out, and what a worker takes at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bench.child import Failure
from bench.contracts.buffers import page_aligned
from bench.contracts.reader import Indices, Reader, torch_dtype
from bench.specs.spec import RunSpec

if TYPE_CHECKING:
    from torch import Tensor

SPARE_SLOTS = 2
"""Buffers beside those in use that a device may still copy from."""

_TASK_BYTES = 8 << 20
_TASK_BATCHES = 8

Batch = tuple["Tensor", "Tensor"]


class WorkerError(Exception):
    """A defect that showed in a worker process; ``failure`` has its traceback there."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Loader(Protocol):
    """Delivers the batches of one epoch after another."""

    def start(self) -> None:
        """Bring up all workers and wait until they are ready to read, with all open that they need."""

    def epoch(self, epoch: int, batches: int | None = None) -> Iterator[Batch]:
        """Yield ``(x, y)`` for each of :meth:`bench.loading.order.Order.batches`, in that order.

        A batch holds until the next one is asked for.
        """

    def close(self) -> None:
        """End all workers."""


class Slot:
    """One buffer: the samples of one task, handed out as views of a batch each."""

    def __init__(self, x: Tensor, y: Tensor, batch_size: int) -> None:
        self.x, self.y = x, y
        # Slicing a tensor takes a microsecond, so what is the same every time is made once.
        starts = range(0, len(y), batch_size)
        self._batches = [(x[start : start + batch_size], y[start : start + batch_size]) for start in starts]
        self._batch_size = batch_size
        self._used: Any = None
        self._in_use = False

    @classmethod
    def allocated(cls, reader: Reader, samples: int, batch_size: int, *, pin: bool) -> Slot:
        """Return a slot in fresh memory, touched so that no page is missing when time counts."""
        import torch

        if pin:
            x = torch.empty((samples, *reader.shape), dtype=torch_dtype(reader.dtype), pin_memory=True)
            y = torch.empty(samples, dtype=torch.int64, pin_memory=True)
        else:
            # NumPy asks the kernel for huge pages where an array is large; torch does not.
            x = torch.from_numpy(page_aligned((samples, *reader.shape), reader.dtype))
            y = torch.from_numpy(np.empty(samples, np.int64))
        return cls(x.zero_(), y.zero_(), batch_size)

    def batches(self, samples: int) -> Iterator[Batch]:
        """Yield the batches of the first ``samples``."""
        full, rest = divmod(samples, self._batch_size)
        yield from self._batches[:full]
        if rest:
            start = full * self._batch_size
            yield self.x[start:samples], self.y[start:samples]

    def let_go(self) -> None:
        """Note that the consumer needs this no more, once all that it has launched on its device is done."""
        import torch

        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch annotates no result
            if self._used is None:
                # Whoever waits for it sleeps: by default a core is kept busy.
                self._used = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._used.record()
            self._in_use = True

    def wait_until_free(self) -> None:
        """Wait for the device to be done with what lies here."""
        if self._in_use:
            self._used.synchronize()
            self._in_use = False


def samples_per_task(reader: Reader, batch_size: int) -> int:
    """Return how many samples a worker reads at a time, a multiple of ``batch_size``.

    A batch, or several where reading one takes no longer than handing it over.
    """
    if not reader.gathers:
        return batch_size
    batch_bytes = max(1, batch_size * math.prod(reader.shape) * reader.dtype.itemsize)
    return batch_size * max(1, min(_TASK_BATCHES, _TASK_BYTES // batch_bytes))


def slots_needed(spec: RunSpec, samples: int) -> int:
    """Return how many tasks of that size may be under way, done ahead of their turn, or with the consumer.

    Each worker keeps ``spec.prefetch`` batches ready; a task of as many batches does.
    """
    return spec.workers * math.ceil(spec.prefetch * spec.batch_size / samples) + 1


def tasks_of(order: Indices, samples: int) -> list[tuple[int, int]]:
    """Return the bounds of parts of ``samples``, the last of which may be smaller."""
    return [(start, min(start + samples, len(order))) for start in range(0, len(order), samples)]
