"""The one table of metrics: key, label, unit, direction, how to get it from a record, how to write it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bench.record import EpochInfo, RunRecord
from bench.stats import Summary, summarise

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

    def text(self, record: RunRecord, *, spread: bool = False) -> str:
        """Return the median with significant ``digits``, optionally with its spread; ``n/a`` where unknown."""
        value = self.of(record)
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


def _delivered_mb_per_s(record: RunRecord) -> Summary | None:
    if record.data is None:
        return None
    sample_mb = record.data.sample_bytes / 1e6
    return summarise([epoch.samples * sample_mb / epoch.epoch_s for epoch in record.measured()])


def _peak_growth(record: RunRecord) -> float | None:
    memory = record.memory
    if memory.peak_pss_bytes is None or memory.baseline_pss_bytes is None:
        return None
    return (memory.peak_pss_bytes - memory.baseline_pss_bytes) / 1e6


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("epoch_s", "epoch", "s", "lower", _epochs(lambda e: e.epoch_s)),
        Metric("samples_per_s", "throughput", "samples/s", "higher", _epochs(lambda e: e.samples / e.epoch_s)),
        Metric("mb_per_s", "decoded data", "MB/s", "higher", _delivered_mb_per_s),
        Metric("wait_share", "waiting for data", "% of epoch", "lower", _share(lambda e: e.wait_s)),
        Metric("copy_share", "copying to the device", "% of epoch", "lower", _share(lambda e: e.copy_s)),
        Metric("compute_share", "computing", "% of epoch", "neither", _share(lambda e: e.compute_s)),
        Metric(
            "first_batch_ms",
            "first batch",
            "ms",
            "lower",
            _one(lambda r: 1e3 * r.epochs[0].first_batch_s if r.epochs else None),
        ),
        Metric("open_ms", "opening", "ms", "lower", _one(lambda r: None if r.open_s is None else 1e3 * r.open_s)),
        Metric(
            "cpu_s",
            "CPU time",
            "s per epoch",
            "lower",
            _epochs(lambda e: None if e.cpu_user_s is None else e.cpu_user_s + (e.cpu_system_s or 0)),
        ),
        Metric(
            "peak_pss_mb",
            "peak RAM (PSS)",
            "MB",
            "lower",
            _one(lambda r: None if r.memory.peak_pss_bytes is None else r.memory.peak_pss_bytes / 1e6),
        ),
        Metric("pss_growth_mb", "RAM growth from before opening", "MB", "lower", _one(_peak_growth)),
        Metric(
            "storage_read_mb",
            "read from storage",
            "MB per epoch",
            "lower",
            _epochs(lambda e: None if e.io.storage_read_bytes is None else e.io.storage_read_bytes / 1e6),
        ),
        Metric(
            "read_call_mb",
            "read by system calls",
            "MB per epoch",
            "lower",
            _epochs(lambda e: None if e.io.read_call_bytes is None else e.io.read_call_bytes / 1e6),
        ),
        Metric("store_mb", "store", "MB", "lower", _one(lambda r: r.store.size_bytes / 1e6 if r.store else None)),
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
            "accuracy",
            "training accuracy, last epoch",
            "%",
            "higher",
            _one(lambda r: None if not r.epochs or r.epochs[-1].accuracy is None else 100 * r.epochs[-1].accuracy),
        ),
        Metric(
            "loss",
            "training loss, last epoch",
            "nats",
            "lower",
            _one(lambda r: r.epochs[-1].loss if r.epochs else None),
        ),
    )
}
