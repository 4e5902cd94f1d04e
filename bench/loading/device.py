"""Batches that a reader delivers on the device, with nothing left to copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from bench.contracts.reader import DeviceReader
from bench.loading.batches import Batch
from bench.loading.order import Order

if TYPE_CHECKING:
    import torch


class DeviceLoader:
    """Asks a reader, opened on the device, for its batches there."""

    def __init__(self, reader: DeviceReader, order: Order, device: torch.device) -> None:
        self._reader = reader
        self._order = order
        self._device = device

    def start(self) -> None:
        """There is nobody to start."""

    def epoch(self, epoch: int, batches: int | None = None) -> Iterator[Batch]:
        """See Loader.epoch."""
        plan = iter(self._order.batches(epoch, batches))
        delivered: Any = self._reader.device_batches(plan, self._device)
        # Left early, it has to let go of what is under way.
        with closing(delivered):
            yield from delivered

    def close(self) -> None:
        """Give back what the reader took on the device."""
        self._reader.close_device()
