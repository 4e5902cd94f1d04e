"""Records of the folds of one cross-validation, put together: never with runs of another set-up, and nothing hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.records.comparability import Difference, surroundings, unlike
from bench.records.metrics import METRICS
from bench.records.record import RunRecord
from bench.specs.spec import content_hash
from bench.stats import Moments, moments

FOLD_OPTION = "fold"
"""The option of a data set that says which fold is left out of training."""


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """The runs of one set-up under one id, at least one: all of them, and the newest result of each fold."""

    identity: str
    folds: int
    runs: tuple[RunRecord, ...]
    results: dict[int, RunRecord]

    @property
    def first(self) -> RunRecord:
        """Any one of them, for what they have in common."""
        return next(iter(self.results.values()), self.runs[0])

    @property
    def missing(self) -> list[int]:
        """Folds without a result, whether they failed or were never run."""
        return [fold for fold in range(1, self.folds + 1) if fold not in self.results]

    @property
    def repeated(self) -> list[int]:
        """Folds of which there are several results; the newest counts."""
        counts = [run.fold.fold for run in self.runs if run.fold is not None and run.status == "ok"]
        return sorted({fold for fold in counts if counts.count(fold) > 1})

    @property
    def unlike(self) -> list[Difference]:
        """In what the conditions of the folds differ: machine, versions, device, where the samples are from.

        Folds that went on from checkpoints on another day may have run under others.
        """
        return unlike([_conditions(run) for _, run in sorted(self.results.items())])

    def value(self, fold: int, metric: str) -> float | None:
        """Return a metric of one fold, the median of its epochs where it has several; None where it is not known."""
        summary = METRICS[metric].of(self.results[fold]) if fold in self.results else None
        return None if summary is None else summary.median

    def moments(self, metric: str) -> Moments | None:
        """Return mean, median and deviation over the folds that have a metric."""
        values = [self.value(fold, metric) for fold in sorted(self.results)]
        return moments([value for value in values if value is not None])


def cross_validations(records: Sequence[RunRecord]) -> list[CrossValidation]:
    """Return all cross-validations among records, in the order of their first runs.

    Runs of one id that differ in anything but the fold (two backends, say) are several.
    """
    found: dict[tuple[str, int, str], list[RunRecord]] = {}
    for record in sorted(records, key=lambda record: record.started_at):
        if record.fold is not None:
            key = (record.fold.id, record.fold.folds, _set_up(record))
            found.setdefault(key, []).append(record)
    return [
        CrossValidation(
            identity,
            folds,
            tuple(runs),
            {run.fold.fold: run for run in runs if run.fold is not None and run.status == "ok"},
        )
        for (identity, folds, _), runs in found.items()
    ]


def _set_up(record: RunRecord) -> str:
    spec = record.spec.model_dump(mode="json")
    options = {key: value for key, value in spec["dataset_options"].items() if key != FOLD_OPTION}
    return content_hash({**spec, "dataset_options": options})


def _conditions(record: RunRecord) -> dict[str, str]:
    found = surroundings(record.environment, record.spec.memory_limit_bytes)
    found["device"] = record.device or record.spec.device
    return found | ({"origin of the samples": record.data.origin} if record.data is not None else {})
