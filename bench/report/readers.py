"""What another reader of the same store brought, where its runs are known."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from bench.records.comparability import differences
from bench.records.metrics import METRICS, significant
from bench.records.record import RunRecord

WORTH_SAYING = 0.95
"""Ratio of the epochs above which a reader is not worth changing."""


def faster_reader(records: Sequence[RunRecord], known: Iterable[RunRecord]) -> str | None:
    """Return what the fastest other reader brought in ``known`` runs of equal work, or None where none was faster.

    ``records`` are equal runs. Of equal work are runs that agree in machine, versions, data, cache state and all of the
    spec but the reader.
    """
    record = records[-1]
    epoch = METRICS["epoch_s"].over(records)
    if record.status != "ok" or epoch is None or _reader(record) is None:
        return None
    by_reader: dict[str, list[float]] = {}
    for other in known:
        reader, value = _reader(other), METRICS["epoch_s"].over([other])
        if other.status != "ok" or value is None or reader is None or reader == _reader(record):
            continue
        if _store(other) == _store(record) and not differences([record, other], own=("options",)):
            by_reader.setdefault(reader, []).append(value.median)
    if not by_reader:
        return None
    reader, seconds = min(by_reader.items(), key=lambda item: statistics.median(item[1]))
    ratio = statistics.median(seconds) / epoch.median
    if ratio > WORTH_SAYING:
        return None
    runs = "1 run" if len(seconds) == 1 else f"{len(seconds)} runs"
    backend = record.spec.backend
    return (
        f"{backend}[{reader}] read the same store in {significant(ratio, 2)} times that epoch here "
        f"({significant(statistics.median(seconds), 3)} s, {runs}): --option reader={reader}."
    )


def _reader(record: RunRecord) -> str | None:
    return record.store.options.get("reader") if record.store is not None else None


def _store(record: RunRecord) -> dict[str, Any]:
    options = record.store.options if record.store is not None else {}
    return {"backend": record.spec.backend, **{key: value for key, value in options.items() if key != "reader"}}
