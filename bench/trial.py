"""What happens inside the measured process: open, train, check what was delivered.

The process is fresh, so nothing that came before counts towards its memory or its caches.
It reports to its parent through a pipe and never prints.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import digest, loading, order
from bench.augmentation import Augmenter
from bench.child import Link, failure_of
from bench.contracts.errors import BenchError
from bench.contracts.reader import BatchReader, DeviceReader, Indices, Reader
from bench.job import Job
from bench.measure import disturbance, environment, gpu, heap, probes, storage_device
from bench.measure.clock import PhaseClock, make_clock
from bench.network import make_network
from bench.record import EpochInfo, GpuInfo, IoInfo, OrderInfo, Phase, ProcessInfo
from bench.spec import RunSpec
from bench.training import EpochResult, Recipe, Trainer, resolve_device

CHECKED_BATCHES = 20
RESIDENT_BYTES = 64 * 2**20
"""How much of the data stays on the device for the ceiling: more than most caches, little beside a network."""

IDEAL_S = 5.0
"""How long the ceiling is measured at least, where the run has that many epochs."""


class DeliveryError(BenchError):
    """Batches that are not what the store holds."""


def run_trial(link: Link, job: Job, samples_done: Any) -> None:
    """Entry point of the measured process; ``samples_done`` is a shared counter."""
    phase: Phase = "start"
    try:
        for phase in _phases(job, link, samples_done):
            link.tell("phase", phase)
    except loading.WorkerError as error:
        link.tell("failed", error.failure)
    except Exception as error:  # the cell boundary: whatever it is becomes a record
        link.tell("failed", failure_of(error, BenchError))


def _phases(job: Job, link: Link, samples_done: Any) -> Iterator[Phase]:
    """Do the work, yielding the name of each phase as it begins."""
    spec = job.spec
    yield "start"
    freed_memory_kept = heap.keep_freed_memory()
    device = resolve_device(spec.device)
    if device.type == "cuda":
        _begin_gpu(device, link)
    _seed(spec)
    model, weights = make_network(spec, job.shape, job.classes)
    if spec.compile:
        # In this process: helpers of the compiler would count as part of the run.
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    layout = {"channels_last": spec.channels_last, "compiled": spec.compile}
    augment = Augmenter(spec.augment, spec.seed, job.shape, device) if spec.augment else None
    trainer = Trainer(model, device, amp=spec.amp, recipe=Recipe.of(spec), scale=job.scale, augment=augment, **layout)
    link.tell("device", str(device))
    link.tell("environment", {**_environment(job, device), **weights, "freed_memory_kept": freed_memory_kept})
    link.ask("memory", "baseline")

    def batch_done(samples: int) -> None:
        # One store to shared memory: cheap enough for the timed region.
        samples_done.value += samples

    clock = make_clock(device)
    with ExitStack() as stack:
        opened: _Opened | None = None
        watch = disturbance.Watch(job.root)
        canary_before_s = disturbance.canary_s()
        for epoch in range(spec.epochs):
            if opened is not None and spec.cache == "cold":
                # What is mapped or open stays in memory.
                opened = None
                stack.close()
                gc.collect()
            yield "cache"
            link.ask("cache", epoch)
            fresh = opened is None
            if opened is None:
                yield "open"
                opened = _open(job, device, stack)
                link.tell("reader", opened.reader.facts() if isinstance(opened.reader, Reader) else {})
            yield "train"
            if not _is_warmup(spec, epoch) and (epoch == 0 or _is_warmup(spec, epoch - 1)):
                link.ask("gpu-window", "begin")
            before = probes.snapshot_before()
            result = trainer.epoch(opened.loader.epoch(epoch), clock, batch_done, epoch)
            after = probes.snapshot_after()
            used = probes.used_between(before, after)
            count = len(opened.reader)
            if result.samples != count:
                yield "check"
                # What is lost or comes twice is named, if that happens again in the batches that are checked.
                _check_delivery(opened.loader, spec, count, np.load(job.hashes_path), _Resident(job, device))
                raise DeliveryError(
                    f"{spec.backend} delivered {result.samples:,} samples in an epoch of {count:,}. "
                    "The loader is at fault."
                )
            info = _epoch_info(job, epoch, result, used)
            info = info.model_copy(update={"processes": _processes(probes.used_by_each(before, after))})
            if fresh:
                info = info.model_copy(update={"open_s": opened.open_s, "worker_start_s": opened.worker_start_s})
            link.tell("epoch", info)
            link.ask("epoch-end", (used, opened.storage_read_bytes) if fresh else (used, 0))
        link.ask("gpu-window", "end")
        link.tell("disturbance", {**watch.difference().facts(), "canary_s": [canary_before_s, disturbance.canary_s()]})
        if device.type == "cuda":
            link.tell("gpu", _gpu_info(device))
        link.tell("epochs-done")

        assert opened is not None  # noqa: S101  # a run has at least one epoch
        yield "check"
        resident = _Resident(job, device)
        count = len(opened.reader)
        link.tell("checked", _check_delivery(opened.loader, spec, count, np.load(job.hashes_path), resident))
        if job.trains_ceiling:
            yield "ideal"
            link.tell("ideal", _ideal(job, trainer, resident, clock, count, batch_done))
        yield "order"
        labels = order.stored_labels(opened.reader, job.hashes_path, spec.batch_size, batch_done)
        link.tell("order", _order_info(spec, labels))


@dataclass(frozen=True, slots=True)
class _Opened:
    reader: BatchReader
    loader: loading.Loader
    open_s: float
    worker_start_s: float | None
    storage_read_bytes: int | None
    """What opening read from storage; starting workers reads their libraries, so it is not in here."""


def _open(job: Job, device: torch.device, stack: ExitStack) -> _Opened:
    before = probes.snapshot_before()
    started = time.perf_counter()
    reader = job.spec.open_backend().open(job.root)
    if device.type == "cuda" and isinstance(reader, DeviceReader):
        reader.open_device(device)
    open_s = time.perf_counter() - started
    used = probes.used_between(before, probes.snapshot_after())
    loader = loading.make_loader(reader, job.spec, device)
    stack.callback(loader.close)
    started = time.perf_counter()
    loader.start()
    worker_start_s = time.perf_counter() - started if job.spec.workers else None
    return _Opened(reader, loader, open_s, worker_start_s, used.storage_read_bytes if used else None)


class _Resident:
    """Batches kept on the device, to train from as if loading cost nothing.

    They lie in one piece, so that they do not break up the heap that the training allocates from.
    """

    def __init__(self, job: Job, device: torch.device) -> None:
        self._device = device
        self._batch_size = job.spec.batch_size
        batch_bytes = max(1, self._batch_size * _sample_bytes(job))
        full = job.samples // self._batch_size
        self.limit = min(full, max(2, RESIDENT_BYTES // batch_bytes)) if job.trains_ceiling else 0
        self._kept = 0

    def keep(self, x: Tensor, y: Tensor) -> None:
        """Keep a copy of a full batch, as long as there is room."""
        if self._kept == self.limit or len(y) != self._batch_size:
            return
        if not self._kept:
            size = self.limit * self._batch_size
            self._x = torch.empty((size, *x.shape[1:]), dtype=x.dtype, device=self._device)
            self._y = torch.empty(size, dtype=y.dtype, device=self._device)
        here = slice(self._kept * self._batch_size, (self._kept + 1) * self._batch_size)
        self._x[here], self._y[here] = x, y
        self._kept += 1

    def epoch(self, count: int) -> Iterator[loading.Batch]:
        """Yield as many batches of the same sizes as an epoch of ``count`` samples has, over and over the same."""
        for number, start in enumerate(range(0, count, self._batch_size)):
            first = number % self._kept * self._batch_size
            here = slice(first, first + min(self._batch_size, count - start))
            yield self._x[here], self._y[here]


def _ideal(
    job: Job,
    trainer: Trainer,
    resident: _Resident,
    clock: PhaseClock,
    count: int,
    batch_done: Callable[[int], None],
) -> EpochInfo:
    """Train as many epochs as were counted, fewer once that has taken long enough, and return the median one."""
    infos: list[EpochInfo] = []
    for number in range(max(1, job.spec.epochs - 1)):
        result = trainer.epoch(resident.epoch(count), clock, batch_done, number)
        infos.append(_epoch_info(job, number, result, None))
        if sum(info.epoch_s for info in infos) >= IDEAL_S:
            break
    return sorted(infos, key=lambda info: info.epoch_s)[len(infos) // 2]


def _order_info(spec: RunSpec, labels: order.Labels) -> OrderInfo:
    first = order.epoch_order(spec, len(labels), 0)
    return OrderInfo(
        kind=spec.shuffle,
        block_samples=spec.block_samples,
        buffer_blocks=spec.buffer_blocks,
        mean_displacement=order.mean_displacement(first),
        class_mixing=order.class_mixing(first, labels, spec.batch_size),
    )


def _is_warmup(spec: RunSpec, epoch: int) -> bool:
    return epoch == 0 and spec.epochs > 1


def _begin_gpu(device: torch.device, link: Link) -> None:
    # Events are recorded on the current device's stream.
    torch.cuda.set_device(device)
    link.ask("gpu-watch", gpu.cuda_identity(torch.cuda.get_device_properties(device)))
    # The context, the allocator and cuDNN take their memory before anything is counted.
    torch.nn.Conv2d(3, 8, 3).to(device)(torch.zeros(1, 3, 8, 8, device=device))
    torch.cuda.synchronize(device)
    link.ask("gpu-context")
    torch.cuda.reset_peak_memory_stats(device)


def _seed(spec: RunSpec) -> None:
    torch.manual_seed(spec.seed)
    if spec.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(mode=True)
        torch.backends.cudnn.benchmark = False


def _environment(job: Job, device: torch.device) -> dict[str, Any]:
    return {
        **environment.machine(),
        "libraries": environment.libraries(),
        "store_file_system": environment.file_system(job.root),
        "storage": storage_device.storage_facts(job.root),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def _epoch_info(job: Job, epoch: int, result: EpochResult, used: probes.Counters | None) -> EpochInfo:
    phases = result.phases
    sample_bytes = _sample_bytes(job)
    return EpochInfo(
        epoch=epoch,
        warmup=_is_warmup(job.spec, epoch),
        samples=result.samples,
        epoch_s=phases.epoch_s,
        first_batch_s=phases.first_batch_s,
        wait_s=phases.wait_s,
        copy_s=phases.copy_s,
        compute_s=phases.compute_s,
        augment_s=phases.augment_s,
        stall_fraction=phases.wait_s / phases.epoch_s,
        batch_wait_s=phases.batch_wait_s,
        loss=result.loss,
        accuracy=result.accuracy,
        batch_loss=result.batch_loss,
        io=IoInfo(
            storage_read_bytes=used.storage_read_bytes if used else None,
            read_call_bytes=used.read_call_bytes if used else None,
            read_calls=used.read_calls if used else None,
            major_faults=used.major_faults if used else None,
            read_amplification=used.storage_read_bytes / (result.samples * sample_bytes) if used else None,
        ),
        cpu_user_s=used.cpu_user_s if used else None,
        cpu_system_s=used.cpu_system_s if used else None,
    )


def _processes(used: dict[int, probes.Counters]) -> list[ProcessInfo]:
    return [ProcessInfo(main=pid == os.getpid(), **asdict(counters)) for pid, counters in used.items()]


def _sample_bytes(job: Job) -> int:
    return int(np.prod(job.shape, dtype=np.int64)) * np.dtype(job.dtype).itemsize


def _check_delivery(
    loader: loading.Loader, spec: RunSpec, count: int, hashes: digest.Hashes, resident: _Resident
) -> int:
    """Compare batches of one more epoch with the store's hashes; return how many samples were compared.

    Batches for the ceiling are taken from the same epoch.
    """
    plan = order.batch_indices(spec, count, spec.epochs, max(CHECKED_BATCHES, resident.limit))
    checked = 0
    delivered = loader.epoch(spec.epochs, len(plan))
    for number, (indices, (x, y)) in enumerate(zip(plan, delivered, strict=True)):
        if number < CHECKED_BATCHES:
            checked += _require_equal(spec, indices, (x, y), hashes)
        resident.keep(x, y)
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


def _gpu_info(device: torch.device) -> GpuInfo:
    return GpuInfo(
        name=torch.cuda.get_device_name(device),
        torch_peak_allocated_bytes=torch.cuda.max_memory_allocated(device),
        torch_peak_reserved_bytes=torch.cuda.max_memory_reserved(device),
        cupy_peak_bytes=gpu.cupy_pool_bytes(),
    )
