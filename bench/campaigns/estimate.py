"""What a matrix will take, by what is known of equal and similar runs; nothing is guessed where nothing is known."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import registry
from bench.records.record import RunRecord
from bench.specs.spec import RunSpec, StoreSpec, content_hash

START_S = 8.0
"""About what a run takes beside its epochs: processes, imports, checks."""

CEILING_EPOCHS = 2
"""How many epochs the ceiling takes where they are long: a pass before, and one that counts."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of one run and bytes of its store on disk; None where no run of the same kind is known."""

    run_s: float | None
    store_bytes: int | None


def estimates(cells: Mapping[str, RunSpec], records: Sequence[RunRecord]) -> dict[str, Estimate]:
    """Return the estimate of each cell.

    The time of a run is that of equal runs; where there are none, that of runs of the same data, model and backend,
    by the number of samples. What a store takes of the disk is what the same store took, or, by the number of samples,
    one of the same backend and data. How many samples there are without a limit is known of runs without one.
    """
    known = [record for record in records if record.status == "ok" and record.data and record.store and record.epochs]
    return {name: Estimate(_run_s(spec, known), _store_bytes(spec, known)) for name, spec in cells.items()}


def trained_s(record: RunRecord) -> float:
    """Return about how long a run trained, which grows with the samples: its epochs, and those of the ceiling."""
    ceiling_s = CEILING_EPOCHS * record.ideal.epoch_s if record.ideal else 0.0
    return sum(epoch.epoch_s for epoch in record.epochs) + ceiling_s


def store_key(spec: RunSpec) -> str:
    """Return what two cells have in common that read the same store."""
    # By the class alone: a record may have options that the backend has no more.
    read_options = registry.backend_class(spec.backend).read_options
    written = {key: value for key, value in spec.options.items() if key not in read_options}
    fields = {name: getattr(spec, name) for name in StoreSpec.model_fields if name != "options"}
    return content_hash([{key: str(value) for key, value in fields.items()}, written])


def _run_s(spec: RunSpec, known: Sequence[RunRecord]) -> float | None:
    equal = [_seconds(record) for record in known if record.spec_id == spec.spec_id]
    if equal:
        return statistics.median(equal)
    rates = [
        statistics.median(epoch.epoch_s / epoch.samples for epoch in record.epochs)
        for record in known
        if (record.spec.model, record.spec.backend) == (spec.model, spec.backend) and _data(record.spec) == _data(spec)
    ]
    count = _count(spec, known)
    if not rates or count is None:
        return None
    return START_S + statistics.median(rates) * count * (spec.epochs + CEILING_EPOCHS)


def _seconds(record: RunRecord) -> float:
    evaluations = (*record.validation, *([record.test] if record.test else []))
    return START_S + trained_s(record) + sum(info.evaluate_s for info in evaluations)


def _count(spec: RunSpec, known: Sequence[RunRecord]) -> int | None:
    # What a limit left says nothing of how many there are.
    counts = [
        record.data.count
        for record in known
        if record.data and record.spec.limit is None and _data(record.spec) == _data(spec)
    ]
    if not counts:
        return spec.limit
    return min(max(counts), spec.limit) if spec.limit else max(counts)


def _data(spec: RunSpec) -> tuple[object, ...]:
    """Return which samples of which size a run takes, whatever the limit: of others nothing follows."""
    return spec.dataset, spec.split, spec.dataset_options


def _store_bytes(spec: RunSpec, known: Sequence[RunRecord]) -> int | None:
    same = [
        r.store.disk_bytes for r in known if r.store and r.spec.backend == spec.backend and _same_store(r.spec, spec)
    ]
    if same:
        return same[-1]
    per_sample = [
        record.store.disk_bytes / record.data.count
        for record in known
        if record.store and record.data and record.spec.backend == spec.backend and _data(record.spec) == _data(spec)
    ]
    count = _count(spec, known)
    return round(statistics.median(per_sample) * count) if per_sample and count is not None else None


def _same_store(one: RunSpec, other: RunSpec) -> bool:
    return store_key(one) == store_key(other)
