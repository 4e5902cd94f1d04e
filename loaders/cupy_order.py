"""The order of an epoch on its way to the device: many batches' indices in one copy.

A copy for each batch would cost the host more than the gather itself, while the device waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np

from bench.contracts.reader import Indices, checked_indices

from .cupy_device import Device, Event, Stream

GROUP_INDICES = 1 << 16
"""Indices per copy, 0.5 MB: some hundred batches, and soon there."""


class Wanted(NamedTuple):
    """The indices of a batch ``(n,)``: on the host, and where the source asked for that, on the device."""

    host: Indices
    device: Any = None


class _Buffers(NamedTuple):
    host: Any
    device: Any
    copied: Event


class OrderOnDevice:
    """Copies the indices of an epoch's batches to the device, in groups."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._pair: list[_Buffers] = []

    def __call__(self, order: Iterator[Indices], stream: Stream) -> Iterator[Wanted]:
        """Yield each batch of ``order``, its copy enqueued on ``stream``, where alone it may be used.

        A batch's indices hold until those of the next group are copied on the stream: use it before asking for more.
        """
        buffers: Iterator[_Buffers] | None = None
        for group in _groups(order):
            count = sum(map(len, group))
            if buffers is None or count > len(self._pair[0].host):
                self._make_room(count, stream)
                buffers = cycle(self._pair)
            here = next(buffers)
            # The copy before the last one has read these by now, unless the device is far behind.
            here.copied.synchronize()
            np.concatenate(group, out=here.host[:count])
            with self._device.on(stream):
                self._device.copy_in(here.device[:count], here.host[:count])
            here.copied.record(stream)
            start = 0
            for indices in group:
                end = start + len(indices)
                yield Wanted(indices, here.device[start:end])
                start = end

    def _make_room(self, count: int, stream: Stream) -> None:
        if self._pair and count <= len(self._pair[0].host):
            return
        for buffers in self._pair:
            buffers.copied.synchronize()
        size = max(GROUP_INDICES, count)
        with self._device.on(stream):
            self._pair = [
                _Buffers(
                    self._device.pinned((size,), np.int64),
                    self._device.empty((size,), np.int64),
                    self._device.new_event(),
                )
                for _ in range(2)
            ]


def _groups(order: Iterator[Indices]) -> Iterator[list[Indices]]:
    """Yield as many whole batches as fit into a group, at least one."""
    group: list[Indices] = []
    count = 0
    for indices in order:
        if group and count + len(indices) > GROUP_INDICES:
            yield group
            group, count = [], 0
        group.append(indices)
        count += len(indices)
    if group:
        yield group


def checked(order: Iterator[Indices], count: int) -> Iterator[Indices]:
    """Yield the batches of ``order``; raises IndexError at one that reaches outside of a store of ``count`` samples."""
    for indices in order:
        yield checked_indices(indices, count)
