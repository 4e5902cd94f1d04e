"""Threads that read ahead into a ring of buffers."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from bench.contracts.reader import Indices, Reader
from bench.loading.batches import SPARE_SLOTS, Batch, Slot, samples_per_task, slots_needed, tasks_of
from bench.loading.order import Order
from bench.specs.spec import RunSpec


class _Task:
    """Samples to be read into a slot; ``done`` is held until they are there."""

    def __init__(self, slot: Slot, indices: Indices) -> None:
        self.slot = slot
        self.indices = indices
        self.error: BaseException | None = None
        # A bare lock is what an Event is made of, at a fraction of its cost.
        self.done = threading.Lock()
        self.done.acquire()

    def run(self, reader: Reader) -> None:
        try:
            self.slot.wait_until_free()
            count = len(self.indices)
            reader.read_into(self.indices, self.slot.x[:count], self.slot.y[:count])
        except BaseException as error:  # raised again by the consumer
            self.error = error
        finally:
            self.done.release()


class ThreadLoader:
    """Delivers in order; an error reaches the consumer at its batch.

    Readers release the GIL while they copy or decode, so threads do as much as processes, without their overhead.
    """

    def __init__(self, reader: Reader, spec: RunSpec, order: Order, *, pin: bool) -> None:
        self._reader = reader
        self._spec = spec
        self._order = order
        self._samples = samples_per_task(reader, spec)
        self._spare = SPARE_SLOTS if pin else 0
        slots = slots_needed(spec, self._samples) + self._spare
        size = min(self._samples, len(reader))
        self._slots = [Slot.allocated(reader, size, spec.batch_size, pin=pin) for _ in range(slots)]
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Open what is needed, and start all threads."""
        self._reader.make_ready()
        for number in range(len(self._threads), self._spec.workers):
            thread = threading.Thread(target=self._work, name=f"loader-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task.run(self._reader)

    def epoch(self, epoch: int, batches: int | None = None) -> Iterator[Batch]:
        """See Loader.epoch."""
        self.start()
        order = self._order.epoch(epoch, batches)
        self._reader.begin(order)
        coming = iter(tasks_of(order, self._samples))
        free, ahead = deque(self._slots), deque[_Task]()
        try:
            while True:
                while len(free) > self._spare and (part := next(coming, None)):
                    ahead.append(_Task(free.popleft(), order[slice(*part)]))
                    self._tasks.put(ahead[-1])
                if not ahead:
                    return
                task = ahead.popleft()
                task.done.acquire()
                if task.error is not None:
                    raise task.error
                try:
                    yield from task.slot.batches(len(task.indices))
                finally:
                    task.slot.let_go()
                free.append(task.slot)
        finally:
            self._abandon(ahead)

    def _abandon(self, ahead: deque[_Task]) -> None:
        """Take back what nobody has begun, and wait for the rest: its buffers are needed again."""
        with suppress(queue.Empty):
            while task := self._tasks.get_nowait():
                task.done.release()
        for task in ahead:
            task.done.acquire()

    def close(self) -> None:
        """Wait for reads under way and end the threads."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
