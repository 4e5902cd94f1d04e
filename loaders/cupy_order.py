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
    """The indices ``(n,)`` of one batch or of several in a row: on the host, and where the source asks, on the device.

    ``sizes`` are those of the batches.
    """

    host: Indices
    sizes: tuple[int, ...]
    device: Any = None


def one_batch(indices: Indices) -> Wanted:
    """Return a batch for a source that needs its indices on the host alone."""
    return Wanted(indices, (len(indices),))


class _Buffers(NamedTuple):
    host: Any
    device: Any
    copied: Event


class OrderOnDevice:
    """Copies the indices of an epoch's batches to the device, in groups."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._pair: list[_Buffers] = []

    def __call__(self, order: Iterator[Indices], stream: Stream, together: int) -> Iterator[Wanted]:
        """Yield the batches of ``order``, up to ``together`` at a time, copied on ``stream``, where alone they hold.

        They hold until the indices of the next group are copied on the stream: use them before asking for more.
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
            for first in range(0, len(group), together):
                sizes = tuple(len(indices) for indices in group[first : first + together])
                end = start + sum(sizes)
                yield Wanted(here.host[start:end], sizes, here.device[start:end])
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
