"""A RunSpec becomes a RunRecord: prepare, measure in a fresh process, keep whatever happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.contracts.errors import BenchError
from bench.measure import environment
from bench.measure.file_systems import block_device
from bench.measure.page_cache import judge
from bench.records import checks
from bench.records.record import (
    CacheInfo,
    DataInfo,
    ErrorInfo,
    GpuInfo,
    MemoryInfo,
    RunRecord,
    SamplerInfo,
    Skipped,
)
from bench.records.stored import Lossy, StoreInfo
from bench.runs.attempt import Attempt
from bench.runs.findings import Findings
from bench.runs.observer import RunProgress, observe
from bench.runs.suitability import SampleShapeError, require_batch, require_shape, require_weights
from bench.specs.spec import RunSpec
from bench.stores import isolated
from bench.stores.prepare import UnsupportedError
from bench.stores.store import Store
from bench.training.job import EvaluatedStore, Job
from bench.training.predictions import Predictions


@dataclass(frozen=True, slots=True)
class Places:
    """Where raw data is looked for, and where downloads and stores are kept."""

    data_dir: Path
    search: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A record, the traceback behind a failure, and what the last evaluation took samples for."""

    record: RunRecord
    trace: str | None
    predictions: Predictions | None = None


def run(spec: RunSpec, places: Places, progress: RunProgress, attempt: Attempt) -> Outcome:
    """Prepare and measure one run.

    Failures of the measured process, unsupported combinations and interruptions end up in
    the record. Raises BenchError for everything that keeps the measurement from beginning, unless the attempt says that
    this is a result as well.
    """
    started_at = datetime.now(UTC).isoformat(timespec="microseconds")
    found = Findings()
    store: Store | None = None
    try:
        _require_backend(spec)
        _require_device(spec)
        require_weights(spec)
        store = isolated.prepare(spec, places.data_dir, places.search, progress, repair=attempt.repair)
        require_batch(spec, store)
        require_shape(spec, store)
        evaluated = _evaluated_stores(spec, store, places, progress, attempt)
        job = _job(spec, store, attempt, evaluated)
        _require_checkpoint(job)
        found.phase = "start"
        found.environment |= environment.provenance(attempt.command)
        observe(job, _label(spec), found, progress, attempt.timeout_s)
    except UnsupportedError as error:
        found.status = "unsupported"
        found.error = ErrorInfo(phase="prepare", type=type(error).__name__, message=str(error))
    except BenchError as error:
        if not attempt.errors_are_results:
            raise
        found.status = "failed"
        found.error = ErrorInfo(phase=found.phase, type=type(error).__name__, message=str(error))
    except KeyboardInterrupt:
        found.status = "interrupted"
        found.error = ErrorInfo(phase=found.phase, type="KeyboardInterrupt", message="Interrupted.")
    return Outcome(_record(spec, started_at, attempt, found, store), found.trace, found.predictions)


def _require_device(spec: RunSpec) -> None:
    if spec.device.startswith("cuda"):
        # Only then is torch worth its import time here.
        from bench.training.trainer import resolve_device

        resolve_device(spec.device)


def _require_backend(spec: RunSpec) -> None:
    backend = spec.open_backend()
    reason = backend.unsupported_device(spec.device)
    if reason is not None:
        raise UnsupportedError(f"{spec.backend}: {reason}")
    able = backend.capabilities
    possible = able.thread_workers if spec.worker_kind == "thread" else able.process_workers
    if spec.workers and not possible:
        raise UnsupportedError(
            f"{spec.backend} cannot be read by {spec.worker_kind} workers. Use another --worker-kind."
        )


def _evaluated_stores(
    spec: RunSpec, store: Store, places: Places, progress: RunProgress, attempt: Attempt
) -> dict[str, EvaluatedStore]:
    """Prepare a store of every split that is evaluated, whole, by the name of its field."""
    stores = {}
    for name, of_split in spec.evaluated_stores().items():
        found = isolated.prepare(of_split, places.data_dir, places.search, progress, repair=attempt.repair)
        known, trained = found.manifest, store.manifest
        if (known.shape, known.dtype, known.classes) != (trained.shape, trained.dtype, trained.classes):
            raise SampleShapeError(
                f"--{name} {of_split.split}: samples are {known.dtype} {known.shape} in {len(known.classes)} classes, "
                f"those of {spec.split} {trained.dtype} {trained.shape} in {len(trained.classes)}. Make them alike."
            )
        stores[name] = EvaluatedStore(of_split.split, found.root, found.hashes_path, known.count, known.source_digest)
    return stores


def _require_checkpoint(job: Job) -> None:
    if job.checkpoint is not None and job.checkpoint.exists():
        # Only then is torch worth its import time here.
        from bench.training.checkpoint import Checkpoint

        Checkpoint.at(job.checkpoint, job.spec, job.digest, evaluated=job.evaluated_digests)


def _job(
    spec: RunSpec, store: Store, attempt: Attempt, evaluated: Mapping[str, EvaluatedStore] = MappingProxyType({})
) -> Job:
    known = store.manifest
    mean, std = known.content.mean, known.content.std
    return Job(
        spec=spec,
        root=store.root,
        hashes_path=store.hashes_path,
        samples=known.count,
        shape=known.shape,
        dtype=known.dtype,
        classes=known.classes,
        scale=None if mean is None or std is None else (mean, std),
        ceiling=attempt.ceiling,
        val=evaluated.get("val"),
        test=evaluated.get("test"),
        digest=known.source_digest,
        checkpoint=attempt.checkpoint,
        fold_id=attempt.fold.id if attempt.fold else None,
    )


def _label(spec: RunSpec) -> str:
    work = "loading" if spec.model == "none" else f"training {spec.model}"
    return f"{work} from {spec.backend}"


def _record(spec: RunSpec, started_at: str, attempt: Attempt, found: Findings, store: Store | None) -> RunRecord:
    record = RunRecord(
        spec_id=spec.spec_id,
        spec=spec,
        status=found.status,
        error=found.error,
        started_at=started_at,
        environment={**found.environment, "last_lines": found.last_lines},
        data=_data_info(found, store) if store else None,
        store=_store_info(spec, store) if store else None,
        device=found.device,
        reader=found.reader,
        repeat=attempt.repeat,
        campaign=attempt.campaign,
        open_s=found.epochs[0].open_s if found.epochs else None,
        ideal=found.ideal,
        order=found.order,
        epochs=found.epochs,
        cache=_cache_info(spec, found, store),
        memory=_memory_info(found),
        gpu=_gpu_info(found),
        training=found.training,
        validation=found.validation,
        test=found.test,
        fold=attempt.fold,
    )
    return record.model_copy(update={"warnings": checks.warnings_for(record)})


def _memory_info(found: Findings) -> MemoryInfo:
    sampled = None if found.concludes_only else found.sampled
    peak = sampled.peak if sampled else None
    return MemoryInfo(
        peak_pss_bytes=peak.total_bytes if peak else None,
        baseline_pss_bytes=None if found.concludes_only else found.baseline_pss_bytes,
        anon_bytes=peak.anon_bytes if peak else None,
        file_bytes=peak.file_bytes if peak else None,
        shmem_bytes=peak.shmem_bytes if peak else None,
        page_cache_bytes=found.cache[-1].resident_bytes_after if found.cache else None,
        rss_peaks_sum_bytes=sampled.rss_peaks_sum_bytes if sampled else None,
        limited_peak_bytes=None if found.concludes_only else found.limited_peak_bytes,
        sampler=SamplerInfo(samples=sampled.samples, cpu_s=sampled.cpu_s, duration_s=sampled.duration_s)
        if sampled
        else None,
    )


def _cache_info(spec: RunSpec, found: Findings, store: Store | None) -> CacheInfo:
    epochs = [(epoch, cache) for epoch, cache in zip(found.epochs, found.cache, strict=False) if not epoch.warmup]
    if store is None or not epochs:
        return CacheInfo(asked=spec.cache)
    counted = [cache for _, cache in epochs]
    size_bytes = store.manifest.size_bytes

    def share(read_bytes: int | None) -> float | None:
        return None if read_bytes is None or not size_bytes else read_bytes / size_bytes

    achieved, proof = judge(
        spec.cache,
        [(cache.brought, share(cache.read_bytes)) for cache in counted],
        in_epochs=[share(epoch.io.storage_read_bytes) for epoch, _ in epochs],
        probe=found.cache_probe,
        on_block_device=block_device(store.root) is not None,
    )
    known = [cache.brought.fraction for cache in counted if cache.brought.fraction is not None]
    furthest = max if spec.cache == "cold" else min
    return CacheInfo(
        asked=spec.cache,
        achieved=achieved,
        probe=found.cache_probe,
        resident_before=furthest(known) if known else None,
        resident_after=counted[-1].resident_after,
        proof=proof,
    )


def _gpu_info(found: Findings) -> GpuInfo | None:
    gpu, sampled = found.gpu, found.sampled
    if found.concludes_only:
        return None
    if gpu is None or sampled is None:
        return gpu
    before, context = found.gpu_used_before_bytes, found.gpu_used_context_bytes
    peak = sampled.gpu_peak_used_bytes
    seen: dict[str, Any] = {
        "context_bytes": None if before is None or context is None else context - before,
        "device_used_delta_bytes": None if peak is None or context is None else peak - context,
    }
    use = sampled.gpu
    if use is not None:
        seen |= {
            "utilisation": use.mean_utilisation,
            "energy_j": use.energy_j,
            "energy_window_s": None if use.energy_j is None else use.window_s,
            "sm_clock_mhz": use.lowest_sm_mhz,
            "memory_clock_mhz": use.lowest_memory_mhz,
            "temperature_c": use.highest_temperature_c,
            "throttle_reasons": None if use.reasons is None else list(use.reasons),
            "throttled": use.throttled,
            "shared": None if use.other_pids is None else bool(use.other_pids),
        }
    return gpu.model_copy(update=seen)


def _data_info(found: Findings, store: Store) -> DataInfo:
    manifest, decoding = store.manifest, store.manifest.decoding
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
    # Once more through the options' own validation: what depends on the data, like the reader, is known by now.
    kind = type(spec.open_backend()).options_type
    return StoreInfo(
        backend=manifest.backend,
        options=kind.model_validate({**spec.options, **manifest.options}).model_dump(mode="json"),
        size_bytes=manifest.size_bytes,
        allocated_bytes=store.allocated_bytes,
        file_count=manifest.file_count,
        prepare_s=manifest.prepare_s,
        prepare_peak_rss_bytes=manifest.prepare_peak_rss_bytes,
        prepare_baseline_rss_bytes=manifest.prepare_baseline_rss_bytes,
        digest_ok=manifest.lossy is None and manifest.store_digest == manifest.source_digest,
        lossy=Lossy(psnr_db=manifest.lossy.psnr_db) if manifest.lossy else None,
    )
