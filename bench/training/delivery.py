"""Opening a store for a run, and holding what its loader delivers against what the store has to hold."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench import loading, registry
from bench.contracts.errors import BenchError
from bench.contracts.reader import BatchReader, DeviceReader, Indices, Reader
from bench.loading.order import Order
from bench.measure import probes
from bench.specs.spec import RunSpec
from bench.stores import digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHECKED_BATCHES = 20


class DeliveryError(BenchError):
    """Batches that are not what the store holds."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A store with its loader; ``storage_read_bytes`` is what opening it read from storage.

    Worker processes open it for themselves, which is part of ``worker_start_s``. As they also read their libraries, it
    is not in the bytes. ``worker_start_s`` is None without workers.
    """

    reader: BatchReader
    loader: loading.Loader
    open_s: float
    worker_start_s: float | None
    storage_read_bytes: int | None


def open_store(
    spec: RunSpec, root: Path, order: Order, device: torch.device, stack: ExitStack, *, on_device: bool = True
) -> Opened:
    """Open a store and start the loader, which ``stack`` closes.

    Not ``on_device``, a reader that could deliver on a CUDA device is read on the host, as any other is.
    """
    registry.import_libraries(spec.backend)
    backend = spec.open_backend()
    backend.import_libraries()
    before = probes.snapshot_before()
    started = time.perf_counter()
    reader = backend.open(root)
    if on_device and device.type == "cuda" and isinstance(reader, DeviceReader):
        reader.open_device(device, min(spec.batch_size, len(order)))
    elif isinstance(reader, Reader) and not (spec.workers and spec.worker_kind == "process"):
        reader.make_ready()
    loader = loading.make_loader(reader, spec, device, order, on_device=on_device)
    open_s = time.perf_counter() - started
    used = probes.used_between(before, probes.snapshot_after())
    stack.callback(loader.close)
    started = time.perf_counter()
    loader.start()
    worker_start_s = time.perf_counter() - started if spec.workers else None
    return Opened(reader, loader, open_s, worker_start_s, used.storage_read_bytes if used else None)


def check_delivery(
    loader: loading.Loader,
    spec: RunSpec,
    order: Order,
    hashes: digest.Hashes,
    *,
    batches: int = 0,
    keep: Callable[[Tensor, Tensor], None] = lambda x, y: None,  # noqa: ARG005  # nothing is kept
) -> int:
    """Compare batches of one more epoch with the store's hashes; return how many samples were compared.

    ``keep`` is given all of them, at least ``batches`` if there are as many. Raises DeliveryError.
    """
    plan = order.batches(spec.epochs, max(CHECKED_BATCHES, batches))
    checked = 0
    delivered = loader.epoch(spec.epochs, len(plan))
    for number, (indices, (x, y)) in enumerate(zip(plan, delivered, strict=True)):
        if number < CHECKED_BATCHES:
            checked += _require_equal(spec, indices, (x, y), hashes)
        keep(x, y)
    return checked


def _require_equal(spec: RunSpec, indices: Indices, batch: loading.Batch, hashes: digest.Hashes) -> int:
    x, y = batch[0].cpu().numpy(), batch[1].cpu().numpy()
    count = min(len(x), len(y), len(indices))
    found = digest.sample_hashes(indices[:count], x[:count], y[:count])
    wrong = np.flatnonzero(found != hashes[indices[:count]])
    if len(wrong):
        raise DeliveryError(
            f"{spec.backend} delivered wrong data for sample {indices[wrong[0]]}. "
            "Check the store with `bench verify`; if it is intact, the loader is at fault."
        )
    if not len(x) == len(y) == len(indices):
        raise DeliveryError(
            f"{spec.backend} delivered {len(x)} samples and {len(y)} labels for a batch of {len(indices)}, "
            f"the first of which is sample {indices[0]}. The loader is at fault."
        )
    return len(indices)
