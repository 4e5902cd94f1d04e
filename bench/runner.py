"""A RunSpec becomes a RunRecord: prepare, measure in a fresh process, keep whatever happened."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from bench import checks, isolated
from bench.child import Child, ChildDiedError, Failure, Link
from bench.contracts.backend import BackendError
from bench.contracts.errors import BenchError
from bench.contracts.source import Progress
from bench.job import Job
from bench.measure import environment, memory
from bench.measure.memory import PeakPss
from bench.prepare import UnsupportedError
from bench.record import (
    DataInfo,
    EpochInfo,
    ErrorInfo,
    GpuInfo,
    Lossy,
    MemoryInfo,
    Phase,
    RunRecord,
    Skipped,
    Status,
    StoreInfo,
)
from bench.spec import NO_MODEL, RunSpec
from bench.store import Store


class BatchTooLargeError(BenchError):
    """More samples in a batch than in the data set."""


class SampleShapeError(BenchError):
    """Samples that are no images, for a model that needs images."""


class RunProgress(Progress, Protocol):
    """Progress that also hears of finished epochs."""

    def epoch(self, info: EpochInfo) -> None:
        """An epoch is complete."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where raw data is looked for, and where downloads and stores are kept."""

    data_dir: Path
    search: tuple[Path, ...]


@dataclass(slots=True)
class _Findings:
    """What is known of a run so far."""

    status: Status = "interrupted"
    phase: Phase = "prepare"
    error: ErrorInfo | None = None
    trace: str | None = None
    environment: dict[str, Any] = field(default_factory=environment.machine)
    store: Store | None = None
    device: str | None = None
    open_s: float | None = None
    epochs: list[EpochInfo] = field(default_factory=list)
    checked_samples: int | None = None
    baseline_pss_bytes: int | None = None
    peak: memory.Pss | None = None
    gpu: GpuInfo | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A record, and the traceback behind a failure."""

    record: RunRecord
    trace: str | None


def run(spec: RunSpec, places: Places, progress: RunProgress, *, repair: bool = False) -> Outcome:
    """Prepare and measure one run.

    Failures of the measured process, unsupported combinations and interruptions end up in
    the record. Raises BenchError for everything that keeps the measurement from beginning.
    """
    started_at = datetime.now(UTC).isoformat(timespec="microseconds")
    found = _Findings()
    _require_device(spec)
    try:
        _require_workers(spec)
        found.store = isolated.prepare(spec, places.data_dir, places.search, progress, repair=repair)
        _require_batch(spec, found.store)
        _require_image(spec, found.store)
        found.phase = "start"
        _measure(spec, found.store, found, progress)
    except UnsupportedError as error:
        found.status = "unsupported"
        found.error = ErrorInfo(phase="prepare", type=type(error).__name__, message=str(error))
    except KeyboardInterrupt:
        found.status = "interrupted"
        found.error = ErrorInfo(phase=found.phase, type="KeyboardInterrupt", message="Interrupted by the user.")
    return Outcome(_record(spec, started_at, found), found.trace)


def _require_device(spec: RunSpec) -> None:
    if spec.device.startswith("cuda"):
        # Only then is torch worth its import time here.
        from bench.training import resolve_device

        resolve_device(spec.device)


def _require_workers(spec: RunSpec) -> None:
    able = spec.open_backend().capabilities
    possible = able.thread_workers if spec.worker_kind == "thread" else able.process_workers
    if spec.workers and not possible:
        raise UnsupportedError(
            f"{spec.backend} cannot be read by {spec.worker_kind} workers. Use another --worker-kind."
        )


def _require_batch(spec: RunSpec, store: Store) -> None:
    count = store.manifest.count
    if spec.batch_size > count:
        raise BatchTooLargeError(
            f"--batch-size {spec.batch_size} is larger than the data: {spec.dataset} {spec.split} has {count} samples."
        )


def _require_image(spec: RunSpec, store: Store) -> None:
    shape = store.manifest.shape
    if spec.model != NO_MODEL and (len(shape) != 3 or 0 in shape):
        raise SampleShapeError(
            f"{spec.model} takes samples of (channels, height, width), but those of {spec.dataset} have the shape "
            f"{shape}. Use --model none to measure loading alone."
        )


def _measure(spec: RunSpec, store: Store, found: _Findings, progress: RunProgress) -> None:
    samples_done = multiprocessing.get_context("spawn").RawValue("q", 0)
    shown = 0
    try:
        with Child(_trial, _job(spec, store), samples_done) as child, PeakPss(child.pid) as sampler:
            for message in child.messages():
                if found.phase == "train":
                    progress.advance(samples_done.value - shown)
                    shown = samples_done.value
                if message is None:
                    continue
                topic, value = message
                if topic == "memory":
                    pss = sampler.sample()
                    found.peak = sampler.peak
                    if value == "baseline" and pss is not None:
                        found.baseline_pss_bytes = pss.total_bytes
                    child.answer()
                    continue
                _TOPICS[topic](found, value)
                if topic == "phase" and value == "train":
                    progress.start(_label(spec), spec.epochs * store.manifest.count, "samples")
                elif topic == "epoch":
                    progress.epoch(value)
        found.status = "failed" if found.error else "ok"
    except ChildDiedError as death:
        text = f"The measured process ended by {death}."
        found.status = "failed"
        found.error = ErrorInfo(phase=found.phase, type="ProcessDied", message=text)
    finally:
        progress.finish()


def _trial(link: Link, job: Job, samples_done: Any) -> None:
    # Imported here so that the parent never needs torch.
    from bench.trial import run_trial

    run_trial(link, job, samples_done)


def _job(spec: RunSpec, store: Store) -> Job:
    known = store.manifest
    mean, std = known.content.mean, known.content.std
    scale = None if mean is None or std is None else (mean, std)
    return Job(spec, store.root, store.hashes_path, known.shape, known.dtype, len(known.classes), scale)


def _failed(found: _Findings, failure: Failure) -> None:
    advice = " Check the store with `bench verify`." if isinstance(failure.error, BackendError) else ""
    found.error = ErrorInfo(phase=found.phase, type=failure.type, message=f"{failure.message}{advice}")
    found.trace = failure.trace


def _keep(name: str) -> Callable[[_Findings, Any], None]:
    return lambda found, value: setattr(found, name, value)


_TOPICS: dict[str, Callable[[_Findings, Any], None]] = {
    "phase": _keep("phase"),
    "device": _keep("device"),
    "environment": _keep("environment"),
    "open_s": _keep("open_s"),
    "epoch": lambda found, value: found.epochs.append(value),
    "gpu": _keep("gpu"),
    "checked": _keep("checked_samples"),
    "failed": _failed,
}


def _label(spec: RunSpec) -> str:
    work = "loading" if spec.model == "none" else f"training {spec.model}"
    return f"{work} from {spec.backend}"


def _record(spec: RunSpec, started_at: str, found: _Findings) -> RunRecord:
    record = RunRecord(
        spec_id=spec.spec_id,
        spec=spec,
        status=found.status,
        error=found.error,
        started_at=started_at,
        environment=found.environment,
        data=_data_info(found) if found.store else None,
        store=_store_info(spec, found.store) if found.store else None,
        device=found.device,
        open_s=found.open_s,
        epochs=found.epochs,
        memory=MemoryInfo(
            peak_pss_bytes=found.peak.total_bytes if found.peak else None,
            baseline_pss_bytes=found.baseline_pss_bytes,
            anon_bytes=found.peak.anon_bytes if found.peak else None,
            file_bytes=found.peak.file_bytes if found.peak else None,
            shmem_bytes=found.peak.shmem_bytes if found.peak else None,
        ),
        gpu=found.gpu,
    )
    return record.model_copy(update={"warnings": checks.warnings_for(record)})


def _data_info(found: _Findings) -> DataInfo:
    assert found.store is not None  # noqa: S101  # checked by the caller
    manifest, decoding = found.store.manifest, found.store.manifest.decoding
    return DataInfo(
        name=manifest.dataset,
        split=manifest.split,
        count=manifest.count,
        shape=manifest.shape,
        dtype=manifest.dtype,
        classes=manifest.classes,
        origin=manifest.origin,
        digest=manifest.source_digest,
        checked_samples=found.checked_samples,
        decode_s=decoding.decode_s,
        decode_peak_pss_bytes=decoding.peak_pss_bytes,
        decode_baseline_pss_bytes=decoding.baseline_pss_bytes,
        not_finite=manifest.content.not_finite,
        skipped_count=len(decoding.skipped),
        skipped=[Skipped(file=skipped.file, reason=skipped.reason) for skipped in decoding.skipped],
    )


def _store_info(spec: RunSpec, store: Store) -> StoreInfo:
    manifest = store.manifest
    return StoreInfo(
        backend=manifest.backend,
        options={**spec.options, **manifest.options},
        size_bytes=manifest.size_bytes,
        file_count=manifest.file_count,
        prepare_s=manifest.prepare_s,
        prepare_peak_rss_bytes=manifest.prepare_peak_rss_bytes,
        prepare_baseline_rss_bytes=manifest.prepare_baseline_rss_bytes,
        digest_ok=manifest.lossy is None and manifest.store_digest == manifest.source_digest,
        lossy=Lossy(psnr_db=manifest.lossy.psnr_db) if manifest.lossy else None,
    )
