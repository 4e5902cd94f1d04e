"""The one table of metrics: key, label, unit, direction, how to get it from a record, how to write it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.records.learned import EvaluationInfo
from bench.records.record import EpochInfo, RunRecord
from bench.stats import Summary, needed_count, percentile, summarise

IMPOSSIBLE_SHARE = 5.0
"""Percent by which an epoch may seem faster than its ceiling before that is taken for a sign of disturbance."""

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A quantity of a run. ``of`` returns None where the record does not hold it."""

    key: str
    label: str
    unit: str
    better: Better
    of: Callable[[RunRecord], Summary | None]
    digits: int = 3
    """Significant digits; 0 stands for whole numbers."""

    amount: Callable[[RunRecord], float | None] | None = None
    """Of a rate: what of an epoch is divided by its time, so that the median of one is the inverse of the other's."""

    def over(self, records: Sequence[RunRecord]) -> Summary | None:
        """Return the summary of one run's values, or of the medians of several equal runs.

        Epochs of one process are not independent of each other, so each process counts once. None where
        one of the records does not hold the quantity.
        """
        if len(records) == 1:
            return self.of(records[0])
        if self.amount is not None:
            return _rate(self.amount(records[0]), METRICS["epoch_s"].over(records))
        values = [self.of(record) for record in records]
        known = [value.median for value in values if value is not None]
        return summarise(known) if len(known) == len(values) else None

    def text(self, records: Sequence[RunRecord], *, spread: bool = False) -> str:
        """Return the median with significant ``digits``, optionally with its spread; ``n/a`` where unknown."""
        value = self.over(records)
        if value is None:
            return "n/a"
        text = significant(value.median, self.digits)
        if spread and value.n > 1:
            text += f" ({significant(value.low, self.digits)}…{significant(value.high, self.digits)}, n={value.n})"
        return text


def significant(value: float, digits: int) -> str:
    """Return a number to ``digits`` significant digits (0: whole), with thousands separators and no power of ten."""
    if digits == 0:
        return f"{value:,.0f}"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 6)}f}"


def _epochs(of: Callable[[EpochInfo], float | None]) -> Callable[[RunRecord], Summary | None]:
    def get(record: RunRecord) -> Summary | None:
        values = [of(epoch) for epoch in record.measured()]
        known = [value for value in values if value is not None]
        return summarise(known) if len(known) == len(values) else None

    return get


def _one(of: Callable[[RunRecord], float | None]) -> Callable[[RunRecord], Summary | None]:
    def get(record: RunRecord) -> Summary | None:
        value = of(record)
        return None if value is None else summarise([value])

    return get


def _share(of: Callable[[EpochInfo], float]) -> Callable[[RunRecord], Summary | None]:
    return _epochs(lambda epoch: 100 * of(epoch) / epoch.epoch_s)


def _augment_percent(epoch: EpochInfo) -> float | None:
    return None if epoch.augment_s is None else 100 * epoch.augment_s / epoch.epoch_s


def _rate(amount: float | None, epoch: Summary | None) -> Summary | None:
    # The median of two rates is not the rate at the median of their times.
    if amount is None or epoch is None:
        return None
    return Summary(epoch.n, amount / epoch.median, amount / epoch.high, amount / epoch.low)


def _per_epoch_s(key: str, label: str, unit: str, amount: Callable[[RunRecord], float | None]) -> Metric:
    return Metric(
        key, label, unit, "higher", lambda record: _rate(amount(record), METRICS["epoch_s"].of(record)), amount=amount
    )


def _samples(record: RunRecord) -> float:
    return next((epoch.samples for epoch in record.measured()), 0)


def _delivered_mb(record: RunRecord) -> float | None:
    return None if record.data is None else _samples(record) * record.data.sample_bytes / 1e6


def _peak_growth(record: RunRecord) -> float | None:
    memory = record.memory
    if memory.peak_pss_bytes is None or memory.baseline_pss_bytes is None:
        return None
    return (memory.peak_pss_bytes - memory.baseline_pss_bytes) / 1e6


def _over_ceiling(record: RunRecord) -> Summary | None:
    if record.ideal is None:
        return None
    ideal_s = record.ideal.epoch_s
    return summarise([100 * (epoch.epoch_s / ideal_s - 1) for epoch in record.measured()])


def _wait_ms(q: float) -> Callable[[RunRecord], Summary | None]:
    def get(record: RunRecord) -> float | None:
        waits = all_waits_s(record)
        value = percentile(waits, q) if len(waits) >= needed_count(q) else None
        return None if value is None else 1e3 * value

    return _one(get)


def _longest_wait_ms(record: RunRecord) -> float | None:
    return max((1e3 * wait for wait in all_waits_s(record)), default=None)


def all_waits_s(record: RunRecord) -> list[float]:
    """Return what every batch of the counted epochs was waited for, in seconds."""
    return [wait for epoch in record.measured() for wait in epoch.batch_wait_s]


def _cpu_s(epoch: EpochInfo) -> float | None:
    if epoch.cpu_user_s is None or epoch.cpu_system_s is None:
        return None
    return epoch.cpu_user_s + epoch.cpu_system_s


def _mb(value: float | None) -> float | None:
    return None if value is None else value / 1e6


def _of_gpu(field: str, scale: float = 1.0) -> Callable[[RunRecord], Summary | None]:
    def get(record: RunRecord) -> float | None:
        value = getattr(record.gpu, field, None)
        return None if value is None else value * scale

    return _one(get)


def _of_last_epoch(of: Callable[[EpochInfo], float | None]) -> Callable[[RunRecord], Summary | None]:
    return _one(lambda record: of(record.epochs[-1]) if record.epochs else None)


def _accuracy_percent(epoch: EpochInfo) -> float | None:
    return None if epoch.accuracy is None else 100 * epoch.accuracy


def _of_last_validation(of: Callable[[EvaluationInfo], float]) -> Callable[[RunRecord], Summary | None]:
    return _one(lambda record: of(record.validation[-1]) if record.validation else None)


def _best_accuracy(record: RunRecord) -> float | None:
    best = record.training.best_epoch if record.training else None
    return next((100 * found.accuracy for found in record.validation if found.epoch == best), None)


def _of_test(of: Callable[[EvaluationInfo], float]) -> Callable[[RunRecord], Summary | None]:
    return _one(lambda record: of(record.test) if record.test else None)


def _evaluate_s(record: RunRecord) -> float | None:
    found = [*record.validation, *([record.test] if record.test else [])]
    return sum(one.evaluate_s for one in found) if found else None


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("epoch_s", "epoch", "s", "lower", _epochs(lambda e: e.epoch_s)),
        Metric(
            "ideal_s",
            "ceiling: epoch from memory",
            "s",
            "neither",
            _one(lambda r: r.ideal.epoch_s if r.ideal else None),
        ),
        Metric("over_ceiling", "over the ceiling", "%", "lower", _over_ceiling),
        _per_epoch_s("samples_per_s", "throughput", "samples/s", _samples),
        _per_epoch_s("mb_per_s", "decoded data", "MB/s", _delivered_mb),
        Metric("wait_share", "waiting for data", "% of epoch", "lower", _share(lambda e: e.wait_s)),
        Metric("copy_share", "copying to the device", "% of epoch", "lower", _share(lambda e: e.copy_s)),
        Metric("augment_share", "changing samples at random", "% of epoch", "lower", _epochs(_augment_percent)),
        Metric("compute_share", "computing", "% of epoch", "neither", _share(lambda e: e.compute_s)),
        Metric("augment_s", "changing samples at random", "s per epoch", "lower", _epochs(lambda e: e.augment_s)),
        Metric("wait_p50_ms", "wait for a batch, median", "ms", "lower", _wait_ms(50)),
        Metric("wait_p90_ms", "wait for a batch, 90th percentile", "ms", "lower", _wait_ms(90)),
        Metric("wait_p99_ms", "wait for a batch, 99th percentile", "ms", "lower", _wait_ms(99)),
        Metric("wait_max_ms", "wait for a batch, longest", "ms", "lower", _one(_longest_wait_ms)),
        Metric("open_ms", "opening", "ms", "lower", _one(lambda r: None if r.open_s is None else 1e3 * r.open_s)),
        Metric(
            "worker_start_ms",
            "starting the workers",
            "ms",
            "lower",
            _one(lambda r: 1e3 * r.epochs[0].worker_start_s if r.epochs and r.epochs[0].worker_start_s else None),
        ),
        Metric(
            "first_batch_ms",
            "first batch",
            "ms",
            "lower",
            _epochs(lambda e: 1e3 * e.first_batch_s),
        ),
        Metric("steady_s", "epoch after its first batch", "s", "lower", _epochs(lambda e: e.epoch_s - e.first_batch_s)),
        Metric("cpu_s", "CPU time", "s per epoch", "lower", _epochs(_cpu_s)),
        Metric("cpu_user_s", "CPU time, user", "s per epoch", "lower", _epochs(lambda e: e.cpu_user_s)),
        Metric("cpu_system_s", "CPU time, system", "s per epoch", "lower", _epochs(lambda e: e.cpu_system_s)),
        Metric("peak_pss_mb", "peak RAM (PSS)", "MB", "lower", _one(lambda r: _mb(r.memory.peak_pss_bytes))),
        Metric("anon_mb", "  anonymous part", "MB", "lower", _one(lambda r: _mb(r.memory.anon_bytes))),
        Metric("file_mb", "  mapped files", "MB", "lower", _one(lambda r: _mb(r.memory.file_bytes))),
        Metric("shmem_mb", "  shared memory", "MB", "lower", _one(lambda r: _mb(r.memory.shmem_bytes))),
        Metric("pss_growth_mb", "RAM growth from before opening", "MB", "lower", _one(_peak_growth)),
        Metric(
            "page_cache_mb",
            "store in the page cache (reclaimable)",
            "MB",
            "neither",
            _one(lambda r: _mb(r.memory.page_cache_bytes)),
        ),
        Metric(
            "limited_peak_mb",
            "peak under --memory-limit, page cache included",
            "MB",
            "lower",
            _one(lambda r: _mb(r.memory.limited_peak_bytes)),
        ),
        Metric(
            "storage_read_mb",
            "read from storage",
            "MB per epoch",
            "lower",
            _epochs(lambda e: _mb(e.io.storage_read_bytes)),
        ),
        Metric(
            "read_amplification",
            "read from storage, per byte delivered",
            "bytes",
            "lower",
            _epochs(lambda e: e.io.read_amplification),
        ),
        Metric(
            "read_call_mb",
            "read by system calls",
            "MB per epoch",
            "lower",
            _epochs(lambda e: _mb(e.io.read_call_bytes)),
        ),
        Metric("read_calls", "read calls", "per epoch", "lower", _epochs(lambda e: e.io.read_calls), 0),
        Metric("major_faults", "major page faults", "per epoch", "lower", _epochs(lambda e: e.io.major_faults), 0),
        Metric(
            "vram_allocated_mb",
            "peak VRAM, torch allocated",
            "MB",
            "lower",
            _of_gpu("torch_peak_allocated_bytes", 1e-6),
        ),
        Metric(
            "vram_reserved_mb", "peak VRAM, torch reserved", "MB", "lower", _of_gpu("torch_peak_reserved_bytes", 1e-6)
        ),
        Metric("vram_cupy_mb", "VRAM, CuPy pool", "MB", "lower", _of_gpu("cupy_peak_bytes", 1e-6)),
        Metric("vram_delta_mb", "VRAM growth of the device", "MB", "lower", _of_gpu("device_used_delta_bytes", 1e-6)),
        Metric("vram_context_mb", "VRAM of the CUDA context", "MB", "neither", _of_gpu("context_bytes", 1e-6)),
        Metric("gpu_utilisation", "GPU utilisation (any kernel running)", "%", "neither", _of_gpu("utilisation", 100)),
        Metric("gpu_energy_j", "GPU energy over all counted epochs", "J", "lower", _of_gpu("energy_j")),
        Metric("gpu_temperature_c", "GPU temperature, highest", "°C", "lower", _of_gpu("temperature_c"), 0),
        Metric("gpu_sm_mhz", "GPU clock, lowest", "MHz", "higher", _of_gpu("sm_clock_mhz"), 0),
        Metric(
            "store_mb", "store on disk", "MB", "lower", _one(lambda r: r.store.disk_bytes / 1e6 if r.store else None)
        ),
        Metric("files", "files", "files", "lower", _one(lambda r: r.store.file_count if r.store else None), 0),
        Metric(
            "decode_s",
            "decoding, once for all formats",
            "s",
            "neither",
            _one(lambda r: r.data.decode_s if r.data else None),
        ),
        Metric("prepare_s", "preparation", "s", "lower", _one(lambda r: r.store.prepare_s if r.store else None)),
        Metric(
            "displacement",
            "mean displacement of samples",
            "of a uniform shuffle",
            "neither",
            _one(lambda r: r.order.mean_displacement if r.order else None),
        ),
        Metric(
            "class_mixing",
            "variation of classes between batches",
            "of a uniform shuffle",
            "neither",
            _one(lambda r: r.order.class_mixing if r.order else None),
        ),
        Metric("loss", "training loss, last epoch", "nats", "lower", _of_last_epoch(lambda e: e.loss)),
        Metric("accuracy", "training accuracy, last epoch", "%", "higher", _of_last_epoch(_accuracy_percent)),
        Metric("val_loss", "validation loss, last epoch", "nats", "lower", _of_last_validation(lambda e: e.loss)),
        Metric(
            "val_accuracy",
            "validation accuracy, last epoch",
            "%",
            "higher",
            _of_last_validation(lambda e: 100 * e.accuracy),
        ),
        Metric("val_best_accuracy", "validation accuracy, best epoch", "%", "higher", _one(_best_accuracy)),
        Metric("test_loss", "test loss", "nats", "lower", _of_test(lambda e: e.loss)),
        Metric("test_accuracy", "test accuracy", "%", "higher", _of_test(lambda e: 100 * e.accuracy)),
        Metric(
            "test_macro_precision", "test precision, macro", "%", "higher", _of_test(lambda e: 100 * e.macro_precision)
        ),
        Metric("test_macro_recall", "test recall, macro", "%", "higher", _of_test(lambda e: 100 * e.macro_recall)),
        Metric("test_macro_f1", "test F1, macro", "%", "higher", _of_test(lambda e: 100 * e.macro_f1)),
        Metric(
            "test_weighted_precision",
            "test precision, weighted",
            "%",
            "higher",
            _of_test(lambda e: 100 * e.weighted_precision),
        ),
        Metric(
            "test_weighted_recall", "test recall, weighted", "%", "higher", _of_test(lambda e: 100 * e.weighted_recall)
        ),
        Metric("test_weighted_f1", "test F1, weighted", "%", "higher", _of_test(lambda e: 100 * e.weighted_f1)),
        Metric("evaluate_s", "all evaluations, outside of epochs", "s", "lower", _one(_evaluate_s)),
    )
}
