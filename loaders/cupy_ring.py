"""Batches in a ring of buffers on the device, none of which is overwritten while anybody reads it.

Three parties meet here: the host, which fills page-locked buffers; the producer's stream, which fills the device's; and
the consumer's stream, which reads those. Two events per slot keep them apart (CUDA C++ Programming Guide, Events):

- ``filled`` lies behind the producer's work for a slot. The consumer's stream waits for it before it reads, and a host
  that fills the slot's page-locked buffers before it does so again.
- ``released`` lies behind what the consumer did with a batch, at the moment it asks for the next one. The producer's
  stream waits for it before it writes the slot again.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bench.contracts.reader import Indices, torch_dtype

from .cupy_device import Device, Event, Stream
from .cupy_order import Wanted

if TYPE_CHECKING:
    import torch

SLOTS = 3
"""One that the consumer reads, one that is filled ahead, and one that lets the host go on meanwhile."""


@dataclass(slots=True)
class Slot:
    """Buffers of batches that are filled together: ``x`` ``(n, row_bytes)`` uint8, ``y`` ``(n,)`` int64, on the device.

    ``tensors`` are the same memory as torch sees it, ``host`` is whatever the source keeps for this slot, ``sizes``
    are those of the batches in it.
    """

    x: Any
    y: Any
    tensors: tuple[torch.Tensor, torch.Tensor]
    host: Any
    filled: Event
    released: Event
    sizes: tuple[int, ...] = ()


class Source(Protocol):
    """Fills slots. ``ahead`` is how many batches are begun before the consumer has asked for them."""

    ahead: int

    def together(self, batch_bytes: int) -> int:
        """Return how many batches of that size are best filled at a time."""

    def host_buffers(self, capacity: int) -> Any:
        """Return what a slot for that many samples needs beside its buffers on the device."""

    def begin_epoch(self, order: Iterator[Indices], stream: Stream, together: int) -> Iterator[Wanted]:
        """All samples of ``order`` are about to be needed: yield them as ``begin`` wants them, for ``stream``."""

    def begin(self, slot: Slot, wanted: Wanted) -> None:
        """Begin to fill the first rows of a slot, on CuPy's current stream or in threads; returns soon."""

    def finish(self, slot: Slot) -> None:
        """Return once a slot holds all that ``begin`` did not leave to the stream. Raises BackendError."""


class Ring:
    """The slots of batches of up to ``capacity`` samples, ``together`` of them in each."""

    def __init__(
        self, device: Device, source: Source, capacity: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self.capacity = capacity
        row_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self.together = source.together(capacity * row_bytes)
        samples = self.together * capacity
        self.device_bytes = SLOTS * samples * (row_bytes + 8)
        self.slots = [_slot(device, source, samples, row_bytes, shape, dtype) for _ in range(SLOTS)]


def _slot(
    device: Device, source: Source, capacity: int, row_bytes: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Slot:
    x = device.empty((capacity, row_bytes), np.uint8)
    y = device.empty((capacity,), np.int64)
    # The exchange by DLPack is done once for each slot, not once for each batch.
    samples = device.tensor(x).view(torch_dtype(dtype)).reshape(capacity, *shape)
    tensors = (samples, device.tensor(y))
    return Slot(x, y, tensors, source.host_buffers(capacity), device.new_event(), device.new_event())


def deliver(
    device: Device, source: Source, ring: Ring, stream: Stream, order: Iterator[Indices]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the batches of ``order``, filled on ``stream``, for the stream current when each is asked for.

    A batch is the consumer's until it asks for the next one: what that stream, or the one current by then, was told to
    do with it reads the right bytes, however late it does so.

    Raises:
        ValueError: A batch is larger than the ring's capacity.
    """
    # The memory of the ring may have had another use on the consumer's stream a moment ago.
    stream.wait_stream(device.current_stream())
    begun: deque[Slot] = deque()
    slots = itertools.cycle(ring.slots)
    try:
        for wanted in source.begin_epoch(_fitting(order, ring.capacity), stream, ring.together):
            begun.append(_begin(device, source, stream, next(slots), wanted))
            if len(begun) > source.ahead:
                yield from _hand_over(device, source, begun.popleft())
        while begun:
            yield from _hand_over(device, source, begun.popleft())
    finally:
        try:
            for slot in begun:
                source.finish(slot)
        finally:
            # What this stream still does is over before the memory can have another use.
            device.current_stream().wait_stream(stream)


def _fitting(order: Iterator[Indices], capacity: int) -> Iterator[Indices]:
    for indices in order:
        if len(indices) > capacity:
            raise ValueError(f"a batch of {len(indices)} samples after a first one of {capacity}")
        yield indices


def _begin(device: Device, source: Source, stream: Stream, slot: Slot, wanted: Wanted) -> Slot:
    slot.sizes = wanted.sizes
    stream.wait_event(slot.released)
    with device.on(stream):
        source.begin(slot, wanted)
    # At once, since behind the batch that is begun next it would have the consumer wait for that one, too.
    slot.filled.record(stream)
    return slot


def _hand_over(device: Device, source: Source, slot: Slot) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    source.finish(slot)
    x, y = slot.tensors
    consumer = device.current_stream()
    consumer.wait_event(slot.filled)
    start = 0
    try:
        for size in slot.sizes:
            end = start + size
            yield x[start:end], y[start:end]
            start = end
            now = device.current_stream()
            if now != consumer:
                # Whatever was done so far with these batches comes before what the new stream does.
                now.wait_stream(consumer)
                consumer = now
    finally:
        now = device.current_stream()
        if now != consumer:
            consumer.wait_stream(now)
        slot.released.record(consumer)
