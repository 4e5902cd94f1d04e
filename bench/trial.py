"""What happens inside the measured process: open, train, check what was delivered.

The process is fresh, so nothing that came before counts towards its memory or its caches.
It reports to its parent through a pipe and never prints.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from bench import digest, loading
from bench.child import Link, failure_of
from bench.contracts.errors import BenchError
from bench.contracts.reader import BatchReader
from bench.job import Job
from bench.measure import environment, probes
from bench.measure.clock import make_clock
from bench.record import EpochInfo, GpuInfo, IoInfo, Phase
from bench.registry import model_builder
from bench.spec import NO_MODEL, RunSpec
from bench.training import EpochResult, Trainer, resolve_device

CHECKED_BATCHES = 20


class DeliveryError(BenchError):
    """Batches that are not what the store holds."""


def run_trial(link: Link, job: Job, samples_done: Any) -> None:
    """Entry point of the measured process; ``samples_done`` is a shared counter."""
    phase: Phase = "start"
    try:
        for phase in _phases(job, link, samples_done):
            link.tell("phase", phase)
    except Exception as error:  # the cell boundary: whatever it is becomes a record
        link.tell("failed", failure_of(error, BenchError))


def _phases(job: Job, link: Link, samples_done: Any) -> Iterator[Phase]:
    """Do the work, yielding the name of each phase as it begins."""
    spec = job.spec
    yield "start"
    device = resolve_device(spec.device)
    if device.type == "cuda":
        # Events are recorded on the current device's stream.
        torch.cuda.set_device(device)
    _seed(spec)
    model = None if spec.model == NO_MODEL else model_builder(spec.model)(job.shape, job.classes)
    trainer = Trainer(model, device, amp=spec.amp, scale=job.scale)
    backend = spec.open_backend()
    link.tell("device", str(device))
    link.tell("environment", _environment(job, device))
    link.ask("memory", "baseline")

    yield "open"
    started = time.perf_counter()
    reader = backend.open(job.root)
    link.tell("open_s", time.perf_counter() - started)

    yield "train"
    with _open_loader(reader, spec, pin=device.type == "cuda") as loader:
        clock = make_clock(device)

        def batch_done(samples: int) -> None:
            # One store to shared memory: cheap enough for the timed region.
            samples_done.value += samples

        for epoch in range(spec.epochs):
            before = probes.snapshot_before()
            result = trainer.epoch(loader.epoch(epoch), clock, batch_done)
            used = probes.used_between(before, probes.snapshot_after())
            link.tell("epoch", _epoch_info(job, epoch, result, used))
        link.ask("memory", "end")
        if device.type == "cuda":
            link.tell("gpu", _gpu_info(device))

        yield "check"
        link.tell("checked", _check_delivery(loader, spec, len(reader), np.load(job.hashes_path)))


@contextmanager
def _open_loader(reader: BatchReader, spec: RunSpec, *, pin: bool) -> Iterator[loading.Loader]:
    loader = loading.make_loader(reader, spec, pin=pin)
    try:
        yield loader
    finally:
        loader.close()


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
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def _epoch_info(job: Job, epoch: int, result: EpochResult, used: probes.Counters | None) -> EpochInfo:
    phases = result.phases
    sample_bytes = int(np.prod(job.shape, dtype=np.int64)) * np.dtype(job.dtype).itemsize
    return EpochInfo(
        epoch=epoch,
        warmup=epoch == 0 and job.spec.epochs > 1,
        samples=result.samples,
        epoch_s=phases.epoch_s,
        first_batch_s=phases.first_batch_s,
        wait_s=phases.wait_s,
        copy_s=phases.copy_s,
        compute_s=phases.compute_s,
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


def _check_delivery(loader: loading.Loader, spec: RunSpec, count: int, hashes: digest.Hashes) -> int:
    """Compare batches of one more epoch with the store's hashes; return how many samples were compared."""
    plan = loading.batch_indices(spec, count, spec.epochs)[:CHECKED_BATCHES]
    checked = 0
    for indices, (x, y) in zip(plan, loader.epoch(spec.epochs), strict=False):
        found = digest.sample_hashes(indices, x.numpy(), y.numpy())
        wrong = np.flatnonzero(found != hashes[indices])
        if len(wrong):
            raise DeliveryError(
                f"{spec.backend} delivered wrong data for sample {indices[wrong[0]]}. "
                "Check the store with `bench verify`; if it is intact, the loader is at fault."
            )
        checked += len(indices)
    return checked


def _gpu_info(device: torch.device) -> GpuInfo:
    return GpuInfo(
        name=torch.cuda.get_device_name(device),
        torch_peak_allocated_bytes=torch.cuda.max_memory_allocated(device),
        torch_peak_reserved_bytes=torch.cuda.max_memory_reserved(device),
    )
