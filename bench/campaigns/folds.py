"""Cross-validation over a data set's own folds: one run for each, which tests on that fold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench import registry
from bench.contracts.errors import BenchError
from bench.records.learned import FoldInfo
from bench.specs.spec import NO_MODEL

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


def require_alone(dataset_options: Mapping[str, Any], fields: Mapping[str, Any], repeats: int) -> None:
    """Raise FoldError where other flags do not go with ``--folds``; ``fields`` are those of a RunSpec."""
    test = fields.get("test")
    if fields.get("model") == NO_MODEL:
        raise FoldError("--folds goes with a network: --model none trains nothing.")
    if fields.get("split", "train") != "train":
        raise FoldError(f"--folds trains on the split train: leave --split {fields['split']} out.")
    if OPTION in dataset_options:
        raise FoldError("--folds tests on one fold after the other: leave --fold out.")
    if test not in {None, "test"}:
        raise FoldError(f"--folds tests on each fold, which is the split test: leave --test {test} out.")
    if repeats > 1:
        raise FoldError("--folds runs every fold once, and it learns the same each time: leave --repeats out.")


def info(name: str, fold: int, dataset: str) -> FoldInfo:
    """Return what the record of a fold says; ``name`` is common to the cross-validation."""
    return FoldInfo(id=name, fold=fold, folds=fold_count(dataset) or fold)
