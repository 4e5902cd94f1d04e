"""What happens inside the measured process: open, train, evaluate, check what was delivered.

The process is fresh, so nothing that came before counts towards its memory or its caches.
It reports to its parent through a pipe and never prints.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

import bench
from bench import loading, registry
from bench.child import Link, failure_of
from bench.contracts.backend import BackendError
from bench.contracts.errors import BenchError
from bench.contracts.reader import BatchReader, DeviceReader, Reader
from bench.loading import order
from bench.measure import disturbance, environment, gpu, heap, probes, storage_device
from bench.measure.clock import make_clock
from bench.records.comparability import surroundings
from bench.records.record import GpuInfo, Phase
from bench.specs.augmentation import Augmenter
from bench.specs.spec import RunSpec
from bench.training.ceiling import Resident, measure_ideal
from bench.training.checkpoint import Checkpoint
from bench.training.delivery import DeliveryError, Opened, check_delivery, open_store
from bench.training.epochs import epoch_info, processes
from bench.training.job import Job
from bench.training.lessons import lessons_of
from bench.training.network import make_network
from bench.training.trainer import DeviceMemoryError, Recipe, Trainer, resolve_device
from bench.training.validation import Best


def run_trial(link: Link, job: Job, samples_done: Any) -> None:
    """Entry point of the measured process; ``samples_done`` is a shared counter."""
    phase: Phase = "start"
    try:
        for phase in _phases(job, link, samples_done):
            link.tell("phase", phase)
    except loading.WorkerError as error:
        link.tell("failed", error.failure)
    except torch.cuda.OutOfMemoryError as error:
        link.tell("failed", failure_of(DeviceMemoryError.of(job.spec.device, error), BenchError))
    except Exception as error:  # the cell boundary: whatever it is becomes a record
        link.tell("failed", failure_of(error, BenchError))


def _phases(job: Job, link: Link, samples_done: Any) -> Iterator[Phase]:
    """Do the work, yielding the name of each phase as it begins."""
    yield "start"
    freed_memory_kept = heap.keep_freed_memory()
    device = resolve_device(job.spec.device, lambda text: link.tell("note", text))
    if device.type == "cuda":
        _begin_gpu(device, link)
    trial = _Trial(job, link, device, samples_done)
    # Looked through once while nothing is timed, what is there counts as old: epochs are not stopped for all of it.
    gc.collect()
    gc.enable()
    link.tell("device", str(device))
    link.tell("environment", {**_environment(job, device), **trial.weights, "freed_memory_kept": freed_memory_kept})
    link.ask("memory", "baseline")
    with ExitStack() as stack:
        yield from trial.epochs(stack)
        yield from trial.conclusion(stack)


class _Trial:
    """One training, from where its checkpoint is, if it has one, to its end."""

    def __init__(self, job: Job, link: Link, device: torch.device, samples_done: Any) -> None:
        spec = job.spec
        self._job, self._spec, self._link, self._device = job, spec, link, device
        self._samples_done = samples_done
        self._lessons = lessons_of(job, self._batch_done)
        for note in self._lessons.notes:
            link.tell("note", note)
        _seed(spec)
        model, self.weights = make_network(spec, job.shape, len(job.classes))
        if spec.compile:
            # In this process: helpers of the compiler would count as part of the run.
            os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        layout = {"channels_last": spec.channels_last, "compiled": spec.compile}
        recipe = Recipe.of(spec, self._lessons.class_weights)
        augment = Augmenter(spec.augment, spec.seed, job.shape, device) if spec.augment else None
        self._trainer = Trainer(model, device, amp=spec.amp, recipe=recipe, scale=job.scale, augment=augment, **layout)
        self._best = Best(spec.early_stopping) if self._lessons.val is not None else None
        self._training = self._lessons.facts.model_copy(
            update={"parameters": None if model is None else sum(p.numel() for p in model.parameters())}
        )
        self._checkpoint: Checkpoint | None = None
        if job.checkpoint is not None:
            self._resume(Checkpoint.at(job.checkpoint, spec, job.digest, job.fold_id, job.evaluated_digests))
        if model is not None:
            link.tell("training", self._training)
        self._next = self._checkpoint.next_epoch if self._checkpoint else 0
        self._clock = make_clock(device)
        self._peaks = _GpuPeaks(device)
        self._opened: Opened | None = None

    def _resume(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        checkpoint.require_weights((self.weights.get("weights") or {}).get("sha256"))
        environment = {**_environment(self._job, self._device), "bench": bench.__version__}
        checkpoint.require_surroundings(surroundings(environment, self._spec.memory_limit_bytes))
        checkpoint.load_into(self._trainer, self._best)
        self._training = self._training.model_copy(update={"resumed_before": checkpoint.resumed_before})
        self._link.tell("resumed", list(checkpoint.told))

    def _batch_done(self, samples: int) -> None:
        # One store to shared memory: cheap enough for the timed region.
        self._samples_done.value += samples

    def epochs(self, stack: ExitStack) -> Iterator[Phase]:
        """Train; after each epoch evaluate and keep it where that is asked for, with all counters at rest."""
        first = self._next
        canary_before_s = disturbance.canary_s()
        self._watch = disturbance.Watch(self._job.root)
        self._since = self._watch.start
        while self._next < self._spec.epochs and not (self._best is not None and self._best.exhausted):
            epoch = self._next
            warmup = epoch == first and self._has_warmup(epoch)
            if self._opened is not None and self._spec.cache == "cold":
                # What is mapped or open stays in memory.
                self._opened = None
                stack.close()
                gc.collect()
            yield "cache"
            self._link.ask("cache", epoch)
            fresh = self._opened is None
            if fresh:
                yield "open"
            self._open(stack)
            yield "train"
            # Given on and kept nowhere here: a reader that is still known would keep its mappings in memory.
            yield from self._epoch(epoch, self._open(stack), warmup=warmup, fresh=fresh)
            self._next += 1
            if self._lessons.val is not None or self._checkpoint is not None:
                with self._paused():
                    yield from self._keep(epoch)
        self._watch.leave_out(self._since)
        canary_s = [canary_before_s, disturbance.canary_s()]
        self._link.tell("disturbance", {**self._watch.difference().facts(), "canary_s": canary_s})
        if self._device.type == "cuda":
            self._link.tell("gpu", self._peaks.info())
        self._link.tell("epochs-done")

    def _has_warmup(self, epoch: int) -> bool:
        """Whether the first epoch of this process is a warm-up: unless no other would count."""
        counted = self._checkpoint is not None and self._checkpoint.counted
        return self._spec.epochs > 1 if epoch == 0 else counted or epoch < self._spec.epochs - 1

    def _open(self, stack: ExitStack) -> Opened:
        if self._opened is None:
            self._opened = open_store(self._spec, self._job.root, self._lessons.order, self._device, stack)
            reader = self._opened.reader
            self._link.tell("reader", _facts_of(reader))
        return self._opened

    def _epoch(self, epoch: int, opened: Opened, *, warmup: bool, fresh: bool) -> Iterator[Phase]:
        # What lies between epochs counts for nothing: looking at a store of many files takes seconds there.
        self._watch.leave_out(self._since)
        if not warmup:
            self._link.ask("gpu-window", "begin")
        before = probes.snapshot_before()
        result = self._trainer.epoch(opened.loader.epoch(epoch), self._clock, self._batch_done, epoch)
        after = probes.snapshot_after()
        if not warmup:
            self._link.ask("gpu-window", "end")
        self._since = self._watch.snapshot()
        used = probes.used_between(before, after)
        count = len(self._lessons.order)
        if result.samples != count:
            yield "check"
            # What is lost or comes twice is named, if that happens again in the batches that are checked.
            self._check(opened)
            raise DeliveryError(
                f"{self._spec.backend} delivered {result.samples:,} samples in an epoch of {count:,}. "
                "The loader is at fault."
            )
        info = epoch_info(self._job, epoch, result, used, warmup=warmup)
        info = info.model_copy(update={"processes": processes(probes.used_by_each(before, after))})
        if fresh:
            info = info.model_copy(update={"open_s": opened.open_s, "worker_start_s": opened.worker_start_s})
        self._link.tell("epoch", info)
        self._link.ask("epoch-end", (used, opened.storage_read_bytes) if fresh else (used, 0))

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """Let no memory count that is taken meanwhile."""
        self._link.ask("pause", True)
        self._peaks.note()
        yield
        self._peaks.forget()
        self._link.ask("pause", False)

    def _keep(self, epoch: int) -> Iterator[Phase]:
        """Evaluate what has been learnt until now, and write the checkpoint."""
        if self._best is not None and self._lessons.val is not None:
            yield "evaluate"
            found = self._lessons.val.predictions(self._trainer, self._device, epoch, self._batch_done)
            self._best.consider(epoch, float(np.mean(found.true == found.predicted)), self._trainer.trained)
            # Asked, so that whoever computes its scores is done before the next epoch begins.
            self._link.ask("validation", found)
        if self._checkpoint is not None:
            yield "checkpoint"
            self._checkpoint.save(self._link.ask("keep"), self._trainer, self._best, self._device)

    def conclusion(self, stack: ExitStack) -> Iterator[Phase]:
        """Evaluate the best weights, check what is delivered, and measure the ceiling, after all that is counted."""
        last = self._next - 1
        if self._best is not None and self._best.epoch is not None:
            stopped = self._next < self._spec.epochs
            self._training = self._training.model_copy(
                update={"best_epoch": self._best.epoch, "stopped_early": stopped}
            )
            self._link.tell("training", self._training)
            self._best.restore(self._trainer.trained)
            last = self._best.epoch
        if self._lessons.test is not None:
            yield "evaluate"
            found = self._lessons.test.predictions(self._trainer, self._device, last, self._batch_done)
            self._link.ask("test", found)
        yield "check"
        opened = self._open(stack)
        resident = Resident(self._job, len(self._lessons.order), self._device)
        self._link.tell("checked", self._check(opened, batches=resident.limit, keep=resident.keep))
        if self._job.trains_ceiling:
            yield "ideal"
            self._link.tell("ideal", measure_ideal(self._job, self._trainer, resident, self._clock, self._batch_done))
        yield "order"
        labels = self._lessons.labels
        if labels is None:
            path, size = self._job.hashes_path, self._spec.batch_size
            labels = order.stored_labels(opened.reader, path, size, self._batch_done)
        self._link.tell("order", self._lessons.order_info(self._spec, labels))

    def _check(self, opened: Opened, **kept: Any) -> int:
        hashes = np.load(self._job.hashes_path)
        return check_delivery(opened.loader, self._spec, self._lessons.order, hashes, **kept)


def _begin_gpu(device: torch.device, link: Link) -> None:
    # First, as making a device the current one creates its context.
    link.ask("gpu-watch", gpu.cuda_identity(torch.cuda.get_device_properties(device)))
    # Events are recorded on the current device's stream.
    torch.cuda.set_device(device)
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
    libraries = environment.libraries() | registry.packages(job.spec.backend, job.spec.dataset_name)
    if device.type == "cuda" and (driver := gpu.driver_version()) is not None:
        libraries["nvidia-driver"] = driver
    return {
        **environment.machine(),
        "libraries": libraries,
        "store_file_system": environment.file_system(job.root),
        "storage": storage_device.storage_facts(job.root),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def _facts_of(reader: BatchReader) -> dict[str, Any]:
    facts = reader.facts() if isinstance(reader, Reader | DeviceReader) else {}
    try:
        json.dumps(facts)
    except (TypeError, ValueError) as error:
        # Now, not when the record is written, after all epochs.
        raise BackendError(f"facts() of the reader has a value that JSON cannot hold: {error}.") from error
    return facts


class _GpuPeaks:
    """The peaks of torch's memory on the device, in epochs alone."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._allocated_bytes = self._reserved_bytes = 0

    def note(self) -> None:
        """Keep the peaks so far."""
        if self._device.type == "cuda":
            self._allocated_bytes = max(self._allocated_bytes, torch.cuda.max_memory_allocated(self._device))
            self._reserved_bytes = max(self._reserved_bytes, torch.cuda.max_memory_reserved(self._device))

    def forget(self) -> None:
        """Let the peaks since they were kept count for nothing."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def info(self) -> GpuInfo:
        """Return all that is known of the device's memory."""
        self.note()
        return GpuInfo(
            name=torch.cuda.get_device_name(self._device),
            torch_peak_allocated_bytes=self._allocated_bytes,
            torch_peak_reserved_bytes=self._reserved_bytes,
            cupy_peak_bytes=gpu.cupy_pool_bytes(),
        )
