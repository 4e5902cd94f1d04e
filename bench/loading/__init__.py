"""A store and a RunSpec become an iterator of batches: workers, buffers, prefetch.

For one seed every backend delivers the same batches in the same order, whatever the number and kind of workers. A
batch belongs to the loader: it holds until the next one is asked for, as its buffers are used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.contracts.reader import BatchReader, DeviceReader, Reader
from bench.loading.batches import Batch, Loader, WorkerError
from bench.loading.order import Order
from bench.specs.spec import PREFETCH_BATCHES, RunSpec

if TYPE_CHECKING:
    import torch

__all__ = ["PREFETCH_BATCHES", "Batch", "Loader", "WorkerError", "make_loader"]


def make_loader(
    reader: BatchReader,
    spec: RunSpec,
    device: torch.device | None = None,
    order: Order | None = None,
    *,
    on_device: bool = True,
) -> Loader:
    """Return the loader that ``spec`` asks for; batches for a CUDA device lie in page-locked memory.

    Samples come in ``order``, by default that of all samples of the reader.

    A reader that fills buffers is given buffers that are made once and used again. One that makes batches of its own
    (one sample at a time and stacked, or an outsider's) is asked for those, in processes through torch's DataLoader, as
    is usual. One that delivers on a CUDA device does so unless not ``on_device``, and has to be opened there before.
    """
    from bench.loading import makers, processes, threads
    from bench.loading.device import DeviceLoader
    from bench.loading.inline import InlineLoader

    order = Order(spec, len(reader)) if order is None else order
    if on_device and device is not None and device.type == "cuda" and isinstance(reader, DeviceReader):
        return DeviceLoader(reader, order, device)
    pin = device is not None and device.type == "cuda"
    if isinstance(reader, Reader) and type(reader).__getitems__ is Reader.__getitems__:
        if spec.workers == 0:
            return InlineLoader(reader, spec, order, pin=pin)
        kind = threads.ThreadLoader if spec.worker_kind == "thread" else processes.ProcessLoader
        return kind(reader, spec, order, pin=pin)
    if spec.workers == 0:
        return makers.InlineMaker(reader, order, pin=pin)
    maker = makers.ThreadMaker if spec.worker_kind == "thread" else makers.DataLoaderMaker
    return maker(reader, spec, order, pin=pin)
