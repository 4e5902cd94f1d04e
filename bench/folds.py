"""Cross-validation over a data set's own folds: one run for each, which tests on that fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench import registry
from bench.contracts.errors import BenchError
from bench.learned import FoldInfo
from bench.record import RunRecord
from bench.spec import RunSpec

OPTION = "fold"


class FoldError(BenchError):
    """A cross-validation that cannot be."""


def fold_count(dataset: str) -> int | None:
    """Return how many folds a data set (``NAME`` or ``NAME:PATH``) is divided into, None if it is not.

    They are the values of its option ``fold``, from 1.
    """
    cls = registry.dataset_class(dataset.partition(":")[0])
    known: Mapping[str, Any] = cls.options_type.model_json_schema().get("properties", {})
    count: int | None = known.get(OPTION, {}).get("maximum")
    return count


def chosen_folds(text: str, dataset: str) -> list[int]:
    """Return the folds that ``all`` or a number, of the first so many, stands for. Raises FoldError."""
    count = fold_count(dataset)
    if count is None:
        raise FoldError(
            f"--folds: {dataset} has no folds. Use --val and --test, or a data set that is published in folds."
        )
    if text != "all" and not (text.isdecimal() and 1 < int(text) <= count):
        raise FoldError(f"--folds {text}: must be all, or 2 to {count}, as many as {dataset} has.")
    return list(range(1, count + 1 if text == "all" else int(text) + 1))


def require_alone(dataset_options: Mapping[str, Any], test: str | None, repeats: int) -> None:
    """Raise FoldError where other flags do not go with ``--folds``."""
    if OPTION in dataset_options:
        raise FoldError("--folds tests on one fold after the other: leave --fold out.")
    if test not in {None, "test"}:
        raise FoldError(f"--folds tests on each fold, which is the split test: leave --test {test} out.")
    if repeats > 1:
        raise FoldError("--folds runs every fold once, and it learns the same each time: leave --repeats out.")


def earlier_run(spec: RunSpec, spec_id: str, records: Sequence[RunRecord]) -> RunRecord | None:
    """Return the last finished run of a fold, as part of a cross-validation, among ``records``, oldest first."""
    equal = [r for r in records if r.spec_id == spec_id and r.fold is not None and r.status == "ok" and r.spec == spec]
    return equal[-1] if equal else None


def begun(specs: Sequence[RunSpec], records: Sequence[RunRecord]) -> str | None:
    """Return the id of the cross-validation to which the last finished run of any of ``specs`` belongs."""
    found = [run for spec in specs if (run := earlier_run(spec, spec.spec_id, records)) is not None]
    last = max(found, key=lambda run: run.started_at, default=None)
    return None if last is None or last.fold is None else last.fold.id


def info(name: str, fold: int, dataset: str) -> FoldInfo:
    """Return what the record of a fold says; ``name`` is common to the cross-validation."""
    return FoldInfo(id=name, fold=fold, folds=fold_count(dataset) or fold)
