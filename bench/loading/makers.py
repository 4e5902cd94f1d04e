"""Readers that make batches of their own: one sample at a time and stacked, as most code does, or an outsider's way."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from bench.child import Failure, failure_of
from bench.contracts.errors import BenchError
from bench.contracts.reader import BatchReader, Indices
from bench.loading.batches import Batch, WorkerError
from bench.loading.order import Order
from bench.loading.workers import begin_worker
from bench.specs.spec import RunSpec


class InlineMaker:
    """Reads each batch when it is asked for, in the consumer's own thread."""

    def __init__(self, reader: BatchReader, order: Order) -> None:
        self._reader = reader
        self._order = order

    def start(self) -> None:
        """There is nobody to start."""

    def epoch(self, epoch: int, batches: int | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        for indices in self._order.batches(epoch, batches):
            yield self._reader.__getitems__(indices)

    def close(self) -> None:
        """There is nothing to end."""


class ThreadMaker:
    """Threads read whole batches ahead, in order; an error reaches the consumer at its batch."""

    def __init__(self, reader: BatchReader, spec: RunSpec, order: Order, *, pin: bool) -> None:
        self._reader = reader
        self._spec = spec
        self._order = order
        self._pin = pin
        self._pool = ThreadPoolExecutor(spec.workers, thread_name_prefix="loader")

    def _read(self, indices: Indices) -> Batch:
        x, y = self._reader.__getitems__(indices)
        return (x.pin_memory(), y.pin_memory()) if self._pin else (x, y)

    def start(self) -> None:
        """Start all threads: the pool makes one for each task as long as none is idle."""
        together = threading.Barrier(self._spec.workers)
        for _ in range(self._spec.workers):
            last = self._pool.submit(together.wait)
        last.result()

    def epoch(self, epoch: int, batches: int | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        ahead: deque[Future[Batch]] = deque()
        limit = self._spec.workers * self._spec.prefetch
        try:
            for indices in self._order.batches(epoch, batches):
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


class DataLoaderMaker:
    """torch's DataLoader with persistent worker processes, each reading whole batches."""

    def __init__(self, reader: BatchReader, spec: RunSpec, order: Order, *, pin: bool) -> None:
        self._spec = spec
        self._order = order
        self._plan = _Plan()
        self._loader: DataLoader[Any] | None = DataLoader(
            _WholeBatches(reader),
            batch_size=None,
            sampler=self._plan,
            num_workers=spec.workers,
            collate_fn=_unchanged,
            pin_memory=pin,
            persistent_workers=True,
            prefetch_factor=spec.prefetch,
            multiprocessing_context=spec.start_method,
            # Else it draws from the generator that networks draw from, which no other loader does.
            generator=torch.Generator(),
            worker_init_fn=partial(_begin, os.getpid()),
        )
        self._iterator: Iterator[Any] | None = None

    def start(self) -> None:
        """Start the worker processes and wait for a first answer of each, so that all their imports are done."""
        for _ in self._pass_through([_NOTHING] * self._spec.workers):
            pass

    def epoch(self, epoch: int, batches: int | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        for batch in self._pass_through(self._order.batches(epoch, batches)):
            if isinstance(batch, Failure):
                raise batch.error or WorkerError(batch)
            yield batch

    def _pass_through(self, plan: list[Indices]) -> Iterator[Any]:
        if self._loader is None:
            raise RuntimeError("the loader is closed")
        self._plan.indices = plan
        self._iterator = iter(self._loader)
        yield from self._iterator

    def close(self) -> None:
        """End the worker processes."""
        # torch has no public call for this: dropping the last reference to the iterator does it.
        self._iterator = None
        self._loader = None


class _Plan(Sampler[Indices]):
    """Yields index arrays; arrays, not tensors, because torch sends tensors by file descriptor."""

    def __init__(self) -> None:
        self.indices: list[Indices] = []

    def __iter__(self) -> Iterator[Indices]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


_NOTHING: Indices = np.empty(0, np.int64)
"""What a worker is asked for to show that it is up."""


class _WholeBatches(Dataset[Any]):
    """Maps an array of indices to its batch. An error travels as a value, free of torch's wrapping."""

    def __init__(self, reader: BatchReader) -> None:
        self._reader = reader

    def __getitem__(self, indices: Indices) -> Batch | Failure | None:
        if not len(indices):
            return None
        try:
            return self._reader.__getitems__(indices)
        except Exception as error:  # raised again by the consumer
            return failure_of(error, BenchError)


def _begin(pid: int, worker: int) -> None:  # noqa: ARG001  # torch gives the number of the worker
    begin_worker(pid)


def _unchanged(batch: Any) -> Any:
    return batch
