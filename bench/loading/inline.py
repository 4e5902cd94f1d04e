"""Reading each batch when it is asked for, in the consumer's own thread."""

from __future__ import annotations

from collections.abc import Iterator

from bench.contracts.reader import Reader
from bench.loading.batches import Batch, Slot
from bench.loading.order import Order
from bench.specs.spec import RunSpec


class InlineLoader:
    """Fills one buffer again and again; two where they are copied to a device meanwhile."""

    def __init__(self, reader: Reader, spec: RunSpec, order: Order, *, pin: bool) -> None:
        self._reader = reader
        self._spec = spec
        self._order = order
        size = min(spec.batch_size, len(reader))
        self._slots = [Slot.allocated(reader, size, spec.batch_size, pin=pin) for _ in range(2 if pin else 1)]

    def start(self) -> None:
        """Open what is needed; there is nobody to start."""
        self._reader.make_ready()

    def epoch(self, epoch: int, batches: int | None = None) -> Iterator[Batch]:
        """See Loader.epoch."""
        order = self._order.epoch(epoch, batches)
        self._reader.begin(order)
        size = self._spec.batch_size
        for number, start in enumerate(range(0, len(order), size)):
            indices = order[start : start + size]
            slot = self._slots[number % len(self._slots)]
            slot.wait_until_free()
            self._reader.read_into(indices, slot.x[: len(indices)], slot.y[: len(indices)])
            try:
                yield from slot.batches(len(indices))
            finally:
                slot.let_go()

    def close(self) -> None:
        """There is nothing to end."""
