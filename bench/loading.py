"""A store and a RunSpec become an iterator of batches: order, workers, pinning, prefetch.

For one seed every backend delivers the same batches in the same order, whatever the
number and kind of workers.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from bench.contracts.errors import BenchError
from bench.contracts.reader import BatchReader, Indices
from bench.spec import RunSpec

if TYPE_CHECKING:
    from torch import Tensor

PREFETCH_BATCHES = 2
"""Batches that each worker keeps ready, as torch's DataLoader does by default."""

Batch = tuple["Tensor", "Tensor"]


class Loader(Protocol):
    """Delivers the batches of one epoch after another."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield ``(x, y)`` for each batch of :func:`batch_indices`, in that order."""

    def close(self) -> None:
        """End all workers."""


def batch_indices(spec: RunSpec, count: int, epoch: int) -> list[Indices]:
    """Return the sample indices of each batch of an epoch; the last batch may be smaller.

    A full shuffle is a uniform permutation by NumPy's PCG64 seeded with (seed, epoch).
    """
    shuffled = spec.shuffle == "full"
    order = np.random.default_rng([spec.seed, epoch]).permutation(count) if shuffled else np.arange(count)
    return [order[start : start + spec.batch_size] for start in range(0, count, spec.batch_size)]


def make_loader(reader: BatchReader, spec: RunSpec, *, pin: bool) -> Loader:
    """Return the loader that ``spec`` asks for; ``pin`` puts batches into page-locked memory."""
    if spec.workers == 0:
        return InlineLoader(reader, spec)
    if spec.worker_kind == "thread":
        return ThreadLoader(reader, spec, pin=pin)
    return ProcessLoader(reader, spec, pin=pin)


class InlineLoader:
    """Reads each batch when it is asked for, in the consumer's own thread."""

    def __init__(self, reader: BatchReader, spec: RunSpec) -> None:
        self._reader = reader
        self._spec = spec

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        for indices in batch_indices(self._spec, len(self._reader), epoch):
            yield self._reader.__getitems__(indices)

    def close(self) -> None:
        """There is nothing to end."""


class ThreadLoader:
    """Threads read whole batches ahead, in order; an error reaches the consumer at its batch."""

    def __init__(self, reader: BatchReader, spec: RunSpec, *, pin: bool) -> None:
        self._reader = reader
        self._spec = spec
        self._pin = pin
        self._pool = ThreadPoolExecutor(spec.workers, thread_name_prefix="loader")

    def _read(self, indices: Indices) -> Batch:
        x, y = self._reader.__getitems__(indices)
        return (x.pin_memory(), y.pin_memory()) if self._pin else (x, y)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        ahead: deque[Future[Batch]] = deque()
        limit = self._spec.workers * PREFETCH_BATCHES
        try:
            for indices in batch_indices(self._spec, len(self._reader), epoch):
                ahead.append(self._pool.submit(self._read, indices))
                if len(ahead) >= limit:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def close(self) -> None:
        """Wait for reads under way and end the threads."""
        self._pool.shutdown(cancel_futures=True)


class ProcessLoader:
    """torch's DataLoader with persistent worker processes, each reading whole batches."""

    def __init__(self, reader: BatchReader, spec: RunSpec, *, pin: bool) -> None:
        self._order = _EpochOrder(spec, len(reader))
        self._loader: DataLoader[Any] | None = DataLoader(
            _WholeBatches(reader),
            batch_size=None,
            sampler=self._order,
            num_workers=spec.workers,
            collate_fn=_unchanged,
            pin_memory=pin,
            persistent_workers=True,
            prefetch_factor=PREFETCH_BATCHES,
            multiprocessing_context=spec.start_method,
            worker_init_fn=partial(_end_with, os.getpid()),
        )
        self._iterator: Iterator[Any] | None = None

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        if self._loader is None:
            raise RuntimeError("the loader is closed")
        self._order.epoch = epoch
        self._iterator = iter(self._loader)
        for batch in self._iterator:
            if isinstance(batch, BenchError):
                raise batch
            yield batch

    def close(self) -> None:
        """End the worker processes."""
        # torch has no public call for this: dropping the last reference to the iterator does it.
        self._iterator = None
        self._loader = None


class _EpochOrder(Sampler[Indices]):
    """Yields index arrays; arrays, not tensors, because torch sends tensors by file descriptor."""

    def __init__(self, spec: RunSpec, count: int) -> None:
        self._spec = spec
        self._count = count
        self.epoch = 0

    def __iter__(self) -> Iterator[Indices]:
        return iter(batch_indices(self._spec, self._count, self.epoch))

    def __len__(self) -> int:
        return -(-self._count // self._spec.batch_size)


class _WholeBatches(Dataset[Any]):
    """Maps an array of indices to its batch. A user-facing error travels as a value, free of torch's wrapping."""

    def __init__(self, reader: BatchReader) -> None:
        self._reader = reader

    def __getitem__(self, indices: Indices) -> Batch | BenchError:
        try:
            return self._reader.__getitems__(indices)
        except BenchError as error:
            return error


def _end_with(pid: int, worker: int) -> None:  # noqa: ARG001  # torch gives the number of the worker
    """Have a worker end when the process ``pid`` does, even if it is killed.

    torch's own watch is on the parent, which under forkserver is not the process that
    uses the workers: they would wait for ever.
    """
    if not hasattr(os, "pidfd_open"):
        return
    try:
        ended = os.pidfd_open(pid)
    except ProcessLookupError:
        os._exit(1)

    def watch() -> None:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.poll()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def _unchanged(batch: Any) -> Any:
    return batch
