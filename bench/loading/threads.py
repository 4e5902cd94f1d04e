"""Threads that read ahead into a ring of buffers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from bench.contracts.reader import Indices, Reader
from bench.loading.batches import SPARE_SLOTS, Batch, Slot, samples_per_task, slots_needed, tasks_of
from bench.loading.crew import Crew, Task
from bench.loading.order import Order
from bench.specs.spec import RunSpec


class ThreadLoader:
    """Delivers in order; an error reaches the consumer at its batch.

    Readers release the GIL while they copy or decode, so threads do as much as processes, without their overhead.
    """

    def __init__(self, reader: Reader, spec: RunSpec, order: Order, *, pin: bool) -> None:
        self._reader = reader
        self._spec = spec
        self._order = order
        self._samples = samples_per_task(reader, spec.batch_size)
        self._spare = SPARE_SLOTS if pin else 0
        slots = slots_needed(spec, self._samples) + self._spare
        size = min(self._samples, len(reader))
        self._slots = [Slot.allocated(reader, size, spec.batch_size, pin=pin) for _ in range(slots)]
        self._crew: Crew[None] = Crew()

    def start(self) -> None:
        """Open what is needed, and start all threads, unless that has been done: each epoch asks for it."""
        if self._crew.started:
            return
        self._reader.make_ready()
        self._crew.start(self._spec.workers, _to_this_device())

    def _fill(self, slot: Slot, indices: Indices) -> None:
        slot.wait_until_free()
        count = len(indices)
        self._reader.read_into(indices, slot.x[:count], slot.y[:count])

    def epoch(self, epoch: int, batches: int | None = None) -> Iterator[Batch]:
        """See Loader.epoch."""
        self.start()
        order = self._order.epoch(epoch, batches)
        self._reader.begin(order)
        coming = iter(tasks_of(order, self._samples))
        free, ahead = deque(self._slots), deque[tuple[Task[None], Slot, int]]()
        try:
            while True:
                while len(free) > self._spare and (part := next(coming, None)):
                    slot, indices = free.popleft(), order[slice(*part)]
                    task = Task(partial(self._fill, slot, indices))
                    ahead.append((task, slot, len(indices)))
                    self._crew.give(task)
                if not ahead:
                    return
                task, slot, count = ahead.popleft()
                task.result()
                try:
                    yield from slot.batches(count)
                finally:
                    slot.let_go()
                free.append(slot)
        finally:
            # The buffers are needed again.
            self._crew.abandon(task for task, _, _ in ahead)

    def close(self) -> None:
        """Wait for reads under way and end the threads."""
        self._crew.close()


def _to_this_device() -> Callable[[], None]:
    """Return what makes the current CUDA device of this thread that of another one, if CUDA is in use.

    A thread begins with the first device, and whatever it asks of CUDA takes memory there for a context, though its
    buffers go to another one (as torch/utils/data/_utils/pin_memory.py avoids it).
    """
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch annotates no result
        return lambda: None
    return partial(torch.cuda.set_device, torch.cuda.current_device())
