"""Worker processes that read in place, into a ring of buffers that they share with the consumer.

Torch's own worker processes put each batch into fresh shared memory and pass its file descriptor, which takes longer
than reading most batches. Here only the number of a slot crosses the pipe.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch

from bench.child import Failure, failure_of, not_taken_apart, signal_text
from bench.contracts.errors import BenchError
from bench.contracts.reader import Reader
from bench.loading.batches import (
    SPARE_SLOTS,
    Batch,
    WorkerError,
    samples_per_task,
    slots_needed,
    tasks_of,
)
from bench.loading.order import Order
from bench.loading.shared import SharedRing
from bench.loading.workers import begin_worker
from bench.specs.spec import RunSpec

_TASK = struct.Struct("=qqq")
_BEGIN = -1
_STOP_S = 5.0


class WorkerDiedError(BenchError):
    """A worker process ended without being told to."""


class ProcessLoader:
    """Delivers in order; an error reaches the consumer at its batch, the death of a worker at its next one."""

    def __init__(self, reader: Reader, spec: RunSpec, order: Order, *, pin: bool) -> None:
        self._reader = reader
        self._spec = spec
        self._order = order
        self._samples = samples_per_task(reader, spec.batch_size)
        size = min(self._samples, len(reader))
        # Those that a device may still copy from are left alone meanwhile: waiting for it would hold up the consumer.
        self._spare = SPARE_SLOTS if pin else 0
        slots = slots_needed(spec, self._samples) + self._spare
        self._ring = SharedRing(reader, slots, size, spec.batch_size, pin=pin)
        self._workers: list[_Worker] = []

    def start(self) -> None:
        """Start the worker processes and wait until each has made all its imports and opened the store."""
        if not self._workers:
            self._workers = [_Worker(self._reader, self._ring, self._spec) for _ in range(self._spec.workers)]
            for worker in self._workers:
                worker.answer()

    def epoch(self, epoch: int, batches: int | None = None) -> Iterator[Batch]:
        """See Loader.epoch."""
        self.start()
        order = self._order.epoch(epoch, batches)
        self._ring.order[: len(order)] = order
        for worker in self._workers:
            worker.ask(_BEGIN, 0, len(order))
        tasks = tasks_of(order, self._samples)
        free, ahead = deque(range(len(self._ring.slots))), deque[tuple[int, int]]()
        asked = 0
        try:
            for number, (start, stop) in enumerate(tasks):
                while len(free) > self._spare and asked < len(tasks):
                    ahead.append((asked, free.popleft()))
                    self._ask(asked, ahead[-1][1], tasks[asked])
                    asked += 1
                _, place = ahead.popleft()
                self._workers[number % len(self._workers)].answer()
                slot = self._ring.slots[place]
                try:
                    yield from slot.batches(stop - start)
                finally:
                    slot.let_go()
                free.append(place)
        finally:
            # What nobody waits for any more writes into buffers that are needed again; unless all are gone by now.
            for number, _ in ahead if self._workers else ():
                self._workers[number % len(self._workers)].skip()

    def _ask(self, number: int, place: int, part: tuple[int, int]) -> None:
        # In turns, so that answers come in order, and each worker has as many tasks as any other.
        self._ring.slots[place].wait_until_free()
        self._workers[number % len(self._workers)].ask(place, *part)

    def close(self) -> None:
        """End the worker processes, if need be by force."""
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.join()
        self._workers = []
        self._ring.close()


class _Worker:
    """One process; answers come in the order of its tasks."""

    def __init__(self, reader: Reader, ring: SharedRing, spec: RunSpec) -> None:
        context: Any = multiprocessing.get_context(spec.start_method)
        self._pipe: Connection
        self._pipe, pipe = context.Pipe()
        arguments = (os.getpid(), reader, ring, pipe)
        self._process = context.Process(target=_work, args=arguments, daemon=True, name="bench-loader")
        self._process.start()
        # While this end is open here, the death of the process would go unnoticed.
        pipe.close()

    def ask(self, place: int, start: int, stop: int) -> None:
        """Have the samples at these places of the order read into a slot; of a dead process the answer will tell."""
        try:
            self._pipe.send_bytes(_TASK.pack(place, start, stop))
        except OSError:
            return

    def answer(self) -> None:
        """Wait until the next task is done. Raises what the reader raised, WorkerError and WorkerDiedError."""
        if message := self._receive():
            failure: Failure = pickle.loads(message)  # noqa: S301  # of our own process
            raise failure.error or WorkerError(failure)

    def skip(self) -> None:
        """Wait until the next task is done, whatever comes of it."""
        with suppress(WorkerDiedError):
            self._receive()

    def _receive(self) -> bytes:
        try:
            return self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise WorkerDiedError(f"A loader worker {self._death()}.") from error

    def _death(self) -> str:
        self._process.join(_STOP_S)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"(process {self._process.pid}) ended with exit code {code}"
        return f"(process {self._process.pid}) was killed by {signal_text(-code)}"

    def stop(self) -> None:
        try:
            self._pipe.send_bytes(b"")
        except OSError:
            return

    def join(self) -> None:
        self._process.join(_STOP_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self._pipe.close()


def _work(pid: int, reader: Reader, ring: SharedRing, pipe: Connection) -> None:
    begin_worker(pid)
    done = not_taken_apart()
    # Several workers share the cores; and after a fork, the threads of the parent's pool do not exist here.
    torch.set_num_threads(1)
    ready = _outcome(reader.make_ready)
    pipe.send_bytes(ready)
    begun = b""
    while message := pipe.recv_bytes():
        place, start, stop = _TASK.unpack(message)
        if place == _BEGIN:
            begun = _outcome(reader.begin, ring.order[:stop].copy())
            continue
        slot, count = ring.slots[place], stop - start
        pipe.send_bytes(begun or _outcome(reader.read_into, ring.order[start:stop], slot.x[:count], slot.y[:count]))
    done()


def _outcome(read: Callable[..., None], *arguments: Any) -> bytes:
    """Call the reader; return nothing, or the failure."""
    try:
        read(*arguments)
    except Exception as error:  # raised again by the consumer
        return pickle.dumps(failure_of(error, BenchError))
    return b""
