"""Batches that threads read ahead, for torch's own DataLoader: for those who want a reader and nothing else of ours."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from bench.contracts.errors import BenchError
from bench.contracts.reader import BatchReader, Indices, Reader, checked_indices
from bench.loading.batches import Batch, samples_per_task
from bench.loading.crew import Crew, Task
from bench.loading.lent import Lender


class Batches(Protocol):
    """The numbers of the samples of each batch: arrays, tensors or lists of integers. Each pass is an epoch."""

    def __iter__(self) -> Iterator[Any]:
        """Return an epoch, which must come to an end."""

    def __len__(self) -> int:
        """Return how many batches an epoch has."""


class ReadAhead(IterableDataset[Batch]):
    """Whole batches of a reader, read by threads while the consumer is at work on those before.

    ``DataLoader(ReadAhead(reader, IndexBatches(len(reader), 256)), batch_size=None)`` delivers what
    ``DataLoader(reader, batch_size=None, sampler=IndexBatches(len(reader), 256))`` does, sooner. Batches may be kept:
    memory is used again only once nobody holds any of it. Where batches are small, some lie beside each other in it, so
    that one that is kept keeps up to 8 MB. Threads live as long as the epoch; an error is raised at its batch, or at
    one that is read along with it.

    Args:
        reader: An opened store.
        batches: Which samples make up each batch, such as :class:`bench.loading.sampler.IndexBatches`.
        threads: How many batches are read at the same time. Readers release the GIL while they copy or decode.
        prefetch: Batches that each thread keeps ready, more where it reads several at once.

    Raises ValueError for no threads or nothing to keep ready, and in the process of a DataLoader's worker
    WorkerProcessError.
    """

    def __init__(self, reader: BatchReader, batches: Batches, *, threads: int = 2, prefetch: int = 2) -> None:
        if threads < 1 or prefetch < 1:
            raise ValueError(f"threads and prefetch must be 1 at least, not {threads} and {prefetch}")
        self._reader = reader
        self._batches = batches
        self._threads = threads
        self._prefetch = prefetch
        self._lender: Lender | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lender": None}

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        if get_worker_info() is not None:
            raise WorkerProcessError(
                "ReadAhead reads by threads of its own, and each worker process would deliver every batch. "
                "Use DataLoader(…, num_workers=0), or the reader itself as the data set."
            )
        return self._epoch()

    def _epoch(self) -> Iterator[Batch]:
        plan: list[Indices] = [np.asarray(indices) for indices in self._batches]
        if isinstance(self._reader, Reader):
            self._reader.make_ready()
            self._reader.begin(np.concatenate(plan) if plan else np.empty(0, np.int64))
        reads, at_once = self._reads(plan)
        crew: Crew[list[Batch]] = Crew()
        ahead: deque[Task[list[Batch]]] = deque()

        def give(count: int) -> None:
            for read in itertools.islice(reads, count):
                ahead.append(Task(read))
                crew.give(ahead[-1])

        try:
            crew.start(self._threads)
            give(self._threads * self._tasks(at_once))
            while ahead:
                found = ahead.popleft().result()
                give(1)
                found.reverse()
                while found:
                    # Held by nobody here while it is with the consumer, nor while the next one is waited for.
                    yield found.pop()
        finally:
            crew.abandon(ahead)
            crew.close()

    def _tasks(self, at_once: int) -> int:
        # Small batches, several in a task, are gone through in no time: then the next tasks have to be done.
        return -(-self._prefetch // at_once) + 2 * (at_once > 1)

    def _reads(self, plan: Sequence[Indices]) -> tuple[Iterator[Callable[[], list[Batch]]], int]:
        """Return what is to be done, each in a thread, for some batches at once, and how many those are."""
        reader, largest = self._reader, max(map(len, plan), default=0)
        fills = isinstance(reader, Reader) and type(reader).__getitems__ is Reader.__getitems__
        if not fills or not largest:
            return (partial(_made, reader, indices) for indices in plan), 1
        assert isinstance(reader, Reader)  # noqa: S101  # for the type checker
        samples = samples_per_task(reader, largest)
        at_once = samples // largest
        if self._lender is None or self._lender.samples < samples:
            # Beside those being read: two with the consumer, who may go on holding what came before.
            most = self._threads * self._tasks(at_once) + 2
            self._lender = Lender(reader, samples, most)
        lender = self._lender
        parts = (plan[start : start + at_once] for start in range(0, len(plan), at_once))
        return (partial(_filled, reader, part, *lender.lend()) for part in parts), at_once


def _made(reader: BatchReader, indices: Indices) -> list[Batch]:
    return [reader.__getitems__(indices)]


def _filled(reader: Reader, plan: Sequence[Indices], x: Tensor, y: Tensor) -> list[Batch]:
    indices = checked_indices(np.concatenate(plan), len(reader))
    reader.read_into(indices, x[: len(indices)], y[: len(indices)])
    ends = list(itertools.accumulate(map(len, plan)))
    return [(x[begin:end], y[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)]


class WorkerProcessError(BenchError):
    """A data set that has threads of its own, in a worker process."""
