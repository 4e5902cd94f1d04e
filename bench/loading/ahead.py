"""Batches that threads read ahead, for torch's own DataLoader: for those who want a reader and nothing else of ours."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from bench.contracts.errors import BenchError
from bench.contracts.reader import BatchReader, Indices, Reader
from bench.loading.batches import Batch
from bench.loading.crew import Crew, Task


class Batches(Protocol):
    """The numbers of the samples of each batch: arrays, tensors or lists of integers. Each pass is an epoch."""

    def __iter__(self) -> Iterator[Any]:
        """Return an epoch, which must come to an end."""

    def __len__(self) -> int:
        """Return how many batches an epoch has."""


class ReadAhead(IterableDataset[Batch]):
    """Whole batches of a reader, read by threads while the consumer is at work on those before.

    ``DataLoader(ReadAhead(reader, IndexBatches(len(reader), 256)), batch_size=None)`` delivers what
    ``DataLoader(reader, batch_size=None, sampler=IndexBatches(len(reader), 256))`` does, sooner. Batches are new each
    time, so they may be kept. Threads live as long as the epoch; an error is raised at its batch.

    Args:
        reader: An opened store.
        batches: Which samples make up each batch, such as :class:`bench.loading.sampler.IndexBatches`.
        threads: How many batches are read at the same time. Readers release the GIL while they copy or decode.
        prefetch: Batches that each thread keeps ready.

    Raises WorkerProcessError, in the process of a DataLoader's worker.
    """

    def __init__(self, reader: BatchReader, batches: Batches, *, threads: int = 2, prefetch: int = 2) -> None:
        if threads < 1 or prefetch < 1:
            raise ValueError(f"threads and prefetch must be 1 at least, not {threads} and {prefetch}")
        self._reader = reader
        self._batches = batches
        self._threads = threads
        self._prefetch = prefetch

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
        crew: Crew[Batch] = Crew()
        tasks = (Task(partial(self._reader.__getitems__, indices)) for indices in plan)
        ahead: deque[Task[Batch]] = deque()

        def give(count: int) -> None:
            for task in itertools.islice(tasks, count):
                ahead.append(task)
                crew.give(task)

        try:
            crew.start(self._threads)
            give(self._threads * self._prefetch)
            while ahead:
                batch = ahead.popleft().result()
                give(1)
                yield batch
                # Not held while the next one is waited for.
                del batch
        finally:
            crew.abandon(ahead)
            crew.close()


class WorkerProcessError(BenchError):
    """A data set that has threads of its own, in a worker process."""
