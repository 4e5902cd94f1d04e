"""Readers that make batches of their own: one sample at a time and stacked, as most code does, or an outsider's way."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from bench.child import Failure, failure_of
from bench.contracts.errors import BenchError
from bench.contracts.reader import BatchReader, Indices, Reader
from bench.loading.batches import Batch, WorkerError
from bench.loading.order import Order
from bench.loading.workers import begin_worker
from bench.specs.spec import RunSpec


class InlineMaker:
    """Reads each batch when it is asked for, in the consumer's own thread."""

    def __init__(self, reader: BatchReader, order: Order, *, pin: bool) -> None:
        self._reader = reader
        self._order = order
        self._pin = pin

    def start(self) -> None:
        """Open what is needed; there is nobody to start."""
        _make_ready(self._reader)

    def epoch(self, epoch: int, batches: int | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        plan = self._order.batches(epoch, batches)
        _begin_epoch(self._reader, plan)
        for indices in plan:
            yield _read(self._reader, indices, pin=self._pin)

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

    def start(self) -> None:
        """Open what is needed, and start all threads: the pool makes one for each task as long as none is idle."""
        _make_ready(self._reader)
        together = threading.Barrier(self._spec.workers)
        for _ in range(self._spec.workers):
            last = self._pool.submit(together.wait)
        last.result()

    def epoch(self, epoch: int, batches: int | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        ahead: deque[Future[Batch]] = deque()
        limit = self._spec.workers * self._spec.prefetch
        plan = self._order.batches(epoch, batches)
        _begin_epoch(self._reader, plan)
        try:
            for indices in plan:
                ahead.append(self._pool.submit(_read, self._reader, indices, pin=self._pin))
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
        """Start the worker processes and wait until each has made all its imports and opened the store."""
        for _ in self._pass_through([_READY] * self._spec.workers):
            pass

    def epoch(self, epoch: int, batches: int | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        plan = self._order.batches(epoch, batches)
        # torch asks its workers in turns, so each hears of the epoch before its first batch.
        begin = [_Begin(plan)] * self._spec.workers
        for batch in self._pass_through([*begin, *plan]):
            if batch is not None:
                yield batch

    def _pass_through(self, plan: list[_Asked]) -> Iterator[Batch | None]:
        if self._loader is None:
            raise RuntimeError("the loader is closed")
        self._plan.asked = plan
        self._iterator = iter(self._loader)
        for answer in self._iterator:
            if isinstance(answer, Failure):
                raise answer.error or WorkerError(answer)
            yield answer

    def close(self) -> None:
        """End the worker processes."""
        # torch has no public call for this: dropping the last reference to the iterator does it.
        self._iterator = None
        self._loader = None


@dataclass(frozen=True, slots=True)
class _Begin:
    """Tells a worker of an epoch by its batches; without any, to open the store."""

    plan: list[Indices] | None


_READY = _Begin(None)
_Asked = Indices | _Begin


class _Plan(Sampler[_Asked]):
    """Yields index arrays; arrays, not tensors, because torch sends tensors by file descriptor."""

    def __init__(self) -> None:
        self.asked: list[_Asked] = []

    def __iter__(self) -> Iterator[_Asked]:
        return iter(self.asked)

    def __len__(self) -> int:
        return len(self.asked)


class _WholeBatches(Dataset[Any]):
    """Maps an array of indices to its batch. An error travels as a value, free of torch's wrapping."""

    def __init__(self, reader: BatchReader) -> None:
        self._reader = reader

    def __getitem__(self, asked: _Asked) -> Batch | Failure | None:
        try:
            if isinstance(asked, _Begin):
                if asked.plan is None:
                    _make_ready(self._reader)
                else:
                    _begin_epoch(self._reader, asked.plan)
                return None
            return self._reader.__getitems__(asked)
        except Exception as error:  # raised again by the consumer
            return failure_of(error, BenchError)


def _make_ready(reader: BatchReader) -> None:
    if isinstance(reader, Reader):
        reader.make_ready()


def _begin_epoch(reader: BatchReader, plan: list[Indices]) -> None:
    if isinstance(reader, Reader):
        reader.begin(np.concatenate(plan) if plan else np.empty(0, np.int64))


def _read(reader: BatchReader, indices: Indices, *, pin: bool) -> Batch:
    x, y = reader.__getitems__(indices)
    return (x.pin_memory(), y.pin_memory()) if pin else (x, y)


def _begin(pid: int, worker: int) -> None:  # noqa: ARG001  # torch gives the number of the worker
    begin_worker(pid)


def _unchanged(batch: Any) -> Any:
    return batch
